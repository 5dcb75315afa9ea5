"""KV of prompts that have been read: held by somebody until their decode has it, and nobody waits for good.

Every run here is audited: at every event the blocks of each GPU are exactly those of its decodes, its prefills, the
prompts that it has read and whose decodes have no place yet, and the hand-overs from and to it.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate.batching import Batching
from fluidgate.compiled import by_reference, records
from fluidgate.engine_table import EngineModel
from fluidgate.policies import POLICIES, find_policy
from fluidgate.simulation import pauses
from fluidgate.simulation.iteration.builds import audit
from fluidgate.simulation.iteration.engine import Engine, Pools
from fluidgate.simulation.iteration.kernel.cluster import COMPLETED, ENDED, NOW, Cluster, Placement
from fluidgate.simulation.iteration.rules import Decisions, Placements
from fluidgate.simulation.iteration.run import Run, run_requests
from tests.simulation.iteration.instances import Instance, placed_instance, policy_instance
from tests.simulation.iteration.test_run import PLAIN, block, single_class, tables, times

DISCIPLINES = [batching for batching in Batching if batching != Batching.SINGLE_PREFILL]
STUCK_ANYWAY = ("sli-aware", "sli-aware-general")
"""Policies whose split buffers may be those of a group without GPUs: some requests wait for good, memory or not."""


def logged(requests: Any, engine: Engine, rules: Any, gpus: int = 2) -> Any:
    logs: list[Any] = []
    run_requests([requests], engine, Run(gpus, 1, audited=True), rules, take_log=logs.append)
    log = np.concatenate(logs)
    return log[np.argsort(log["number"])]


def decisions(policy: str, batch_size: int, gpus: int = 2) -> Decisions:
    return Decisions(find_policy(policy), tables(single_class(batch_size, 100), policy, gpus))


def most_at_once(log: Any) -> int:
    """Requests that have been read and not ended, at most."""
    changes = [(row["first_token"], 1) for row in log] + [(row["last_token"], -1) for row in log]
    return int(max(np.cumsum([change for _, change in sorted(changes)])))


def single(batch_size: int, **keys: Any) -> Engine:
    return Engine(PLAIN, batch_size, 100, Batching.SINGLE_PREFILL, EngineModel(**keys))


def test_a_read_prompt_stays_where_it_was_read_until_there_is_memory_for_its_decode() -> None:
    # GPU 0 reads [0, 2], GPU 1 decodes 60 tokens until 62. The second prompt is read [2, 4] and stays on GPU 0, so that
    # the third waits for its memory, though GPU 0 stands idle. At 62 GPU 1 is free, and GPU 0 with it.
    log = logged(block(*[(0.0, 100, 60)] * 3), single(4, kv_tokens=160, kv_block=1), decisions("gate-and-route", 4))
    assert log["decode_gpu"].tolist() == [1, 1, 1]
    assert [times(row)[0] for row in log] == pytest.approx([0.0, 2.0, 62.0])
    assert [times(row)[2] for row in log] == pytest.approx([62.0, 122.0, 182.0])


def test_both_gpus_hold_the_kv_as_long_as_its_transfer_takes() -> None:
    # read [0, 2]; its KV goes to GPU 1 until 7, and GPU 0 has no memory for the second prompt before
    keys = {"kv_tokens": 160, "kv_block": 1, "transfer_latency": 5.0}
    log = logged(block((0.0, 100, 1), (0.0, 100, 1)), single(4, **keys), decisions("gate-and-route", 4))
    assert [times(row)[0] for row in log] == pytest.approx([0.0, 7.0])
    # and memory there is set aside when the transfer starts: the second's begins when the first has ended at 8, but
    # it has been read only at 9 then
    assert [times(row)[2] for row in log] == pytest.approx([8.0, 15.0])


def test_who_leaves_the_buffer_leaves_memory() -> None:
    # with one slot a GPU, GPU 0 reads and GPU 1 decodes; the second waits for the slot with its KV on GPU 0, leaves
    # at 2 + 2 + 10, and the third is read
    requests = block(*[(0.0, 100, 60)] * 3)
    requests["patience"] = [math.inf, 10.0, 100.0]
    log = logged(requests, single(1, kv_tokens=160, kv_block=1), decisions("gate-and-route", 1))
    assert times(log[1])[2] == pytest.approx(14.0)
    assert times(log[2])[0] == pytest.approx(14.0)


@pytest.mark.parametrize("batching", DISCIPLINES)
def test_a_pool_for_prompts_keeps_what_the_pool_for_tokens_cannot_take(batching: Batching) -> None:
    # GPU 0 reads [0, 2] and [2, 4]; GPU 1 holds one of them only, until its 59 tokens are out
    deadline = 1000.0 if batching == Batching.LAST_SCHEDULABLE else math.inf
    engine = Engine(PLAIN, 4, 100, batching, EngineModel(kv_tokens=160, kv_block=1), deadline)
    rules = Placements(Placement.POOLS, Pools(1))
    log = logged(block(*[(0.0, 100, 60)] * 3), engine, rules)
    assert log["decode_gpu"].tolist() == [1, 1, 1]
    assert [times(row)[0] for row in log] == pytest.approx([0.0, 2.0, 61.0])
    assert [times(row)[2] for row in log] == pytest.approx([61.0, 120.0, 179.0])


@pytest.mark.parametrize("policy", ["gate-and-route", "index-and-pool", "sli-aware-general", "fi-wsp"])
def test_no_more_prompts_are_read_than_memory_holds(policy: str) -> None:
    requests = block(*[(0.001 * k, 1000, 100) for k in range(12)])
    log = logged(requests, single(8, kv_tokens=1200), decisions(policy, 8))
    assert (log["outcome"] == COMPLETED).all()
    assert most_at_once(log) <= 2


@pytest.mark.parametrize("queue_tokens", [0, 2000])
def test_no_more_prompts_are_read_than_the_pools_hold(queue_tokens: int) -> None:
    requests = block(*[(0.001 * k, 1000, 100) for k in range(12)])
    engine = Engine(PLAIN, 8, 500, keys=EngineModel(kv_tokens=1200))
    log = logged(requests, engine, Placements(Placement.POOLS, Pools(1, queue_tokens)))
    assert (log["outcome"] == COMPLETED).all()
    assert most_at_once(log) <= 2


def patient(instance: Instance, **keys: Any) -> Instance:
    """The same without impatience and without an end, with other keys of [engine]."""
    requests = instance.requests.copy()
    requests["patience"] = math.inf
    engine = replace(instance.engine, keys=instance.engine.keys.model_copy(update=keys))
    return replace(instance, requests=requests, engine=engine, run=replace(instance.run, horizon=math.inf, warmup=0.0))


UNLIMITED = {"kv_tokens": None, "kv_reservation": 0, "kv_caching": False, "preemption": "recompute", "swap_seconds": 0}


def pooled(seed: int) -> list[Instance]:
    return [placed_instance(seed, batching, Placement.POOLS) for batching in DISCIPLINES]


@pytest.mark.parametrize("policy", [name for name in POLICIES if name not in STUCK_ANYWAY])
def test_nobody_waits_for_memory_for_good(policy: str) -> None:
    for seed in range(20):
        instance = policy_instance(seed, policy)
        _, log = patient(instance).by_kernel()
        _, free = patient(instance, **UNLIMITED).by_kernel()
        assert len(log) == len(free), seed


def test_nobody_waits_for_memory_of_a_pool_for_good() -> None:
    for seed in range(20):
        for instance in pooled(seed):
            _, log = patient(instance).by_kernel()
            assert len(log) == len(instance.requests), seed


@pytest.mark.parametrize("policy", list(POLICIES))
def test_memory_that_suffices_changes_no_number(policy: str) -> None:
    for seed in range(10):
        agree_to_the_last_digit(policy_instance(seed, policy))


def test_memory_of_pools_that_suffices_changes_no_number() -> None:
    for seed in range(10):
        for instance in pooled(seed):
            agree_to_the_last_digit(instance)


def agree_to_the_last_digit(instance: Instance) -> None:
    free = replace(instance, engine=replace(instance.engine, keys=instance.engine.keys.model_copy(update=UNLIMITED)))
    keys = free.engine.keys.model_copy(update={"kv_tokens": 10**8})
    ample = replace(free, engine=replace(free.engine, keys=keys))
    one, log = free.by_kernel()
    other, logged_too = ample.by_kernel()
    np.testing.assert_equal({k: row.item() for k, row in log.items()}, {k: row.item() for k, row in logged_too.items()})
    assert (one.histograms == other.histograms).all()
    assert (one.mode_seconds == other.mode_seconds).all()
    assert (one.occupancy == other.occupancy).all()


@pytest.mark.parametrize("spoil", ["forgotten", "elsewhere", "twice"])
def test_kv_that_nobody_holds_is_seen(spoil: str) -> None:
    cluster = keeping()
    slot = int((cluster.live["kept"] >= 0).argmax())
    if spoil == "forgotten":
        cluster.live["kept"][slot] = -1
    elif spoil == "elsewhere":
        cluster.live["kept"][slot] = 1 - cluster.live["kept"][slot]
    else:
        cluster.live["reserved"][slot] = 1
    assert audit(by_reference(cluster)) == 5


def keeping() -> Cluster:
    """Two GPUs, the first of which keeps the KV of a prompt that has been read for the second."""
    engine = single(4, kv_tokens=160, kv_block=1)
    rules = decisions("gate-and-route", 4)
    start = rules.start(engine, Run(2, 1, audited=True), log=False)
    start.cluster.tally[ENDED] = 1
    requests = block(*[(0.0, 100, 60)] * 2)
    while not (start.cluster.live["kept"][:2] >= 0).any() or start.cluster.clock[NOW] < 5.0:
        parts = map(by_reference, start.fixed)
        assert start.kernel(by_reference(start.cluster), *parts, records(requests), 1) == pauses.PAUSED
    start.cluster.live["kept"][2:] = -1  # rows that nobody has had
    assert audit(by_reference(start.cluster)) == 0
    return start.cluster


def test_as_python_the_kernels_do_the_same(tmp_path: Path) -> None:
    """Without compilation the fields of a record are attributes, and none may be hidden. One run of each kind."""
    program = tmp_path / "runs.py"
    program.write_text(
        "from tests.simulation.iteration.test_memory import pooled\n"
        "from tests.simulation.iteration.instances import policy_instance\n"
        "for instance in (policy_instance(3, 'index-and-pool'), *pooled(3)):\n"
        "    _, log = instance.by_kernel()\n"
        "    print(sorted((k, row.item()) for k, row in log.items()))\n"
    )

    def run(**more: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), **more}
        made = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True)
        return made.stdout

    compiled = run()
    assert compiled.count("\n") == 4
    assert run(NUMBA_DISABLE_JIT="1") == compiled
