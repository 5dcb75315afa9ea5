"""Ranks that step together: each forms its own batch, and all go on at the pace of the longest.

So do data parallel ranks of a mixture of experts: in every layer each sends tokens to the experts of all others. A rank
without a batch runs along with an empty one. `data_parallel` of [engine] says how many are a group.
"""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.policies.decisions.placement import last_publication, least_waiting, publication_due, show
from fluidgate.simulation.iteration.kernel.cluster import NOW, READING, WAITING, Cluster
from fluidgate.simulation.iteration.kernel.lines import gpu_line
from fluidgate.simulation.iteration.kernel.pace import segment_begins, segment_is_taken_back
from fluidgate.simulation.iteration.kernel.segment import first_rank, set_epoch, shorten_to
from fluidgate.simulation.iteration.law import ENDLESS, boundary_from, ended_by, span


@called
def all_composed(cluster: Cluster, g: int) -> bool:
    """Whether none of the ranks in step with `g` has its next batch still to form at this epoch."""
    first = first_rank(cluster, g)
    for r in range(first, first + cluster.set.keys.data_parallel):
        here = cluster.gpu[r]
        if here.due == 1 or (here.busy == 0 and cluster.epochs[r] <= cluster.clock[NOW]):
            return False
    return True


@called
def step_together(cluster: Cluster, g: int) -> None:
    """The ranks in step with `g` have formed their batches: their segments become one.

    It starts when the last of them has its KV swapped, and ends where the first of them does, where another rank's
    iteration would be the longest, and after one iteration if a rank without a batch is to look for one again.
    """
    size = cluster.set.keys.data_parallel
    lead = first_rank(cluster, g)
    now = cluster.clock[NOW]
    origin, first, step, length = now, 0.0, 0.0, ENDLESS
    busy = 0
    for r in range(lead, lead + size):
        here = cluster.gpu[r]
        if here.busy == 1:
            busy += 1
            origin = max(origin, here.origin)
            length = min(length, here.length)
            if here.first > first or (here.first == first and here.step > step):
                first, step = here.first, here.step
    if busy == 0:
        return
    for r in range(lead, lead + size):
        here = cluster.gpu[r]
        if here.busy == 0 and cluster.epochs[r] <= now:
            length = 1
        if here.busy == 1 and here.step > step and first - here.first < (here.step - step) * length:
            length = min(length, int((first - here.first) / (here.step - step)) + 1)
    for r in range(lead, lead + size):
        here = cluster.gpu[r]
        if here.busy == 1:
            segment_is_taken_back(cluster, r)
            shorten_to(cluster, r, length)
        else:
            here.along = 1
        here.start, here.origin, here.first, here.step, here.length = now, origin, first, step, length
        if here.busy == 1:
            segment_begins(cluster, r)
        set_epoch(cluster, r, origin + span(first, step, length))


# What a front end knows of the ranks: each reports at the end of an iteration who runs and who waits, of those whom it
# had seen when that began; what was reported last is published now and then.


@called
def rank_of_group(cluster: Cluster, group: int) -> int:
    """The rank that a request is sent to that has been placed on a group."""
    publish(cluster, group * cluster.set.keys.data_parallel)
    return least_waiting(cluster.ranks, group)


@called
def publish(cluster: Cluster, g: int) -> None:
    """Bring what is known of the ranks in step with `g` up to date; before any of them changes."""
    group = g // cluster.set.keys.data_parallel
    if not publication_due(cluster.ranks, group, cluster.clock[NOW]):
        return
    epoch = last_publication(cluster.clock[NOW])
    first = first_rank(cluster, g)
    for r in range(first, first + cluster.set.keys.data_parallel):
        here = cluster.gpu[r]
        ended = 0
        if here.busy == 1 or here.along > 0:
            ended = boundary_from(here.origin, here.first, here.step, epoch) - 1
        if ended > here.told_after:
            report_iteration(cluster, r, ended)
        show(cluster.ranks, r, here.told_waiting, here.told_running)
    cluster.ranks.published[group] = epoch


@called
def report_so_far(cluster: Cluster, g: int) -> None:
    """What `g` has reported, before somebody who waits there leaves between two iterations."""
    publish(cluster, g)
    here = cluster.gpu[g]
    if here.busy == 1 or here.along > 0:
        ended = ended_by(here.origin, here.first, here.step, cluster.clock[NOW])
        if ended > here.told_after:
            report_iteration(cluster, g, ended)


@inlined
def report_iteration(cluster: Cluster, g: int, iteration: int) -> None:
    here = cluster.gpu[g]
    begun = here.origin + span(here.first, here.step, iteration - 1) if iteration > 1 else here.start
    here.told_waiting = seen(cluster, g, begun)
    here.told_running = running(cluster, g)
    here.told_after = iteration


@inlined
def report(cluster: Cluster, g: int) -> None:
    """The segment of `g` has ended."""
    report_iteration(cluster, g, cluster.gpu[g].length)
    cluster.gpu[g].told_after = 0


@inlined
def running(cluster: Cluster, g: int) -> int:
    return cluster.gpu[g].decodes + cluster.lines[gpu_line(cluster, g, READING)].members


@inlined
def seen(cluster: Cluster, g: int, epoch: float) -> int:
    """Who waits at `g` and came up to `epoch`."""
    line = cluster.lines[gpu_line(cluster, g, WAITING)]
    count, slot = line.members, line.tail
    while slot != NOWHERE and cluster.live[slot].came > epoch:
        count -= 1
        slot = cluster.live[slot].previous
    return count
