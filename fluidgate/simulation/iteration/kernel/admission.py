"""Who joins the batch of a GPU and who leaves it: started, swapped in, finished, preempted."""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.replanning import estimates
from fluidgate.simulation import events
from fluidgate.simulation.iteration.kernel.batch import (
    join,
    make_way,
    record_own_gap,
    seat,
    unseat,
)
from fluidgate.simulation.iteration.kernel.cluster import DECODING, FRESH, NOW, READING, WAITING, Cluster
from fluidgate.simulation.iteration.kernel.drift import begin_work, count_served
from fluidgate.simulation.iteration.kernel.lines import gpu_line, push_back, push_front, unlink
from fluidgate.simulation.iteration.kernel.live import preempt_decode
from fluidgate.simulation.iteration.kernel.memory import (
    admits,
    blocks_of,
    give_prompt_back,
    hold_kv,
    hold_prompt,
)
from fluidgate.simulation.iteration.kernel.pools import change_load, join_landed, load, unbind
from fluidgate.simulation.iteration.kernel.prefixes import ANSWER, expect
from fluidgate.simulation.iteration.kernel.record import count, note_found, observe, record_completion
from fluidgate.simulation.iteration.kernel.segment import first_end
from fluidgate.simulation.iteration.kernel.timers import stop_timer
from fluidgate.simulation.iteration.times import PREFILL_WAIT


@inlined
def start_prefill(cluster: Cluster, g: int, slot: int) -> None:
    """The first of those who wait at `g` is admitted to its batch, with the memory of its whole prompt."""
    request = cluster.live[slot]
    unlink(cluster, gpu_line(cluster, g, WAITING), slot)
    stop_timer(cluster, slot)
    push_back(cluster, gpu_line(cluster, g, READING), slot)
    if cluster.set.drift:
        begin_work(cluster, slot, g)
    tokens = request.unread
    is_first = request.cached == NOWHERE
    cluster.gpu[g].held += tokens
    request.unread -= hold_prompt(cluster, g, slot, tokens)
    if cluster.set.prefixes:
        note_found(cluster, slot, tokens - request.unread, is_first)
        load(cluster, g, slot, request.unread)
    if np.isnan(request.scheduled):
        request.scheduled = cluster.clock[NOW]
        observe(cluster, PREFILL_WAIT, request.cls, request.scheduled - request.arrival, request.scheduled)
    count(cluster, stages.PREFILL_QUEUE, request.cls, -1)
    count(cluster, stages.PREFILL, request.cls, 1)
    cluster.events[events.PREFILL_START, request.cls] += 1


@inlined
def swap_in(cluster: Cluster, g: int, slot: int) -> float:
    """One of those who wait at `g` goes on decoding; the seconds its KV takes to come back."""
    request = cluster.live[slot]
    if request.stage == stages.SOLO_QUEUE:
        join_landed(cluster, g, slot)
        return 0.0
    held = request.prompt + request.produced - 1
    unlink(cluster, gpu_line(cluster, g, WAITING), slot)
    found = hold_kv(cluster, g, slot, held, blocks_of(cluster, held))
    join(cluster, g, slot, held)
    cluster.batch[g, FRESH, request.cls] += 1
    count(cluster, stages.PREFILL_QUEUE, request.cls, -1)
    seat(cluster, g, request.cls)
    cluster.events[events.REJOIN, request.cls] += 1
    return (held - found) * cluster.set.keys.swap_seconds


@inlined
def next_to_admit(cluster: Cluster, g: int) -> int:
    """Of those who wait at `g` the one to be admitted next, NOWHERE if there is none: the first, if there is memory.

    Where there is none, one whose KV has come goes past: its memory is there.
    """
    slot = cluster.lines[gpu_line(cluster, g, WAITING)].head
    if cluster.set.kv_blocks == 0 or slot == NOWHERE:
        return slot
    return slot if has_room(cluster, g, slot) else next_landed(cluster, slot)


@inlined
def has_room(cluster: Cluster, g: int, slot: int) -> bool:
    """Whether a request that waits at `g` fits beside its decodes and what these take in their next iteration."""
    request = cluster.live[slot]
    if request.stage == stages.SOLO_QUEUE:
        return True
    if request.unread == 0:  # swapped out
        return admits(cluster, g, slot, request.prompt + request.produced)
    return admits(cluster, g, slot, request.unread + cluster.set.keys.kv_reservation)


