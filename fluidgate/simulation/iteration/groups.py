"""The mixed and the solo group of a policy, which a new plan makes larger or smaller while requests are served."""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.view import MIXED, SOLO
from fluidgate.simulation.iteration.cluster import MIXED_GROUP, Cluster
from fluidgate.simulation.markov.network import NONE
from fluidgate.simulation.ready import move_to_group, update_ready


@called
def regroup(cluster: Cluster, mixed_gpus: int) -> None:
    """Let the mixed group have `mixed_gpus` GPUs; O(n).

    It grows at once: by GPUs that were about to leave it, then by solo GPUs with a free slot, then by full ones, which
    start a prefill when a decode has ended. It shrinks at once by GPUs without a prefill, and by others when theirs
    has ended. Nobody is moved, and no prefill is broken off.
    """
    more = mixed_gpus - cluster.tally[MIXED_GROUP]
    cluster.tally[MIXED_GROUP] = mixed_gpus
    if more > 0:
        grow(cluster, more)
    elif more < 0:
        shrink(cluster, -more)
    for g in range(cluster.gpus):
        here = cluster.gpu[g]
        here.crowded = 1 if here.group == MIXED and here.prefill_seat == NONE and is_full(cluster, g) else 0
        update_ready(cluster, g)


@inlined
def is_full(cluster: Cluster, g: int) -> bool:
    return cluster.gpu[g].occupied == cluster.batch_size


@called
def grow(cluster: Cluster, more: int) -> None:
    for g in range(cluster.gpus):
        if more > 0 and cluster.gpu[g].leaving == 1:
            cluster.gpu[g].leaving = 0
            more -= 1
    for full in (False, True):
        for g in range(cluster.gpus):
            if more > 0 and cluster.gpu[g].group == SOLO and is_full(cluster, g) == full:
                move_to_group(cluster, g, MIXED)
                more -= 1


@called
def shrink(cluster: Cluster, fewer: int) -> None:
    for g in range(cluster.gpus):
        if fewer > 0 and cluster.gpu[g].group == MIXED and cluster.gpu[g].prefill_seat == NONE:
            move_to_group(cluster, g, SOLO)
            fewer -= 1
    for g in range(cluster.gpus):
        if fewer > 0 and cluster.gpu[g].group == MIXED and cluster.gpu[g].leaving == 0:
            cluster.gpu[g].leaving = 1
            fewer -= 1


@inlined
def prefill_gone(cluster: Cluster, g: int) -> None:
    """The prefill of `g` has ended, or has given way: it was the last one, if `g` is to leave the mixed group."""
    if cluster.gpu[g].leaving == 1:
        cluster.gpu[g].leaving = 0
        move_to_group(cluster, g, SOLO)
