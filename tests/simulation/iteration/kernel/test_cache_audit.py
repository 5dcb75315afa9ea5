"""The audit must see what is broken of what lies in KV memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluidgate.batching import Batching
from fluidgate.compiled import by_reference, records
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.policies.decisions.tables import Placement
from fluidgate.simulation import pauses
from fluidgate.simulation.iteration.builds import build
from fluidgate.simulation.iteration.kernel.cluster import ENDED, FREE_RECORD, RECORDS, Cluster, with_more_records
from fluidgate.simulation.iteration.run import new_cluster
from tests.simulation.iteration.instances import placed_instance
from tests.simulation.iteration.kernel.test_audit import audit
from tests.simulation.iteration.prefix_instances import alike


def caching_cluster() -> Cluster:
    """GPUs that hold beginnings of prompts, some by several, some free, with requests that wait for some."""
    seed = 0
    while True:
        instance = alike(placed_instance(seed, Batching.TOKEN_BUDGET, Placement.LEAST_LOADED), seed, followed=False)
        if instance.run.gpus > 1 and instance.engine.keys.kv_tokens is not None:
            break
        seed += 1
    run = instance.run.__class__(instance.run.gpus, instance.run.classes, script=instance.script, audited=True)
    cluster = new_cluster(instance.engine, run, False, placement=Placement.LEAST_LOADED)
    cluster.tally[ENDED] = 1
    kernel, stream = build(Batching.TOKEN_BUDGET), records(instance.requests)
    while not is_rich(cluster):
        code = kernel(by_reference(cluster), by_reference(instance.engine.law), stream, 1)
        if code == pauses.RECORDS_FULL:
            cluster = with_more_records(cluster, 64)
        else:
            assert code == pauses.PAUSED, "the cluster never holds as much as it should"
    return cluster


def is_rich(cluster: Cluster) -> bool:
    return (
        len(held(cluster)) > 0 and len(free(cluster)) > 2 and len(awaited(cluster)) > 0 and len(children(cluster)) > 0
    )


def pieces(cluster: Cluster) -> Any:
    return (cluster.cached["gpu"] != NOWHERE) & (cluster.cached["piece"] > 0)


def held(cluster: Cluster) -> Any:
    return np.flatnonzero(pieces(cluster) & (cluster.cached["refs"] > 0) & (cluster.cached["present"] > 0))


def free(cluster: Cluster) -> Any:
    return np.flatnonzero(pieces(cluster) & (cluster.cached["refs"] == 0) & (cluster.cached["present"] > 0))


def awaited(cluster: Cluster) -> Any:
    return np.flatnonzero(pieces(cluster) & (cluster.cached["ties"] > 0))


def children(cluster: Cluster) -> Any:
    return np.flatnonzero(pieces(cluster) & (cluster.cached["up"] != NOWHERE) & (cluster.cached["present"] > 0))


def break_holders_count(cluster: Cluster) -> None:
    cluster.cached["refs"][held(cluster)[0]] += 1


def break_waiters_count(cluster: Cluster) -> None:
    cluster.cached["ties"][awaited(cluster)[0]] += 1


def break_chain(cluster: Cluster) -> None:
    cluster.cached["up"][children(cluster)[0]] = NOWHERE


def break_beginning(cluster: Cluster) -> None:
    cluster.cached["present"][cluster.cached["up"][children(cluster)[0]]] -= 1


def break_table(cluster: Cluster) -> None:
    cluster.table[np.flatnonzero(cluster.table == held(cluster)[0])[0]] = NOWHERE


def break_table_twice(cluster: Cluster) -> None:
    cluster.table[np.flatnonzero(cluster.table == NOWHERE)[0]] = held(cluster)[0]


def break_list(cluster: Cluster) -> None:
    cluster.holders[cluster.cached["piece"][held(cluster)[0]]] = NOWHERE


def break_list_backwards(cluster: Cluster) -> None:
    cluster.cached["previous_holder"][held(cluster)[0]] = held(cluster)[0]


def break_spare(cluster: Cluster) -> None:
    cluster.tally[FREE_RECORD] = cluster.cached["after"][cluster.tally[FREE_RECORD]]


def break_number(cluster: Cluster) -> None:
    cluster.tally[RECORDS] += 1


def break_line(cluster: Cluster) -> None:
    cluster.cached["before"][free(cluster)[0]] = free(cluster)[0]


def break_last(cluster: Cluster) -> None:
    g = cluster.cached["gpu"][free(cluster)[0]]
    cluster.gpu["last_free"][g] = NOWHERE


def leave_line(cluster: Cluster) -> None:
    """A record nobody holds stands in no line; its blocks are counted with the next."""
    record = cluster.cached[next(r for r in free(cluster) if cluster.cached["after"][r] != NOWHERE)]
    cluster.cached["present"][record["after"]] += record["present"]
    cluster.cached["before"][record["after"]] = record["before"]
    if record["before"] == NOWHERE:
        cluster.gpu["first_free"][record["gpu"]] = record["after"]
    else:
        cluster.cached["after"][record["before"]] = record["after"]


@pytest.mark.parametrize(
    ("sabotage", "codes"),
    [
        (break_holders_count, {15}),
        (break_waiters_count, {15}),
        (break_chain, {15}),
        (break_beginning, {5, 15}),
        (break_table, {15}),
        (break_table_twice, {15}),
        (break_list, {15}),
        (break_list_backwards, {15}),
        (break_spare, {15}),
        (break_number, {15}),
        (break_line, {5}),
        (break_last, {5}),
        (leave_line, {15}),
    ],
)
def test_a_broken_cache_is_seen(sabotage: Any, codes: set[int]) -> None:
    cluster = caching_cluster()
    assert audit(cluster) == 0
    sabotage(cluster)
    assert audit(cluster) in codes
