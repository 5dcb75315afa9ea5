"""Who waits in a policy's queue, by how much is to be read where most of it is: so the next ones are found at once."""

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
def put_on_shelf(cluster: Cluster, slot: int) -> None:
    """A request has come to the policy's queue: it is the last of those who have about as much to read."""
    request = cluster.live[slot]
    look_for(cluster, slot, 1)
    found = cluster.loads.reuse.tokens[0] if cluster.loads.reuse.count[0] > 0 else 0
    shelf = shelf_of(request.prompt - found)
    line = cluster.shelves[request.cls, shelf]
    request.shelf = shelf
    request.shelf_next = NOWHERE
    request.shelf_previous = line.tail
    if line.tail == NOWHERE:
        line.head = slot
    else:
        cluster.live[line.tail].shelf_next = slot
    line.tail = slot
    line.members += 1


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
