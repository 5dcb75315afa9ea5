"""The kernels against a reference that steps every iteration of every GPU: request by request, and in every measure."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fluidgate.batching import Batching
from fluidgate.model import EngineModel
from fluidgate.policies import POLICIES
from fluidgate.simulation.iteration.kernel.cluster import Placement
from fluidgate.simulation.iteration.times import TIMES
from tests.simulation.iteration.instances import (
    Instance,
    changing_instance,
    closed_instance,
    drift_instance,
    gated_instance,
    in_step,
    limited_instance,
    placed_instance,
    policy_instance,
)
from tests.simulation.iteration.reference import Reference

PLACED = [(batching, rule) for batching in Batching if batching != Batching.SINGLE_PREFILL for rule in Placement]
SEEDS = 20
CLOSE = {"rel": 1e-9, "abs": 1e-9}


def agree(instance: Instance) -> Reference:
    """Run both and compare everything."""
    measured, log = instance.by_kernel()
    expected = instance.by_reference()

    named: dict[int, int] = {}
    assert len(log) == sum(r.outcome > 0 for r in expected.requests)
    for r in expected.requests:
        if r.outcome == 0:
            assert r.number not in log
            continue
        row = log[r.number]
        got = (row["outcome"], row["prefill_gpu"], row["preemptions"], row["cls"], row["prompt"], row["output"])
        assert got == (r.outcome, r.prefill_gpu, r.preemptions, r.cls, r.prompt, r.output), r
        assert row["decode_gpu"] == r.gpu, r
        epochs = [row[name] for name in ("arrival", "scheduled", "first_token", "last_token")]
        back = expected.way_back
        seen = [r.sent, r.scheduled, r.first + back, r.left + (back if r.outcome == 1 else 0.0)]
        assert epochs == pytest.approx(seen, nan_ok=True, **CLOSE), r
        if r.user >= 0 or row["user"] < 0:
            assert row["user"] == r.user, r
        else:  # a session, by a number of its own
            assert named.setdefault(row["user"].item(), r.session) == r.session, r

    for name, (row, *_) in TIMES.items():
        for i in range(instance.run.classes):
            seen = [seconds for cls, seconds in expected.times[name] if cls == i]
            assert measured.distribution(name, i).observations == len(seen), name
            assert measured.seconds[row, i] == pytest.approx(math.fsum(seen), rel=1e-9, abs=1e-8), name
            if seen:
                for share in (0.1, 0.5, 0.9, 0.99):
                    exact = float(np.quantile(seen, share))
                    assert measured.distribution(name, i).quantile(share) == pytest.approx(exact, rel=5e-3, abs=2e-6)
    for name in (
        "arrivals",
        "completions",
        "rejections",
        "prefill_abandonments",
        "decode_abandonments",
        "preemptions",
        "losses",
    ):
        assert getattr(measured, name).tolist() == [expected.count[name, i] for i in range(instance.run.classes)], name
    for row, name in enumerate(("prompt_read", "prompt_served", "output_served")):
        assert measured.tokens[row].tolist() == [expected.count[name, i] for i in range(instance.run.classes)], name

    if instance.engine.keys.prefix_caching:
        for name in ("prompt_found", "prompt_admitted"):
            seen = [expected.count[name, i] for i in range(instance.run.classes)]
            assert getattr(measured, name).tolist() == seen, name

    window = max(expected.now - instance.run.warmup, 0.0)
    assert measured.window == pytest.approx(window, **CLOSE)
    if window > 0:
        assert measured.occupancy * window == pytest.approx(expected.area, rel=1e-9, abs=1e-7)
        modes = [expected.mode[name] for name in ("solo", "mixed", "prefill")]
        assert measured.mode_seconds[:3] == pytest.approx(modes, rel=1e-9, abs=1e-8)
        assert measured.mode_seconds[3] == pytest.approx(expected.kv_seconds, rel=1e-9, abs=1e-6)
    return expected


@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_placed_requests(batching: Batching, rule: Placement) -> None:
    for seed in range(SEEDS):
        agree(placed_instance(seed, batching, rule))


@pytest.mark.parametrize("batching", [Batching.TOKEN_BUDGET, Batching.PREFILL_FIRST])
def test_requests_read_where_they_decode_or_elsewhere(batching: Batching) -> None:
    ways = set()
    for seed in range(SEEDS, 2 * SEEDS):
        runs = agree(drift_instance(seed, batching))
        ways |= {r.reader == r.decodes_on for r in runs.requests if r.reader >= 0}
    assert ways == {True, False}


@pytest.mark.parametrize(("batching", "rule"), [(b, rule) for b, rule in PLACED if rule != Placement.POOLS])
def test_placed_requests_on_ranks_in_step(batching: Batching, rule: Placement) -> None:
    for seed in range(SEEDS):
        agree(in_step(placed_instance(seed, batching, rule), 2 + (seed + 1) % 3))


@pytest.mark.parametrize("policy", list(POLICIES))
def test_policies_on_ranks_in_step(policy: str) -> None:
    for seed in range(SEEDS):
        agree(in_step(policy_instance(seed, policy), 2 + seed % 3))


def test_limits_held_on_ranks_in_step() -> None:
    for seed in range(SEEDS):
        agree(in_step(limited_instance(seed), 2 + seed % 3))


@pytest.mark.parametrize("batching", [Batching.TOKEN_BUDGET, Batching.PREFILL_FIRST])
@pytest.mark.parametrize("policy", ["index-and-pool", "fi-wsp"])
def test_a_gate_before_ranks_in_step(policy: str, batching: Batching) -> None:
    for seed in range(2 * SEEDS):
        agree(in_step(gated_instance(seed, policy, batching), 2 + seed % 3))


@pytest.mark.parametrize("policy", ["gate-and-route", "sli-aware-general", "index-and-pool", "fi-wsp"])
def test_tables_that_change_on_the_way(policy: str) -> None:
    for seed in range(SEEDS):
        agree(changing_instance(seed, policy))


@pytest.mark.parametrize("policy", list(POLICIES))
def test_policies(policy: str) -> None:
    for seed in range(SEEDS):
        agree(policy_instance(seed, policy))


@pytest.mark.parametrize("batching", [Batching.TOKEN_BUDGET, Batching.PREFILL_FIRST])
@pytest.mark.parametrize("policy", ["index-and-pool", "fi-wsp", "gate-and-route"])
def test_a_gate_before_gpus_that_form_their_own_batches(policy: str, batching: Batching) -> None:
    for seed in range(SEEDS):
        agree(gated_instance(seed, policy, batching))


@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_a_closed_loop_of_placed_requests(batching: Batching, rule: Placement) -> None:
    for seed in range(SEEDS):
        agree(closed_instance(placed_instance(seed, batching, rule), seed))


@pytest.mark.parametrize("policy", ["gate-and-route", "sli-aware-general", "index-and-pool", "fi-wsp", "fg-sp"])
def test_a_closed_loop_under_policies(policy: str) -> None:
    for seed in range(SEEDS):
        agree(closed_instance(policy_instance(seed, policy), seed))
        agree(closed_instance(changing_instance(seed, policy), seed))
        agree(closed_instance(gated_instance(seed, policy, Batching.TOKEN_BUDGET), seed))


def test_a_front_end_before_and_after_the_engines() -> None:
    for seed in range(SEEDS):
        both = {"front_end": (1 + seed % 3) / 64, "front_end_first": (seed % 4) / 128}
        for instance in (
            placed_instance(seed, Batching.TOKEN_BUDGET, Placement.LEAST_LOADED),
            policy_instance(seed, "gate-and-route"),
            gated_instance(seed, "fi-wsp", Batching.TOKEN_BUDGET),
        ):
            keys = instance.engine.keys.model_copy(update=both)
            agree(replace(instance, engine=replace(instance.engine, keys=keys)))


def test_a_closed_loop_under_limits() -> None:
    for seed in range(2 * SEEDS):
        agree(closed_instance(limited_instance(seed), seed))


@pytest.mark.parametrize("limited", [False, True])
def test_one_gpu_under_an_fcfs_gate_is_that_gpu_alone(limited: bool) -> None:
    """Who waits in the policy's queue or on the GPU waits for the same, where nobody leaves."""
    for seed in range(SEEDS):
        instance = gated_instance(seed, "fi-wsp", Batching.TOKEN_BUDGET)
        stream = instance.requests.copy()
        stream["patience"] = math.inf
        stream["arrival"] += 1e-7 * np.arange(len(stream))  # the first who comes is the first, whatever the class
        memory = int((stream["prompt"] + stream["output"]).max() * (1.5 + seed % 4)) if limited else None
        keys = EngineModel(kv_tokens=memory, kv_block=1) if limited else EngineModel()
        engine = replace(instance.engine, keys=keys)
        run = replace(instance.run, gpus=1, horizon=math.inf, warmup=0.0)
        assert instance.tables is not None
        none = np.zeros(run.classes)
        tables = instance.tables._replace(mixed_gpus=1, max_prefills=1 << 40, expected_output=none)
        gated = replace(instance, requests=stream, engine=engine, run=run, tables=tables)
        _, one = gated.by_kernel()
        _, other = replace(gated, policy=None, tables=None).by_kernel()
        assert one.keys() == other.keys()
        for number, row in one.items():
            assert row.tolist() == pytest.approx(other[number].tolist(), nan_ok=True, **CLOSE)


def test_limits_held_by_virtual_queues() -> None:
    for seed in range(4 * SEEDS):
        agree(limited_instance(seed))


@pytest.mark.parametrize("batching", [Batching.TOKEN_BUDGET, Batching.PREFILL_FIRST])
def test_a_gate_keeps_every_invariant_where_memory_is_short(batching: Batching) -> None:
    """Audited at every event; who neither leaves nor is too long for a GPU is served."""
    preempted = 0
    for seed in range(SEEDS):
        instance = gated_instance(seed, "index-and-pool", batching)
        longest = int((instance.requests["prompt"] + instance.requests["output"]).max())
        keys = EngineModel(kv_tokens=int(longest * (1.1 + 0.4 * (seed % 5))), kv_block=1 + seed % 4)
        run = replace(instance.run, horizon=math.inf, warmup=0.0)
        measured, log = replace(instance, engine=replace(instance.engine, keys=keys), run=run).by_kernel()
        assert len(log) == len(instance.requests)
        left = measured.prefill_abandonments.sum() + measured.rejections.sum()
        assert measured.completions.sum() + left == len(log)
        assert measured.kv_peak <= keys.kv_tokens
        preempted += int(measured.preemptions.sum())
    assert preempted > 0
