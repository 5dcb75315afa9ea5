"""Lines of requests, linked through their rows: join at either end and leave from anywhere in constant time."""

from __future__ import annotations

from fluidgate.compiled import inlined
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.cluster import LINES, Cluster


@inlined
def policy_line(cluster: Cluster, queue: int, cls: int) -> int:
    return queue * cluster.counts.shape[1] + cls


@inlined
def gpu_line(cluster: Cluster, gpu: int, kind: int) -> int:
    return stages.QUEUES * cluster.counts.shape[1] + LINES * gpu + kind


@inlined
def accumulating_line(cluster: Cluster, gpu: int, cls: int) -> int:
    classes = cluster.counts.shape[1]
    return stages.QUEUES * classes + LINES * cluster.gpus + classes * gpu + cls


@inlined
def front_line(cluster: Cluster) -> int:
    """Of those who are on no GPU because none takes requests, or theirs has failed, by number."""
    return len(cluster.lines) - 1


@inlined
def push_back(cluster: Cluster, line: int, slot: int) -> None:
    here = cluster.lines[line]
    last = here.tail
    cluster.live[slot].next = NOWHERE
    cluster.live[slot].previous = last
    if last == NOWHERE:
        here.head = slot
    else:
        cluster.live[last].next = slot
    here.tail = slot
    here.members += 1


@inlined
def push_front(cluster: Cluster, line: int, slot: int) -> None:
    here = cluster.lines[line]
    head = here.head
    cluster.live[slot].previous = NOWHERE
    cluster.live[slot].next = head
    if head == NOWHERE:
        here.tail = slot
    else:
        cluster.live[head].previous = slot
    here.head = slot
    here.members += 1


@inlined
def unlink(cluster: Cluster, line: int, slot: int) -> None:
    here = cluster.lines[line]
    before, after = cluster.live[slot].previous, cluster.live[slot].next
    if before == NOWHERE:
        here.head = after
    else:
        cluster.live[before].next = after
    if after == NOWHERE:
        here.tail = before
    else:
        cluster.live[after].previous = before
    here.members -= 1
