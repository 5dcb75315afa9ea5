"""Token budget (vLLM V1, Sarathi-Serve): every iteration takes all decodes, then chunks of as many prompts as fit."""

from __future__ import annotations

from fluidgate.compiled import inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.admission import (
    finish_all,
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
    """The next batch of `g`; who came after `latest` is not in it."""
    within_budget(cluster, law, g, latest, True)


@inlined
def within_budget(cluster, law, g, latest, runs_on):
    """The next batch of `g`: all decodes, the prompt under way, then prompts that wait, FCFS, within the budget.

    Who came after `latest` is not in it. If it `runs_on`, a prompt that is read alone takes its chunks in one segment.
    """
    here = cluster.gpu[g]
    waiting = gpu_line(cluster, g, WAITING)
    reading = gpu_line(cluster, g, READING)
    delay = 0.0
    preempted = False
    if cluster.set.kv_blocks > 0:
        while blocks_next(cluster, g) > here.blocks:
            delay += preempt(cluster, g)
            preempted = True
        prepay(cluster, g)
    left = cluster.set.tokens - here.decodes
    chunk = read = 0
    if cluster.lines[reading].head != NOWHERE:
        request = cluster.live[cluster.lines[reading].head]
        chunk = min(request.unread, left)
        read = chunk * read_before(request)
        request.unread -= chunk
        left -= chunk
    swapped = 0
    late = False
    while (
        not preempted
        and left > 0
        and cluster.lines[waiting].head != NOWHERE
        and here.decodes + here.finished + cluster.lines[reading].members < cluster.batch_size
    ):
        slot = next_to_admit(cluster, g)
        late = slot != NOWHERE and cluster.live[slot].came > latest
        if slot == NOWHERE or late:
            break
        request = cluster.live[slot]
        if request.unread == 0:
            # behind a prompt it waits for the next batch: who joined last is who is preempted first
            if cluster.lines[reading].members > 0:
                break
            delay += swap_in(cluster, g, slot)
            swapped += 1
            left -= 1
            continue
        start_prefill(cluster, g, slot)
        part = min(request.unread, left)
        read += part * read_before(request)
        request.unread -= part
        chunk += part
        left -= part
    if cluster.lines[gpu_line(cluster, g, FETCHING)].head != NOWHERE and not preempted:
        fetch_all(cluster, g)
    one_by_one = fetches = False
    if cluster.set.keys.async_scheduling:  # who waits is looked at again when the next is composed, knowing more
        head = cluster.lines[waiting].head
        fetches = here.finished > 0 and cluster.lines[gpu_line(cluster, g, FETCHING)].head != NOWHERE
        one_by_one = late or (head != NOWHERE and (here.finished > 0 or cluster.live[head].came > latest))
        finish_all(cluster, g)
    if chunk == 0 and here.decodes == 0:
        if one_by_one or fetches or preempted or (cluster.set.kv_blocks > 0 and keeps_one(cluster, g)):
            set_epoch(cluster, g, cluster.clock[NOW])  # it has run idle, and composes at once
        else:
            idle(cluster, g)
        return

    length = 1
    if not (preempted or fetches or (one_by_one and left > 0)):
        length = min(next_end(cluster, g), iterations_that_fit(cluster, g))
        if chunk > 0:
            alone = cluster.live[cluster.lines[reading].head]
            full = cluster.lines[reading].members == 1 and left == 0 and alone.unread > 0
            full = full and runs_on
            length = min(length, 1 + (alone.unread - 1) // chunk, alike(law, chunk, here.decodes, here.context))
            length = length if full else 1
            alone.unread -= chunk * (length - 1)
        else:
            length = min(length, alike(law, 0, here.decodes, here.context))
    set_mode(cluster, g, 1 if chunk > 0 else 0)
    begin_segment(cluster, law, g, chunk, read, here.decodes, length, delay)
    if not cluster.set.joins_at_once:
        swapped = fresh(cluster, g)
    here.joining = swapped
