"""The segment under way on a GPU: a run of iterations of one unchanged batch.

It ends where the batch may change; what happens on the way follows in closed form.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import inlined
from fluidgate.compiled.tournament import replay
from fluidgate.simulation.iteration.kernel.cluster import CALLED, FRESH, ITERATIONS, LATE, NOW, READING, Cluster
from fluidgate.simulation.iteration.kernel.lines import gpu_line
from fluidgate.simulation.iteration.kernel.memory import blocks_taken, overwrite
from fluidgate.simulation.iteration.kernel.pace import segment_begins, segment_ends
from fluidgate.simulation.iteration.kernel.record import record_segment
from fluidgate.simulation.iteration.law import boundary_from, growth, seconds, span


@inlined
def set_epoch(cluster: Cluster, g: int, epoch: float) -> None:
    cluster.epochs[g] = epoch
    replay(cluster.tree, cluster.epochs, g)


@inlined
def begin_segment(cluster, law, g, chunk, read, decodes, length, delay):
    """`length` iterations of the batch as it stands start on `g` in `delay` seconds.

    They are `alike`. The tokens of the first chunk find `read` tokens of their prompts read before them, in all.
    """
    here = cluster.gpu[g]
    now = cluster.clock[NOW]
    context = here.context if decodes > 0 else 0
    here.start = now
    here.origin = now + delay
    here.first = seconds(law, chunk, decodes, context, read)
    here.step = growth(law, chunk, decodes, context, read)
    here.length = length
    here.chunk = chunk
    here.read = read
    here.batch = decodes
    here.busy = 1
    segment_begins(cluster, g)
    set_epoch(cluster, g, here.origin + span(here.first, here.step, length))


@inlined
def first_end(cluster: Cluster, g: int) -> float:
    """End of the segment's first iteration."""
    return cluster.gpu[g].origin + cluster.gpu[g].first


@inlined
def cut_segment(cluster: Cluster, g: int) -> None:
    """Let the segment of `g` end at its next iteration boundary, one that is now included; wake `g` if it is idle.

    Abandonments come after the boundaries of their epoch: what they make way for joins at a later one.
    """
    here = cluster.gpu[g]
    now = cluster.clock[NOW]
    if here.busy == 0 and here.along == 0:
        if cluster.epochs[g] > now:
            set_epoch(cluster, g, now)
        return
    if here.along > 0:
        here.along = CALLED
    if here.length == 1:
        return
    k = under_way(cluster, g)
    if k < here.length:
        end_after(cluster, g, k)


@inlined
def under_way(cluster: Cluster, g: int) -> int:
    """Which iteration of its segment, from 1, `g` is in now: what comes at a boundary comes before it, unless late."""
    here = cluster.gpu[g]
    now = cluster.clock[NOW]
    k = boundary_from(here.origin, here.first, here.step, now)
    if cluster.tally[LATE] == 1 and here.origin + span(here.first, here.step, k) <= now:
        k += 1
    return k


@inlined
def cut_segment_late(cluster: Cluster, g: int) -> None:
    """As `cut_segment`, an iteration later: who comes during one finds the next composed already."""
    here = cluster.gpu[g]
    now = cluster.clock[NOW]
    k = boundary_from(here.origin, here.first, here.step, now) + 1 if now > here.start else 1
    if k < here.length:
        end_after(cluster, g, k)


@inlined
def end_after(cluster: Cluster, g: int, iterations: int) -> None:
    """The segment of `g`, and of the ranks in step with it, ends with so many iterations."""
    first = first_rank(cluster, g)
    for r in range(first, first + cluster.set.keys.data_parallel):
        here = cluster.gpu[r]
        if here.busy == 1 or here.along > 0:
            shorten_to(cluster, r, iterations)
            set_epoch(cluster, r, here.origin + span(here.first, here.step, iterations))


@inlined
def shorten_to(cluster: Cluster, g: int, iterations: int) -> None:
    """Let the segment of `g` have at most so many iterations; the chunks of the others have not been read."""
    here = cluster.gpu[g]
    if iterations >= here.length:
        return
    if here.busy == 1 and here.chunk > 0 and not cluster.set.by_policy:  # else they are taken off when it ends
        slot = cluster.lines[gpu_line(cluster, g, READING)].head
        cluster.live[slot].unread += here.chunk * (here.length - iterations)
    here.length = iterations


@inlined
def first_rank(cluster: Cluster, g: int) -> int:
    """The first of the ranks that step together with `g`."""
    size = cluster.set.keys.data_parallel
    return g if size == 1 else g - g % size


@inlined
def last_start(cluster: Cluster, g: int) -> float:
    """When the last iteration of the segment of `g` starts."""
    here = cluster.gpu[g]
    if here.length == 1:
        return here.start
    return here.origin + span(here.first, here.step, here.length - 1)


@inlined
def end_segment(cluster: Cluster, g: int) -> None:
    """The segment of `g` is over: its decodes have gained their tokens."""
    here = cluster.gpu[g]
    k = here.length
    record_segment(cluster, g, k)
    segment_ends(cluster, g)
    cluster.tally[ITERATIONS] += k
    if here.batch == here.decodes:  # else prompts ran alone and the decodes stood still
        if cluster.set.kv_blocks > 0:
            taken = blocks_taken(cluster, g, k)
            here.blocks -= taken
            overwrite(cluster, g, taken - here.prepaid)
            here.prepaid = 0
        here.iteration += k
        here.context += here.batch * k
        here.last_token = cluster.clock[NOW]
        for i in range(cluster.batch.shape[2]):
            cluster.batch[g, FRESH, i] = 0
    here.busy = 0


@inlined
def idle(cluster: Cluster, g: int) -> None:
    set_epoch(cluster, g, np.inf)
