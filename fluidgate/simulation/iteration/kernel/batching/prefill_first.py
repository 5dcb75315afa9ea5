"""Prefill first (first vLLM): whole prompts, alone, before the decodes go on."""

from __future__ import annotations

from fluidgate.compiled import inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.admission import (
    fresh,
    next_to_admit,
    preempt,
    start_prefill,
    swap_in,
)
from fluidgate.simulation.iteration.kernel.batch import (
    next_end,
    set_mode,
)
from fluidgate.simulation.iteration.kernel.cluster import (
    FETCHING,
    NOW,
    READING,
    WAITING,
)
from fluidgate.simulation.iteration.kernel.lines import gpu_line
from fluidgate.simulation.iteration.kernel.live import read_before
from fluidgate.simulation.iteration.kernel.memory import (
    blocks_next,
    iterations_that_fit,
    prepay,
)
from fluidgate.simulation.iteration.kernel.pools import fetch_all, keeps_one
from fluidgate.simulation.iteration.kernel.segment import (
    begin_segment,
    idle,
    set_epoch,
)
from fluidgate.simulation.iteration.law import alike


@inlined
def compose(cluster, law, g, latest):
    """The next batch of `g`: prompts that wait, whole, as many as the budget holds (one at least), else all decodes."""
    here = cluster.gpu[g]
    waiting = gpu_line(cluster, g, WAITING)
    chunk = read = 0
    while cluster.lines[waiting].head != NOWHERE:
        slot = next_to_admit(cluster, g)
        if slot == NOWHERE:
            break
        request = cluster.live[slot]
        tokens = request.unread
        batched = here.decodes + cluster.lines[gpu_line(cluster, g, READING)].members
        if tokens == 0 or batched >= cluster.batch_size or (chunk > 0 and chunk + tokens > cluster.set.tokens):
            break
        start_prefill(cluster, g, slot)
        chunk += request.unread
        read += request.unread * read_before(request)
        request.unread = 0
    if chunk > 0:
        if cluster.lines[gpu_line(cluster, g, FETCHING)].head != NOWHERE:
            fetch_all(cluster, g)
        set_mode(cluster, g, 1)
        begin_segment(cluster, law, g, chunk, read, 0, 1, 0.0)
        return

    delay = 0.0
    preempted = False
    if cluster.set.kv_blocks > 0:
        while blocks_next(cluster, g) > here.blocks:
            delay += preempt(cluster, g)
            preempted = True
        prepay(cluster, g)
    swapped = False
    joined = fresh(cluster, g)
    while not preempted and cluster.lines[waiting].head != NOWHERE and here.decodes < cluster.batch_size:
        slot = next_to_admit(cluster, g)
        if slot == NOWHERE or cluster.live[slot].unread > 0:
            break
        delay += swap_in(cluster, g, slot)
        swapped = True
        joined += 1
    if cluster.lines[gpu_line(cluster, g, FETCHING)].head != NOWHERE and not preempted:
        fetch_all(cluster, g)
    if here.decodes == 0:
        if preempted or (cluster.set.kv_blocks > 0 and keeps_one(cluster, g)):
            set_epoch(cluster, g, cluster.clock[NOW])
        else:
            idle(cluster, g)
        return
    length = 1  # after a change of who waits first, prompts are looked at again
    if not (preempted or swapped):
        length = min(next_end(cluster, g), iterations_that_fit(cluster, g))
        length = min(length, alike(law, 0, here.decodes, here.context))
    set_mode(cluster, g, 0)
    begin_segment(cluster, law, g, 0, 0, here.decodes, length, delay)
    here.joining = joined
