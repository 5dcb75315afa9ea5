"""Requests by the epoch at which their patience, or the transfer of their KV, ends: an indexed heap."""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.cluster import TIMERS, Cluster


@inlined
def next_timer(cluster: Cluster) -> float:
    return cluster.live[cluster.timers[0]].timer if cluster.tally[TIMERS] > 0 else float("inf")


@called
def set_timer(cluster: Cluster, slot: int, epoch: float) -> None:
    cluster.live[slot].timer = epoch
    k = cluster.tally[TIMERS]
    cluster.tally[TIMERS] = k + 1
    rise(cluster, k, slot)


@inlined
def stop_timer(cluster: Cluster, slot: int) -> None:
    """Take the timer of `slot` off, if it has one."""
    k = cluster.live[slot].timer_position
    if k == NOWHERE:
        return
    cluster.live[slot].timer_position = NOWHERE
    last = cluster.tally[TIMERS] - 1
    cluster.tally[TIMERS] = last
    if k < last:
        moved = cluster.timers[last]
        if k > 0 and sooner(cluster, moved, cluster.timers[(k - 1) // 2]):
            rise(cluster, k, moved)
        else:
            sink(cluster, k, moved)


@inlined
def in_transit(cluster: Cluster, slot: int) -> bool:
    """Whether the timer of `slot` ends a transfer, not a patience."""
    return cluster.live[slot].stage >= stages.MIXED_DECODE


@inlined
def sooner(cluster: Cluster, a: int, b: int) -> bool:
    """Whether the timer of `a` comes before that of `b`: transfers first at one epoch, then in order of arrival."""
    one, other = cluster.live[a], cluster.live[b]
    if one.timer != other.timer:
        return one.timer < other.timer
    if in_transit(cluster, a) != in_transit(cluster, b):
        return in_transit(cluster, a)
    return one.number < other.number


@inlined
def rise(cluster: Cluster, k: int, slot: int) -> None:
    while k > 0:
        parent = cluster.timers[(k - 1) // 2]
        if not sooner(cluster, slot, parent):
            break
        cluster.timers[k] = parent
        cluster.live[parent].timer_position = k
        k = (k - 1) // 2
    cluster.timers[k] = slot
    cluster.live[slot].timer_position = k


@inlined
def sink(cluster: Cluster, k: int, slot: int) -> None:
    size = cluster.tally[TIMERS]
    while 2 * k + 1 < size:
        child = 2 * k + 1
        if child + 1 < size and sooner(cluster, cluster.timers[child + 1], cluster.timers[child]):
            child += 1
        below = cluster.timers[child]
        if not sooner(cluster, below, slot):
            break
        cluster.timers[k] = below
        cluster.live[below].timer_position = k
        k = child
    cluster.timers[k] = slot
    cluster.live[slot].timer_position = k
