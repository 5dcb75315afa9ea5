"""Single-prefill batching under a policy: at most one prompt a GPU, in chunks, beside its decodes.

The decisions are those of the Markov network, asked at arrivals, abandonments and completions. What they assign joins
its GPU at the next iteration boundary; an idle GPU starts at once. A decode gains its first token at the end of its
first iteration.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.compiled.tournament import winner
from fluidgate.policies.decisions import moves, stages
from fluidgate.policies.decisions.board import FAULT, NOWHERE, update_ready
from fluidgate.policies.decisions.groups import prefill_gone, regroup
from fluidgate.replanning import estimates
from fluidgate.simulation import events, pauses
from fluidgate.simulation.iteration.kernel.batch import (
    join,
    leave,
    next_end,
    pop_end,
    record_own_gap,
    seat,
    set_mode,
    unseat,
)
from fluidgate.simulation.iteration.kernel.cluster import (
    CHANGED,
    CURSOR,
    DECODING,
    DUE,
    FRESH,
    LATE,
    LEFT_DECODE_BUFFER,
    LEFT_PREFILL_QUEUE,
    MIXED_GROUP,
    NOW,
    PENDING,
    PROMPT_READ,
    TOTAL_EVENTS,
    UNTIL,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.keys import SWAP
from fluidgate.simulation.iteration.kernel.lines import gpu_line, policy_line, push_back, push_front, unlink
from fluidgate.simulation.iteration.kernel.live import enter, preempt_decode, refused, what_is_missing
from fluidgate.simulation.iteration.kernel.memory import (
    admits,
    blocks_next,
    blocks_of,
    hold,
    iterations_that_fit,
    release,
)
from fluidgate.simulation.iteration.kernel.record import count, move_clock, observe, record_completion, retire
from fluidgate.simulation.iteration.kernel.segment import begin_segment, cut_segment, end_segment, first_end, idle
from fluidgate.simulation.iteration.kernel.timers import in_transit, next_timer, set_timer, stop_timer
from fluidgate.simulation.iteration.kernel.transfer import transfer_seconds
from fluidgate.simulation.iteration.times import DECODE_WAIT, PREFILL_WAIT, TTFT


@inlined
def advance(cluster, law, tables, block, budget):
    """Run up to `budget` events; returns a word of `pauses`.

    At one epoch arrivals come first, then transfers, then what ends with an iteration, by GPU; then the GPUs concerned
    form their next batches, by number; then abandonments; then a change of tables. Each kind in order of arrival.
    It pauses when all events up to `clock[UNTIL]` are over.

    Args:
        cluster: Cluster.
        law: Law.
        tables: Tables of the policy.
        block: requests in order of arrival.
    """
    tally = cluster.tally
    for _ in range(budget):
        missing = what_is_missing(cluster, block)
        if missing != NOWHERE:
            return missing
        arrival = block[tally[CURSOR]].arrival if tally[CURSOR] < len(block) else np.inf
        g = winner(cluster.tree)
        boundary = cluster.epochs[g]
        timer = next_timer(cluster)
        landing = timer < np.inf and in_transit(cluster, cluster.timers[0])
        early = min(arrival, boundary, timer if landing else np.inf)
        if tally[DUE] > 0 and early > cluster.clock[NOW]:
            compose_due(cluster, law)
            continue
        epoch = min(early, timer)
        if tally[CHANGED] == 1:
            epoch = cluster.clock[NOW]
        elif epoch > cluster.clock[UNTIL] and epoch < np.inf:
            move_clock(cluster, cluster.clock[UNTIL])
            return pauses.REACHED
        if not move_clock(cluster, epoch):
            return pauses.DONE
        tally[LATE] = 0
        decide = True
        ended = NOWHERE
        if tally[CHANGED] == 1:
            tally[CHANGED] = 0
            tally[LATE] = 1
            regroup(cluster.board, tables.mixed_gpus)
            tally[MIXED_GROUP] = tables.mixed_gpus
        elif arrival <= epoch:
            slot = enter(cluster, block[tally[CURSOR]])
            tally[CURSOR] += 1
            if len(cluster.estimates) > 0:
                estimates.arrived(cluster.estimates, cluster.live[slot].cls, epoch)
            if not refused(cluster, slot):
                wait_in(cluster, stages.PREFILL_QUEUE, slot)
        elif landing and timer <= epoch:
            slot = cluster.timers[0]
            stop_timer(cluster, slot)
            wait_for_boundary(cluster, slot)
            decide = False
        elif boundary <= epoch:
            ended = g
            decide = end_iteration(cluster, tables, g)
        else:
            tally[LATE] = 1
            abandon(cluster, cluster.timers[0])
        if decide:
            start_all(cluster, tables)
        if ended != NOWHERE and cluster.gpu[ended].prefill_seat == NOWHERE:
            set_mode(cluster, ended, 0)
        tally[TOTAL_EVENTS] += 1
        if cluster.board.round[FAULT] != 0:
            return pauses.FAILED
    return pauses.PAUSED


@inlined
def wait_in(cluster: Cluster, queue: int, slot: int) -> None:
    """A request joins the end of a queue now, and leaves it when its patience ends."""
    request = cluster.live[slot]
    now = cluster.clock[NOW]
    line = policy_line(cluster, queue, request.cls)
    request.stage = queue
    request.since = now
    if cluster.lines[line].size == 0:
        cluster.since[queue, request.cls] = now
    push_back(cluster, line, slot)
    count(cluster, queue, request.cls, 1)
    if len(cluster.estimates) > 0:
        estimates.waits(cluster.estimates, request.cls, now)
    if request.patience < np.inf:
        set_timer(cluster, slot, now + request.patience)


@inlined
def wait_no_more(cluster: Cluster, slot: int) -> None:
    """A request leaves its queue, wherever it stands in it."""
    request = cluster.live[slot]
    line = policy_line(cluster, request.stage, request.cls)
    stop_timer(cluster, slot)
    unlink(cluster, line, slot)
    if len(cluster.estimates) > 0 and could_leave(cluster, slot):
        estimates.waits_no_more(cluster.estimates, request.cls, cluster.clock[NOW])
    count(cluster, request.stage, request.cls, -1)
    head = cluster.lines[line].head
    cluster.since[request.stage, request.cls] = np.inf if head == NOWHERE else cluster.live[head].since


@inlined
def could_leave(cluster: Cluster, slot: int) -> bool:
    """Whether a waiting request has not been preempted into its queue."""
    return cluster.live[slot].stage != stages.PREFILL_QUEUE or cluster.live[slot].preemptions == 0


@called
def abandon(cluster: Cluster, slot: int) -> None:
    """The patience of a waiting request is at its end."""
    request = cluster.live[slot]
    buffered = request.stage != stages.PREFILL_QUEUE
    wait_no_more(cluster, slot)
    if len(cluster.estimates) > 0:
        estimates.left(cluster.estimates, request.cls)
    cluster.events[events.DECODE_ABANDONMENT if buffered else events.PREFILL_ABANDONMENT, request.cls] += 1
    retire(cluster, slot, LEFT_DECODE_BUFFER if buffered else LEFT_PREFILL_QUEUE)


@inlined
def end_iteration(cluster, tables, g):
    """An iteration of `g` has ended, or `g` was idle and is called: decodes leave, then the prefill is routed.

    Returns whether any was completed.
    """
    here = cluster.gpu[g]
    make_due(cluster, g)
    if here.busy == 0:
        return False
    completed = False
    if here.chunk > 0:
        cluster.live[here.prefill_seat].unread -= here.chunk * here.length
    end_segment(cluster, g)
    while next_end(cluster, g) == 0:
        slot = pop_end(cluster, g)
        leave(cluster, g, slot)
        unseat(cluster, g, cluster.live[slot].cls)
        free_slot(cluster, g)
        if len(cluster.estimates) > 0:
            done = cluster.live[slot]
            estimates.completed(cluster.estimates, done.cls, cluster.clock[NOW], done.output)
        record_completion(cluster, slot)
        completed = True
    if here.reading == 1 and cluster.live[here.prefill_seat].unread == 0:
        end_prefill(cluster, tables, g)
        completed = True
    return completed


@inlined
def free_slot(cluster: Cluster, g: int) -> None:
    cluster.gpu[g].occupied -= 1
    cluster.gpu[g].crowded = 0
    update_ready(cluster.board, g)


@inlined
def vacate(cluster: Cluster, g: int) -> int:
    """Take the prefill of `g` from its slot with its memory; the request."""
    here = cluster.gpu[g]
    slot = here.prefill_seat
    request = cluster.live[slot]
    here.prefill_seat = NOWHERE
    if here.reading == 1:
        release(cluster, g, request.prompt + request.produced)
    here.reading = 0
    count(cluster, stages.PREFILL, request.cls, -1)
    prefill_gone(cluster.board, g)
    free_slot(cluster, g)
    return slot


@inlined
def end_prefill(cluster, tables, g):
    """The prefill of `g` ends: its decode goes where the policy routes it."""
    slot = vacate(cluster, g)
    request = cluster.live[slot]
    request.since = cluster.clock[NOW]
    cluster.events[events.PREFILL_END, request.cls] += 1
    if request.produced == 0:
        cluster.tokens[PROMPT_READ, request.cls] += request.prompt
        if len(cluster.estimates) > 0:
            estimates.prompt_read(cluster.estimates, request.cls, request.since, request.prompt)
    where = moves.place_decode(cluster.board, tables, request.cls, g)
    if where >= 0:
        start_decode(cluster, slot, where)
    else:
        wait_in(cluster, stages.MIXED_QUEUE - 1 - where, slot)


@inlined
def start_all(cluster, tables):
    """Let start who may start after an event."""
    moves.open_round(cluster.board)
    while True:
        kind, cls, g = moves.next_start(cluster.board, tables)
        if kind == moves.NOBODY:
            return
        queue = stages.PREFILL_QUEUE if kind == moves.NEW_PREFILL else stages.MIXED_QUEUE + kind
        slot = cluster.lines[policy_line(cluster, queue, cls)].head
        wait_no_more(cluster, slot)
        if kind == moves.NEW_PREFILL:
            start_prefill(cluster, slot, g)
        else:
            start_decode(cluster, slot, g)


@inlined
def start_prefill(cluster: Cluster, slot: int, g: int) -> None:
    """A prompt takes a slot of `g`, which reads it from its next iteration on."""
    request = cluster.live[slot]
    request.stage = stages.PREFILL
    request.gpu = g
    request.prefill_gpu = g
    cluster.gpu[g].prefill_seat = slot
    cluster.gpu[g].occupied += 1
    count(cluster, stages.PREFILL, request.cls, 1)
    cluster.events[events.PREFILL_START, request.cls] += 1
    set_mode(cluster, g, 1)
    update_ready(cluster.board, g)
    call(cluster, g)


@inlined
def start_decode(cluster: Cluster, slot: int, g: int) -> None:
    """A decode takes a slot of `g`, to which its KV is sent if its prompt was read on another."""
    request = cluster.live[slot]
    request.gpu = g
    cluster.gpu[g].occupied += 1
    seat(cluster, g, request.cls)
    request.stage = stages.MIXED_DECODE if cluster.gpu[g].mixed == 1 else stages.SOLO_DECODE
    cluster.events[events.DECODE_START, request.cls] += 1
    update_ready(cluster.board, g)
    seconds = 0.0
    if g != request.prefill_gpu:
        seconds = transfer_seconds(cluster, request.prompt + request.produced)
    if seconds > 0.0:
        set_timer(cluster, slot, cluster.clock[NOW] + seconds)
    else:
        wait_for_boundary(cluster, slot)


@inlined
def wait_for_boundary(cluster: Cluster, slot: int) -> None:
    """A decode is on its GPU and joins its batch at the next boundary."""
    g = cluster.live[slot].gpu
    push_back(cluster, gpu_line(cluster, g, PENDING), slot)
    call(cluster, g)


@inlined
def call(cluster: Cluster, g: int) -> None:
    if cluster.gpu[g].due == 0:
        cut_segment(cluster, g)


@inlined
def make_due(cluster: Cluster, g: int) -> None:
    """`g` forms its next batch when all is decided at this epoch; kept in order, to which most come at the end."""
    k = cluster.tally[DUE]
    cluster.tally[DUE] = k + 1
    while k > 0 and cluster.due[k - 1] > g:
        cluster.due[k] = cluster.due[k - 1]
        k -= 1
    cluster.due[k] = g
    cluster.gpu[g].due = 1
    idle(cluster, g)


@inlined
def compose_due(cluster, law):
    for k in range(cluster.tally[DUE]):
        cluster.gpu[cluster.due[k]].due = 0
        compose(cluster, law, cluster.due[k])
    cluster.tally[DUE] = 0


@inlined
def compose(cluster, law, g):
    """The next batch of `g`: its decodes, those that wait to join, and a chunk of its prefill."""
    here = cluster.gpu[g]
    delay = 0.0
    preempted = False
    if cluster.set.kv_blocks > 0:
        while blocks_next(cluster, g) > here.blocks:
            delay += preempt(cluster, g)
            preempted = True
    joined = 0
    pending = gpu_line(cluster, g, PENDING)
    while not preempted and cluster.lines[pending].head != NOWHERE:
        slot = cluster.lines[pending].head
        request = cluster.live[slot]
        held = request.prompt + request.produced
        if not admits(cluster, g, held + 1):
            break
        unlink(cluster, pending, slot)
        if cluster.set.kv_blocks > 0:
            here.blocks -= blocks_of(cluster, held)
        if request.unread < 0:  # swapped out before
            delay += held * cluster.set.keys.swap_seconds
            request.unread = 0
        else:
            observe(cluster, DECODE_WAIT, request.cls, cluster.clock[NOW] - request.since, cluster.clock[NOW])
        join(cluster, g, slot, held)
        cluster.batch[g, FRESH, request.cls] += 1
        joined += 1
    chunk = 0
    if here.prefill_seat != NOWHERE:
        request = cluster.live[here.prefill_seat]
        if here.reading == 0 and not preempted and admits(cluster, g, request.unread + cluster.set.keys.kv_reservation):
            here.reading = 1
            request.joined = here.iteration
            hold(cluster, g, request.unread, 0)
            if np.isnan(request.scheduled):
                request.scheduled = cluster.clock[NOW]
                observe(cluster, PREFILL_WAIT, request.cls, request.scheduled - request.arrival, request.scheduled)
        if here.reading == 1:
            chunk = min(request.unread, cluster.set.tokens)
    if chunk == 0 and here.decodes == 0:
        idle(cluster, g)
        return
    length = 1
    if not preempted:
        length = min(next_end(cluster, g), iterations_that_fit(cluster, g))
        if chunk > 0:
            length = min(length, cluster.live[here.prefill_seat].unread // chunk)
    begin_segment(cluster, law, g, chunk, here.decodes, length, delay)
    if joined > 0:
        record_first_tokens(cluster, g, joined)


@inlined
def record_first_tokens(cluster: Cluster, g: int, joined: int) -> None:
    """The `joined` decodes that joined `g` last gain their first token, or go on, with its next iteration."""
    token = first_end(cluster, g)
    slot = cluster.lines[gpu_line(cluster, g, DECODING)].tail
    for _ in range(joined):
        request = cluster.live[slot]
        if request.produced == 0:
            request.first = token
            observe(cluster, TTFT, request.cls, token - request.arrival, token)
        else:
            record_own_gap(cluster, slot, token, True)
        slot = request.previous


@called
def preempt(cluster: Cluster, g: int) -> float:
    """Memory has run out: the request admitted last gives way; seconds of swapping.

    A prefill, and a decode whose KV is dropped, goes back to the front of its class's prefill queue; a decode whose KV
    is swapped out keeps its slot and joins again as soon as it fits.
    """
    here = cluster.gpu[g]
    slot = cluster.lines[gpu_line(cluster, g, DECODING)].tail
    if here.reading == 1 and cluster.live[here.prefill_seat].joined >= cluster.live[slot].joined:
        slot = vacate(cluster, g)
        request = cluster.live[slot]
        set_mode(cluster, g, 0)
        request.unread = request.prompt + request.produced
        request.preemptions += 1
        cluster.events[events.PREFILL_PREEMPTION, request.cls] += 1
        wait_in_front(cluster, slot)
        return 0.0
    request = cluster.live[slot]
    delay = preempt_decode(cluster, g, slot)
    request.preemptions += 1
    if cluster.set.keys.preemption == SWAP:
        request.unread = -1
        push_front(cluster, gpu_line(cluster, g, PENDING), slot)
    else:
        unseat(cluster, g, request.cls)
        free_slot(cluster, g)
        wait_in_front(cluster, slot)
    return delay


@inlined
def wait_in_front(cluster: Cluster, slot: int) -> None:
    """A preempted request is the next of its class; it has been served and does not leave."""
    request = cluster.live[slot]
    request.stage = stages.PREFILL_QUEUE
    request.since = request.arrival
    push_front(cluster, policy_line(cluster, stages.PREFILL_QUEUE, request.cls), slot)
    cluster.since[stages.PREFILL_QUEUE, request.cls] = request.since
    count(cluster, stages.PREFILL_QUEUE, request.cls, 1)
