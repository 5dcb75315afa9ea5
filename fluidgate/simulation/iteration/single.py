"""Single-prefill batching under a policy: at most one prompt a GPU, in chunks, beside its decodes.

The decisions are those of the Markov network, asked at arrivals, abandonments and completions. What they assign joins
its GPU at the next iteration boundary; an idle GPU starts at once. A decode gains its first token at the end of its
first iteration.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.groups import prefill_gone, regroup
from fluidgate.policies.decisions.ready import drawn_gpu, update_ready
from fluidgate.policies.decisions.view import HOLD, MIXED, SOLO, STAY, WAIT, View
from fluidgate.replanning.estimates import arrived, left, prompt_read, waits, waits_no_more
from fluidgate.replanning.estimates import completed as completed_one
from fluidgate.simulation.iteration.audit import full_audit
from fluidgate.simulation.iteration.batch import (
    join,
    leave,
    next_end,
    pop_end,
    record_own_gap,
    seat,
    set_mode,
    unseat,
)
from fluidgate.simulation.iteration.cluster import (
    AUDIT_CODE,
    CHANGED,
    CURSOR,
    DECODE_WAIT,
    DECODING,
    DUE,
    ENDED,
    FREE_SLOT,
    FRESH,
    LATE,
    LEFT_DECODE_BUFFER,
    LEFT_PREFILL_QUEUE,
    LOGGED,
    MIXED_GROUP,
    NOW,
    PENDING,
    PREFILL_PREEMPTION,
    PREFILL_WAIT,
    PROMPT_READ,
    TOTAL_EVENTS,
    TTFT,
    UNTIL,
    Cluster,
)
from fluidgate.simulation.iteration.lines import gpu_line, policy_line, push_back, push_front, unlink
from fluidgate.simulation.iteration.memory import (
    admits,
    blocks_next,
    blocks_of,
    hold,
    iterations_that_fit,
    release,
)
from fluidgate.simulation.iteration.placed import HUNGRY, LOG_FULL, enter, preempt_decode, refused
from fluidgate.simulation.iteration.record import count, move_clock, observe, record_completion, retire
from fluidgate.simulation.iteration.segment import (
    begin_segment,
    cut_segment,
    end_segment,
    first_end,
    idle,
)
from fluidgate.simulation.iteration.timers import in_transit, next_timer, set_timer, stop_timer
from fluidgate.simulation.iteration.tournament import winner
from fluidgate.simulation.markov.kernel import DONE, FAILED, FULL, PAUSED
from fluidgate.simulation.markov.network import (
    BAD_GATE,
    BAD_REFILL,
    BAD_ROUTE,
    DECODE_ABANDONMENT,
    DECODE_START,
    MIXED_DECODE,
    MIXED_QUEUE,
    NONE,
    PREFILL,
    PREFILL_ABANDONMENT,
    PREFILL_END,
    PREFILL_QUEUE,
    PREFILL_START,
    SOLO_DECODE,
    SOLO_QUEUE,
)


@inlined
def advance_single(cluster, law, tables, gate, route, refill, block, placements, budget):
    """Run up to `budget` events; returns DONE, PAUSED, FULL, FAILED, HUNGRY or LOG_FULL.

    At one epoch arrivals come first, then transfers, then what ends with an iteration, by GPU; then the GPUs concerned
    form their next batches, by number; then abandonments; then a change of tables. Each kind in order of arrival.
    It pauses when all events up to `clock[UNTIL]` are over.

    Args:
        cluster: Cluster.
        law: Law.
        tables: Tables of the policy.
        gate, route, refill: decision functions.
        block: requests in order of arrival.
        placements: numpy Generator.
    """
    view = View(
        cluster.gpus,
        cluster.batch_size,
        cluster.counts[PREFILL_QUEUE],
        cluster.counts[PREFILL],
        cluster.counts[MIXED_QUEUE : SOLO_QUEUE + 1],
        cluster.counts[MIXED_DECODE],
        cluster.counts[SOLO_DECODE],
        cluster.since[PREFILL_QUEUE],
        cluster.since[MIXED_QUEUE : SOLO_QUEUE + 1],
        cluster.free,
        cluster.startable,
        cluster.beside,
    )
    tally = cluster.tally
    for _ in range(budget):
        if tally[CURSOR] == len(block) and tally[ENDED] == 0:
            return HUNGRY
        if tally[FREE_SLOT] == NONE:
            return FULL
        if len(cluster.log) > 0 and tally[LOGGED] + cluster.batch_size + 1 >= len(cluster.log):
            return LOG_FULL
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
            return PAUSED
        if not move_clock(cluster, epoch):
            return DONE
        tally[LATE] = 0
        decide = True
        ended = NONE
        if tally[CHANGED] == 1:
            tally[CHANGED] = 0
            tally[LATE] = 1
            regroup(cluster, tables.mixed_gpus)
            tally[MIXED_GROUP] = tables.mixed_gpus
        elif arrival <= epoch:
            slot = enter(cluster, block[tally[CURSOR]])
            tally[CURSOR] += 1
            if len(cluster.estimates) > 0:
                arrived(cluster.estimates, cluster.live[slot].cls, epoch)
            if not refused(cluster, slot):
                wait_in(cluster, PREFILL_QUEUE, slot)
        elif landing and timer <= epoch:
            slot = cluster.timers[0]
            stop_timer(cluster, slot)
            wait_for_boundary(cluster, slot)
            decide = False
        elif boundary <= epoch:
            ended = g
            decide = end_iteration(cluster, view, tables, route, g, placements)
        else:
            tally[LATE] = 1
            abandon(cluster, cluster.timers[0])
        if decide:
            start_prefills(cluster, view, tables, gate, placements)
            fill_decodes(cluster, view, tables, refill, placements)
        if ended != NONE and cluster.gpu[ended].prefill_seat == NONE:
            set_mode(cluster, ended, 0)
        tally[TOTAL_EVENTS] += 1
        if cluster.set.audited and tally[AUDIT_CODE] == 0:
            tally[AUDIT_CODE] = full_audit(cluster)
        if tally[AUDIT_CODE] != 0:
            return FAILED
    return PAUSED


@inlined
def wait_in(cluster: Cluster, queue: int, slot: int) -> None:
    """A request joins the end of a queue now, and leaves it when its patience ends."""
    who = cluster.live[slot]
    now = cluster.clock[NOW]
    line = policy_line(cluster, queue, who.cls)
    who.stage = queue
    who.since = now
    if cluster.lines[line].size == 0:
        cluster.since[queue, who.cls] = now
    push_back(cluster, line, slot)
    count(cluster, queue, who.cls, 1)
    if len(cluster.estimates) > 0:
        waits(cluster.estimates, who.cls, now)
    if who.patience < np.inf:
        set_timer(cluster, slot, now + who.patience)


@inlined
def wait_no_more(cluster: Cluster, slot: int) -> None:
    """A request leaves its queue, wherever it stands in it."""
    who = cluster.live[slot]
    line = policy_line(cluster, who.stage, who.cls)
    stop_timer(cluster, slot)
    unlink(cluster, line, slot)
    if len(cluster.estimates) > 0 and could_leave(cluster, slot):
        waits_no_more(cluster.estimates, who.cls, cluster.clock[NOW])
    count(cluster, who.stage, who.cls, -1)
    head = cluster.lines[line].head
    cluster.since[who.stage, who.cls] = np.inf if head == NONE else cluster.live[head].since


@inlined
def could_leave(cluster: Cluster, slot: int) -> bool:
    """Whether a waiting request has not been preempted into its queue."""
    return cluster.live[slot].stage != PREFILL_QUEUE or cluster.live[slot].preemptions == 0


@called
def abandon(cluster: Cluster, slot: int) -> None:
    """The patience of a waiting request is at its end."""
    who = cluster.live[slot]
    buffered = who.stage != PREFILL_QUEUE
    wait_no_more(cluster, slot)
    if len(cluster.estimates) > 0:
        left(cluster.estimates, who.cls)
    cluster.events[DECODE_ABANDONMENT if buffered else PREFILL_ABANDONMENT, who.cls] += 1
    retire(cluster, slot, LEFT_DECODE_BUFFER if buffered else LEFT_PREFILL_QUEUE)


@inlined
def end_iteration(cluster, view, tables, route, g, placements):
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
            completed_one(cluster.estimates, done.cls, cluster.clock[NOW], done.output)
        record_completion(cluster, slot)
        completed = True
    if here.reading == 1 and cluster.live[here.prefill_seat].unread == 0:
        end_prefill(cluster, view, tables, route, g, placements)
        completed = True
    return completed


@inlined
def free_slot(cluster: Cluster, g: int) -> None:
    cluster.gpu[g].occupied -= 1
    cluster.gpu[g].crowded = 0
    update_ready(cluster, g)


@inlined
def vacate(cluster: Cluster, g: int) -> int:
    """Take the prefill of `g` from its slot with its memory; the request."""
    here = cluster.gpu[g]
    slot = here.prefill_seat
    who = cluster.live[slot]
    here.prefill_seat = NONE
    if here.reading == 1:
        release(cluster, g, who.prompt + who.produced)
    here.reading = 0
    count(cluster, PREFILL, who.cls, -1)
    prefill_gone(cluster, g)
    free_slot(cluster, g)
    return slot


@inlined
def end_prefill(cluster, view, tables, route, g, placements):
    """The prefill of `g` ends: its decode goes where the policy routes it."""
    slot = vacate(cluster, g)
    who = cluster.live[slot]
    who.since = cluster.clock[NOW]
    cluster.events[PREFILL_END, who.cls] += 1
    if who.produced == 0:
        cluster.tokens[PROMPT_READ, who.cls] += who.prompt
        if len(cluster.estimates) > 0:
            prompt_read(cluster.estimates, who.cls, who.since, who.prompt)
    where = route(view, tables, who.cls, placements.random())
    if where < MIXED or where > WAIT + SOLO:
        cluster.tally[AUDIT_CODE] = BAD_ROUTE
        where = WAIT
    if where == STAY and cluster.gpu[g].decode_position != NONE:
        start_decode(cluster, slot, g)
    elif where < STAY and view.free[where] > 0:
        start_decode(cluster, slot, drawn_gpu(cluster, tables, where, placements))
    else:
        wait_in(cluster, MIXED_QUEUE + (where - WAIT if where >= WAIT else 0), slot)


@inlined
def start_prefills(cluster, view, tables, gate, placements):
    """Assign prefills while the gate names a class and a GPU can take it, each GPU drawn uniformly."""
    while cluster.startable[0] > 0 and view.waiting.sum() > 0:
        cls = gate(view, tables)
        if cls == HOLD:
            return
        if cls < 0 or cls >= len(view.waiting) or view.waiting[cls] == 0:
            cluster.tally[AUDIT_CODE] = BAD_GATE
            return
        slot = cluster.lines[policy_line(cluster, PREFILL_QUEUE, cls)].head
        wait_no_more(cluster, slot)
        g = cluster.prefill_ready[int(placements.random() * cluster.startable[0])]
        who = cluster.live[slot]
        who.stage = PREFILL
        who.gpu = g
        who.prefill_gpu = g
        cluster.gpu[g].prefill_seat = slot
        cluster.gpu[g].occupied += 1
        count(cluster, PREFILL, cls, 1)
        cluster.events[PREFILL_START, cls] += 1
        set_mode(cluster, g, 1)
        update_ready(cluster, g)
        call(cluster, g)


@inlined
def fill_decodes(cluster, view, tables, refill, placements):
    """Give free decode slots to buffered requests, the solo group first."""
    for group in (SOLO, MIXED):
        queue = MIXED_QUEUE + (group if tables.split_buffers else 0)
        while cluster.free[group] > 0 and cluster.counts[queue].sum() > 0:
            cls = refill(view, tables, group, placements.random())
            if cls == HOLD:
                break
            if cls < 0 or cls >= len(view.waiting) or cluster.counts[queue, cls] == 0:
                cluster.tally[AUDIT_CODE] = BAD_REFILL
                return
            slot = cluster.lines[policy_line(cluster, queue, cls)].head
            wait_no_more(cluster, slot)
            start_decode(cluster, slot, drawn_gpu(cluster, tables, group, placements))


@inlined
def start_decode(cluster: Cluster, slot: int, g: int) -> None:
    """A decode takes a slot of `g`, to which its KV is sent if its prompt was read on another."""
    who = cluster.live[slot]
    who.gpu = g
    cluster.gpu[g].occupied += 1
    seat(cluster, g, who.cls)
    who.stage = MIXED_DECODE if cluster.gpu[g].mixed == 1 else SOLO_DECODE
    cluster.events[DECODE_START, who.cls] += 1
    update_ready(cluster, g)
    seconds = 0.0
    if g != who.prefill_gpu:
        seconds = cluster.set.transfer_latency + cluster.set.transfer_seconds * (who.prompt + who.produced)
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
    while not preempted and cluster.lines[pending].head != NONE:
        slot = cluster.lines[pending].head
        who = cluster.live[slot]
        held = who.prompt + who.produced
        if not admits(cluster, g, held + 1):
            break
        unlink(cluster, pending, slot)
        if cluster.set.kv_blocks > 0:
            here.blocks -= blocks_of(cluster, held)
        if who.unread < 0:  # swapped out before
            delay += held * cluster.set.swap_seconds
            who.unread = 0
        else:
            observe(cluster, DECODE_WAIT, who.cls, cluster.clock[NOW] - who.since, cluster.clock[NOW])
        join(cluster, g, slot, held)
        cluster.batch[g, FRESH, who.cls] += 1
        joined += 1
    chunk = 0
    if here.prefill_seat != NONE:
        who = cluster.live[here.prefill_seat]
        if here.reading == 0 and not preempted and admits(cluster, g, who.unread + cluster.set.reservation):
            here.reading = 1
            who.joined = here.iteration
            hold(cluster, g, who.unread, 0)
            if np.isnan(who.scheduled):
                who.scheduled = cluster.clock[NOW]
                observe(cluster, PREFILL_WAIT, who.cls, who.scheduled - who.arrival, who.scheduled)
        if here.reading == 1:
            chunk = min(who.unread, cluster.set.tokens)
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
        who = cluster.live[slot]
        if who.produced == 0:
            who.first = token
            observe(cluster, TTFT, who.cls, token - who.arrival, token)
        else:
            record_own_gap(cluster, slot, token, True)
        slot = who.previous


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
        who = cluster.live[slot]
        set_mode(cluster, g, 0)
        who.unread = who.prompt + who.produced
        who.preemptions += 1
        cluster.events[PREFILL_PREEMPTION, who.cls] += 1
        wait_in_front(cluster, slot)
        return 0.0
    who = cluster.live[slot]
    delay = preempt_decode(cluster, g, slot)
    who.preemptions += 1
    if cluster.set.swap:
        who.unread = -1
        push_front(cluster, gpu_line(cluster, g, PENDING), slot)
    else:
        unseat(cluster, g, who.cls)
        free_slot(cluster, g)
        wait_in_front(cluster, slot)
    return delay


@inlined
def wait_in_front(cluster: Cluster, slot: int) -> None:
    """A preempted request is the next of its class; it has been served and does not leave."""
    who = cluster.live[slot]
    who.stage = PREFILL_QUEUE
    who.since = who.arrival
    push_front(cluster, policy_line(cluster, PREFILL_QUEUE, who.cls), slot)
    cluster.since[PREFILL_QUEUE, who.cls] = who.since
    count(cluster, PREFILL_QUEUE, who.cls, 1)