@called
def next_landed(cluster: Cluster, slot: int) -> int:
    """The first from `slot` on whose KV has come from another GPU; NOWHERE if there is none."""
    while slot != NOWHERE and cluster.live[slot].stage != stages.SOLO_QUEUE:
        slot = cluster.live[slot].next
    return slot


@inlined
def finish(cluster: Cluster, g: int, slot: int) -> None:
    """A decode of `g` has ended, and leaves."""
    make_way(cluster, g, slot, ANSWER)
    unseat(cluster, g, cluster.live[slot].cls)
    change_load(cluster, g, -1, 0)
    unbind(cluster, slot)
    complete(cluster, slot)


@inlined
def complete(cluster: Cluster, slot: int) -> None:
    """A request has been served to its end."""
    if len(cluster.estimates) > 0:
        done = cluster.live[slot]
        estimates.completed(cluster.estimates, done.cls, cluster.clock[NOW], done.output)
    if cluster.set.drift:
        count_served(cluster, slot)
    record_completion(cluster, slot)


@inlined
def finish_later(cluster: Cluster, g: int, slot: int) -> None:
    """A request of `g` has ended; it stays until the next batch is composed."""
    here = cluster.gpu[g]
    here.finished += 1
    cluster.heaps[g, cluster.batch_size - here.finished] = slot


@inlined
def finish_all(cluster: Cluster, g: int) -> None:
    """Those that have ended leave `g`, in that order."""
    here = cluster.gpu[g]
    ended = here.finished
    here.finished = 0
    for k in range(1, ended + 1):
        finish(cluster, g, cluster.heaps[g, cluster.batch_size - k])


@called
def finish_last(cluster: Cluster, g: int) -> bool:
    """Let the one admitted last leave `g` if it has ended."""
    last = cluster.lines[gpu_line(cluster, g, DECODING)].tail
    here = cluster.gpu[g]
    for k in range(cluster.batch_size - here.finished, cluster.batch_size):
        if cluster.heaps[g, k] == last:
            cluster.heaps[g, k] = cluster.heaps[g, cluster.batch_size - here.finished]
            here.finished -= 1
            finish(cluster, g, last)
            return True
    return False


@called
def preempt(cluster: Cluster, g: int) -> float:
    """Memory has run out: the request admitted last goes back to the front of the line; seconds of swapping."""
    reading = gpu_line(cluster, g, READING)
    slot = cluster.lines[reading].tail
    delay = 0.0
    if slot == NOWHERE and cluster.gpu[g].finished > 0 and finish_last(cluster, g):
        return delay
    if slot != NOWHERE:
        request = cluster.live[slot]
        unlink(cluster, reading, slot)
        cluster.gpu[g].held -= request.prompt + request.produced
        give_prompt_back(cluster, g, slot)
        request.unread = request.prompt + request.produced
        count(cluster, stages.PREFILL, request.cls, -1)
        cluster.events[events.PREFILL_PREEMPTION, request.cls] += 1
    else:
        slot = cluster.lines[gpu_line(cluster, g, DECODING)].tail
        delay = preempt_decode(cluster, g, slot)
        request = cluster.live[slot]
        unseat(cluster, g, request.cls)
    load(cluster, g, slot, request.unread)
    request.preemptions += 1
    if cluster.set.prefixes:
        expect(cluster, g, slot)
    push_front(cluster, gpu_line(cluster, g, WAITING), slot)
    count(cluster, stages.PREFILL_QUEUE, request.cls, 1)
    return delay


@inlined
def fresh(cluster: Cluster, g: int) -> int:
    """Decodes of `g` that have joined since its last iteration with decodes."""
    joined = 0
    for i in range(cluster.batch.shape[2]):
        joined += cluster.batch[g, FRESH, i]
    return joined


@inlined
def record_own_gaps(cluster: Cluster, g: int) -> None:
    """The gaps of the decodes that joined `g` last and end with its next iteration."""
    token = first_end(cluster, g)
    slot = cluster.lines[gpu_line(cluster, g, DECODING)].tail
    for _ in range(cluster.gpu[g].joining):
        stalled = cluster.gpu[g].chunk > 0 or cluster.live[slot].last < cluster.gpu[g].start
        record_own_gap(cluster, slot, token, stalled)
        slot = cluster.live[slot].previous
    cluster.gpu[g].joining = 0
