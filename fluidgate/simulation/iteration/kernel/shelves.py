"""Who waits in a policy's queue: the next ones are found at once.

Those of a class with an index are in order of how much is to be read where most of it is, to a factor of two; others
are in order of arrival, on one shelf.
"""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.cluster import SHELVES, Cluster
from fluidgate.simulation.iteration.kernel.reuse import look_for


@inlined
def shelf_of(unread: int) -> int:
    shelf = 0
    while unread > 1 and shelf < SHELVES - 1:
        unread >>= 1
        shelf += 1
    return shelf


@called
def put_on_shelf(cluster: Cluster, slot: int, by_reading: bool) -> None:
    """A request has come to the policy's queue, as the last of its shelf; or to its front again, before later ones.

    Args:
        by_reading: whether its class has an index.
    """
    request = cluster.live[slot]
    look_for(cluster, slot, 1)
    request.found = cluster.loads.reuse.tokens[0] if cluster.loads.reuse.count[0] > 0 else 0
    shelf = shelf_of(request.unread - request.found) if by_reading else 0
    line = cluster.shelves[request.cls, shelf]
    request.shelf = shelf
    before = line.tail
    while before != NOWHERE and cluster.live[before].number > request.number:
        before = cluster.live[before].shelf_previous
    after = line.head if before == NOWHERE else cluster.live[before].shelf_next
    request.shelf_previous = before
    request.shelf_next = after
    if before == NOWHERE:
        line.head = slot
    else:
        cluster.live[before].shelf_next = slot
    if after == NOWHERE:
        line.tail = slot
    else:
        cluster.live[after].shelf_previous = slot
    line.members += 1


@inlined
def next_on_shelves(cluster: Cluster, cls: int, shelf: int) -> int:
    """The first of a class from a shelf on, NOWHERE if there is none."""
    while shelf < SHELVES:
        if cluster.shelves[cls, shelf].members > 0:
            return cluster.shelves[cls, shelf].head
        shelf += 1
    return NOWHERE


@called
def take_from_shelf(cluster: Cluster, slot: int) -> None:
    """A request leaves the policy's queue."""
    request = cluster.live[slot]
    if request.shelf == NOWHERE:
        return
    line = cluster.shelves[request.cls, request.shelf]
    before, after = request.shelf_previous, request.shelf_next
    if before == NOWHERE:
        line.head = after
    else:
        cluster.live[before].shelf_next = after
    if after == NOWHERE:
        line.tail = before
    else:
        cluster.live[after].shelf_previous = before
    line.members -= 1
    request.shelf = NOWHERE
