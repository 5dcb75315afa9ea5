"""The audit must see what is broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluidgate.batching import Batching
from fluidgate.compiled import by_reference
from fluidgate.engine_table import EngineModel
from fluidgate.policies.decisions.board import NOWHERE, Functions
from fluidgate.policies.decisions.tables import Placement
from fluidgate.policies.decisions.view import SOLO
from fluidgate.simulation import pauses
from fluidgate.simulation.events import ARRIVAL
from fluidgate.simulation.invariants import InvariantError
from fluidgate.simulation.iteration import rules
from fluidgate.simulation.iteration.builds import audit as audit_kernel
from fluidgate.simulation.iteration.builds import build
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.kernel.cluster import (
    ALIVE,
    ENDED,
    MIXED_GROUP,
    RUNNING,
    SEATED,
    TIMERS,
    Cluster,
)
from fluidgate.simulation.iteration.law import linear_law
from fluidgate.simulation.iteration.run import Run, new_cluster
from tests.simulation.iteration.instances import placed_instance, policy_instance, requests


def audit(cluster: Cluster) -> int:
    return int(audit_kernel(by_reference(cluster)))


def busy_placed() -> Cluster:
    """GPUs with decodes, prompts, lines, little memory and impatient requests."""
    rng = np.random.default_rng(1)
    stream = requests(rng, 60, 2, 2.0)
    stream["patience"] = 5.0
    engine = Engine(linear_law(0.02, 1e-3), 4, 30, keys=EngineModel(kv_tokens=600))
    cluster = new_cluster(engine, Run(3, 2, audited=True), False, placement=Placement.LEAST_LOADED)
    cluster.tally[ENDED] = 1
    kernel = build(Batching.TOKEN_BUDGET)
    while cluster.lines["members"].max() < 3 or cluster.tally[TIMERS] < 2 or cluster.gpu["decodes"].max() < 2:
        code = kernel(by_reference(cluster), by_reference(engine.law), stream, 1)
        assert code == pauses.PAUSED, "the cluster is never as busy as it should be"
    return cluster


def busy_single() -> Cluster:
    """A prefill beside decodes, and requests that wait."""
    instance = next(
        i
        for i in (policy_instance(seed, "gate-and-route") for seed in range(1000))
        if i.run.gpus > 2 and i.engine.batch_size > 2
    )
    assert instance.tables is not None
    chosen = instance.tables
    cluster = new_cluster(instance.engine, instance.run, False, tables=chosen, functions=Functions())
    cluster.tally[ENDED] = 1
    kernel = build(Batching.SINGLE_PREFILL)
    fixed = by_reference(instance.engine.law), by_reference(chosen)
    while not (cluster.counts[0].sum() and cluster.gpu["mixed"].any() and cluster.gpu["decodes"].any()):
        assert kernel(by_reference(cluster), *fixed, instance.requests, 1) == pauses.PAUSED
    return cluster


def fullest(cluster: Cluster) -> int:
    return int(cluster.gpu["decodes"].argmax())


def break_balance(cluster: Cluster) -> None:
    cluster.events[ARRIVAL, 0] += 1


def break_alive(cluster: Cluster) -> None:
    cluster.tally[ALIVE] += 1


def break_slots(cluster: Cluster) -> None:
    cluster.gpu["decodes"][fullest(cluster)] = cluster.batch_size + 1


def break_heap(cluster: Cluster) -> None:
    cluster.heaps[fullest(cluster), 0] += 1 << 40


def break_context(cluster: Cluster) -> None:
    cluster.gpu["context"][fullest(cluster)] += 1


def break_classes(cluster: Cluster) -> None:
    cluster.batch[fullest(cluster), RUNNING, 0] += 1


def break_memory(cluster: Cluster) -> None:
    cluster.gpu["blocks"][fullest(cluster)] -= 1


def break_line(cluster: Cluster) -> None:
    line = int(cluster.lines["members"].argmax())
    cluster.live["previous"][cluster.lines["tail"][line]] = NOWHERE


def break_timer(cluster: Cluster) -> None:
    cluster.live["timer"][cluster.timers[0]] = 1e9


def break_winner(cluster: Cluster) -> None:
    cluster.epochs[(cluster.tree[1] + 1) % cluster.gpus] = -1.0


def break_load(cluster: Cluster) -> None:
    cluster.loads.load[0] += 1


@pytest.mark.parametrize(
    ("sabotage", "code"),
    [
        (break_balance, 1),
        (break_alive, 1),
        (break_slots, 2),
        (break_heap, 3),
        (break_context, 4),
        (break_classes, 4),
        (break_memory, 5),
        (break_line, 6),
        (break_timer, 7),
        (break_winner, 8),
        (break_load, 9),
    ],
)
def test_a_broken_cluster_is_seen(sabotage: Any, code: int) -> None:
    cluster = busy_placed()
    assert audit(cluster) == 0
    sabotage(cluster)
    assert audit(cluster) == code


def break_seats(cluster: Cluster) -> None:
    cluster.batch[0, SEATED, 0] += 1


def break_mode(cluster: Cluster) -> None:
    cluster.gpu["mixed"][0] = 1 - cluster.gpu["mixed"][0]


@pytest.mark.parametrize("sabotage", [break_seats, break_mode])
def test_a_broken_slot_of_a_policy_is_seen(sabotage: Any) -> None:
    cluster = busy_single()
    assert audit(cluster) == 0
    sabotage(cluster)
    assert audit(cluster) == 2


def break_ready(cluster: Cluster) -> None:
    cluster.gpu["decode_position"][cluster.gpu["decode_position"].argmax()] = NOWHERE


def break_lists(cluster: Cluster) -> None:
    cluster.board.state.free[SOLO] += 1


def break_group(cluster: Cluster) -> None:
    cluster.tally[MIXED_GROUP] += 1


def break_leaving(cluster: Cluster) -> None:
    cluster.gpu["leaving"][(cluster.gpu["prefill_seat"] == NOWHERE).argmax()] = 1


@pytest.mark.parametrize(
    ("sabotage", "code"), [(break_ready, 10), (break_lists, 10), (break_group, 11), (break_leaving, 11)]
)
def test_broken_groups_are_seen(sabotage: Any, code: int) -> None:
    cluster = busy_single()
    sabotage(cluster)
    assert audit(cluster) == code


def test_a_failure_stops_the_run_and_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    make = rules.new_cluster

    def broken(*arguments: Any, **options: Any) -> Cluster:
        cluster = make(*arguments, **options)
        cluster.events[ARRIVAL, 0] = 7
        return cluster

    monkeypatch.setattr(rules, "new_cluster", broken)
    instance = placed_instance(1, Batching.TOKEN_BUDGET, Placement.ROUND_ROBIN)
    with pytest.raises(InvariantError, match=r"balance is broken.*event 1"):
        instance.by_kernel()


def test_a_block_at_a_time_is_asked_for() -> None:
    instance = placed_instance(1, Batching.TOKEN_BUDGET, Placement.ROUND_ROBIN)
    cluster = new_cluster(instance.engine, instance.run, False)
    kernel = build(Batching.TOKEN_BUDGET)
    law = by_reference(instance.engine.law)
    assert kernel(by_reference(cluster), law, instance.requests[:0], 10) == pauses.BLOCK_READ
