"""The audit must see what is broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import SFC64, Generator

from fluidgate.compiled import entry_point
from fluidgate.policies.decisions.view import SOLO
from fluidgate.simulation.iteration import audit as audits
from fluidgate.simulation.iteration import rules
from fluidgate.simulation.iteration.builds import placed, single
from fluidgate.simulation.iteration.cluster import (
    ALIVE,
    ENDED,
    MIXED_GROUP,
    RUNNING,
    SEATED,
    TIMERS,
    Batching,
    Cluster,
    Placement,
)
from fluidgate.simulation.iteration.engine import Engine, KvMemory
from fluidgate.simulation.iteration.law import linear_law
from fluidgate.simulation.iteration.placed import HUNGRY
from fluidgate.simulation.iteration.run import Run, new_cluster
from fluidgate.simulation.markov.kernel import PAUSED
from fluidgate.simulation.markov.network import ARRIVAL, NONE
from fluidgate.simulation.markov.replication import InvariantError
from tests.simulation.iteration.instances import placed_instance, policy_instance, requests

_audit = audits.full_audit


@entry_point
def audit(cluster):  # type: ignore[no-untyped-def]
    return _audit(cluster)


def busy_placed() -> Cluster:
    """GPUs with decodes, prompts, lines, little memory and impatient requests."""
    rng = np.random.default_rng(1)
    stream = requests(rng, 60, 2, 2.0)
    stream["patience"] = 5.0
    engine = Engine(linear_law(0.02, 1e-3), 4, 30, kv=KvMemory(600, 16))
    cluster = new_cluster(engine, Run(3, 2, audited=True), False, placement=Placement.LEAST_LOADED)
    cluster.tally[ENDED] = 1
    draws = Generator(SFC64(1))
    while cluster.lines["size"].max() < 3 or cluster.tally[TIMERS] < 2 or cluster.gpu["decodes"].max() < 2:
        assert placed(cluster, engine.law, stream, draws, 1) == PAUSED, "the cluster is never as busy as it should be"
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
    cluster = new_cluster(
        instance.engine, instance.run, False, mixed_gpus=int(chosen.mixed_gpus), reserve=bool(chosen.reserve)
    )
    cluster.tally[ENDED] = 1
    draws = Generator(SFC64(1))
    while not (cluster.counts[0].sum() and cluster.gpu["mixed"].any() and cluster.gpu["decodes"].any()):
        assert single(cluster, instance.engine.law, chosen, instance.requests, draws, 1) == PAUSED
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
    line = int(cluster.lines["size"].argmax())
    cluster.live["previous"][cluster.lines["tail"][line]] = NONE


def break_timer(cluster: Cluster) -> None:
    cluster.live["timer"][cluster.timers[0]] = 1e9


def break_winner(cluster: Cluster) -> None:
    cluster.epochs[(cluster.tree[1] + 1) % cluster.gpus] = -1.0


def break_load(cluster: Cluster) -> None:
    cluster.gpu["load"][0] += 1


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
    cluster.gpu["decode_position"][cluster.gpu["decode_position"].argmax()] = NONE


def break_lists(cluster: Cluster) -> None:
    cluster.free[SOLO] += 1


def break_group(cluster: Cluster) -> None:
    cluster.tally[MIXED_GROUP] += 1


def break_leaving(cluster: Cluster) -> None:
    cluster.gpu["leaving"][(cluster.gpu["prefill_seat"] == NONE).argmax()] = 1


@pytest.mark.parametrize(
    ("sabotage", "code"), [(break_ready, 13), (break_lists, 13), (break_group, 14), (break_leaving, 14)]
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
    assert placed(cluster, instance.engine.law, instance.requests[:0], Generator(SFC64(1)), 10) == HUNGRY
