"""GPUs that form their own batches: a request is placed on one as it arrives and waits there, FCFS.

Three ways of batching: by token budget (vLLM V1: every iteration takes all decodes, then chunks of as many prompts as
the budget holds), the same with the decodes put off until their last schedulable time (SLAI), and prefill first (first
vLLM: whole prompts, alone, before the decodes go on). In all of them the first token comes at the end of the last
chunk. With pools of GPUs a request goes on to another GPU then, and stands there as one that was swapped out.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.simulation.iteration.audit import full_audit
from fluidgate.simulation.iteration.batch import (
    join,
    leave,
    make_way,
    next_end,
    pop_end,
    record_own_gap,
    seat,
    set_mode,
    stand_still,
    strike_out,
    unseat,
)
from fluidgate.simulation.iteration.cluster import (
    ACCUMULATING,
    ALIVE,
    AUDIT_CODE,
    CURSOR,
    DECODE_PREEMPTION,
    DECODING,
    ENDED,
    FREE_SLOT,
    FRESH,
    LATE,
    LEFT_PREFILL_QUEUE,
    LOGGED,
    MOST_ALIVE,
    NOW,
    NUMBER,
    PREFILL_PREEMPTION,
    PREFILL_WAIT,
    PROMPT_READ,
    READING,
    REJECTED,
    REJECTION,
    REJOIN,
    TOTAL_EVENTS,
    TTFT,
    WAITING,
    Batching,
    Cluster,
    Placement,
)
from fluidgate.simulation.iteration.law import base_time
from fluidgate.simulation.iteration.lines import accumulating_line, gpu_line, push_back, push_front, unlink
from fluidgate.simulation.iteration.memory import (
    admits,
    blocks_next,
    blocks_of,
    find_cached,
    give_back,
    hold,
    iterations_that_fit,
    leave_cached,
    prepay,
    release,
)
from fluidgate.simulation.iteration.placement import change_load, place
from fluidgate.simulation.iteration.pools import join_landed, leaves, ship, unbind
from fluidgate.simulation.iteration.record import count, move_clock, observe, record_completion, retire
from fluidgate.simulation.iteration.segment import (
    begin_segment,
    cut_segment,
    cut_segment_late,
    end_segment,
    first_end,
    idle,
    last_start,
    set_epoch,
)
from fluidgate.simulation.iteration.timers import in_transit, next_timer, set_timer, stop_timer
from fluidgate.simulation.iteration.tournament import winner
from fluidgate.simulation.markov.kernel import DONE, FAILED, FULL, PAUSED
from fluidgate.simulation.markov.network import (
    ARRIVAL,
    DECODE_START,
    NONE,
    PREFILL,
    PREFILL_ABANDONMENT,
    PREFILL_END,
    PREFILL_QUEUE,
    PREFILL_START,
    SOLO_QUEUE,
)

HUNGRY = 4  # the block is read: bring the next one and go on
LOG_FULL = 5  # take the log and go on

TOKEN_BUDGET = int(Batching.TOKEN_BUDGET)
LAST_SCHEDULABLE = int(Batching.LAST_SCHEDULABLE)
POOLS = int(Placement.POOLS)


@inlined
def advance_placed(cluster, law, block, placements, budget):
    """Run up to `budget` events; returns DONE, PAUSED, FULL, FAILED, HUNGRY or LOG_FULL.

    At one epoch arrivals come first, then the boundaries of GPUs, then landings of KV, then abandonments, in order of
    arrival.

    Args:
        cluster: Cluster.
        law: Law.
        block: requests in order of arrival.
        placements: numpy Generator.
    """
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
        epoch = min(arrival, boundary, timer)
        if epoch == np.inf and tally[ACCUMULATING] > 0:
            admit_the_rest(cluster)
            continue
        if not move_clock(cluster, epoch):
            return DONE
        tally[LATE] = 1 if epoch < min(arrival, boundary) else 0
        if arrival <= epoch:
            arrive(cluster, block[tally[CURSOR]], placements)
            tally[CURSOR] += 1
        elif boundary <= epoch:
            reach_boundary(cluster, law, g)
        elif in_transit(cluster, cluster.timers[0]):
            land(cluster, cluster.timers[0])
        else:
            abandon(cluster, cluster.timers[0])
        tally[TOTAL_EVENTS] += 1
        if cluster.set.audited:
            tally[AUDIT_CODE] = full_audit(cluster)
        if tally[AUDIT_CODE] != 0:
            return FAILED
    return PAUSED


@inlined
def enter(cluster, request):
    """The row of a request that arrives now."""
    slot = cluster.tally[FREE_SLOT]
    who = cluster.live[slot]
    cluster.tally[FREE_SLOT] = who.next
    who.arrival = request.arrival
    who.since = request.arrival
    who.scheduled = np.nan
    who.first = np.nan
    who.last = np.nan
    who.patience = request.patience
    who.number = cluster.tally[NUMBER]
    who.cls = request.cls
    who.prompt = request.prompt
    who.output = request.output
    who.unread = request.prompt
    who.produced = 0
    who.gpu = NONE
    who.prefill_gpu = NONE
    who.timer_position = NONE
    who.preemptions = 0
    who.cached = 0
    who.ahead = 0
    who.decode_gpu = NONE
    who.accumulating = 0
    who.stage = PREFILL_QUEUE
    cluster.tally[NUMBER] += 1
    cluster.tally[ALIVE] += 1
    cluster.tally[MOST_ALIVE] = max(cluster.tally[ALIVE], cluster.tally[MOST_ALIVE])
    cluster.events[ARRIVAL, request.cls] += 1
    return slot


@inlined
def refused(cluster: Cluster, slot: int) -> bool:
    """Whether the request could never be served to its end by a GPU's memory: then it is rejected."""
    who = cluster.live[slot]
    if cluster.set.kv_blocks == 0 or blocks_of(cluster, who.prompt + who.output) <= cluster.set.kv_blocks:
        return False
    cluster.events[REJECTION, who.cls] += 1
    retire(cluster, slot, REJECTED)
    return True


@inlined
def arrive(cluster, request, placements):
    slot = enter(cluster, request)
    if refused(cluster, slot):
        return
    g = place(cluster, slot, placements)
    cluster.live[slot].gpu = g
    cluster.live[slot].prefill_gpu = g
    count(cluster, PREFILL_QUEUE, request.cls, 1)
    change_load(cluster, g, 1, request.prompt)
    if request.patience < np.inf:
        set_timer(cluster, slot, request.arrival + request.patience)
    if cluster.set.accumulate and cluster.thresholds[request.cls] > 1:
        accumulate(cluster, g, slot)
    else:
        wait(cluster, g, slot)


@inlined
def wait(cluster: Cluster, g: int, slot: int) -> None:
    """The request is the last of those who wait at `g`."""
    line = gpu_line(cluster, g, WAITING)
    push_back(cluster, line, slot)
    cluster.live[slot].came = cluster.clock[NOW]
    if cluster.lines[line].size == 1:
        call(cluster, g, cluster.set.asynchronous)


@called
def accumulate(cluster: Cluster, g: int, slot: int) -> None:
    """The request waits at `g` until those of its class reach their threshold there."""
    cls = cluster.live[slot].cls
    line = accumulating_line(cluster, g, cls)
    push_back(cluster, line, slot)
    cluster.live[slot].accumulating = 1
    cluster.tally[ACCUMULATING] += 1
    if cluster.lines[line].size >= cluster.thresholds[cls]:
        admit_all(cluster, g, line)


@called
def admit_all(cluster: Cluster, g: int, line: int) -> None:
    """Those who have accumulated in `line` come after those who wait at `g`."""
    while cluster.lines[line].size > 0:
        slot = cluster.lines[line].head
        unlink(cluster, line, slot)
        cluster.live[slot].accumulating = 0
        cluster.tally[ACCUMULATING] -= 1
        wait(cluster, g, slot)


@called
def admit_the_rest(cluster: Cluster) -> None:
    """No other request will come: whoever accumulates is admitted."""
    for g in range(cluster.gpus):
        for i in range(cluster.counts.shape[1]):
            admit_all(cluster, g, accumulating_line(cluster, g, i))


@called
def land(cluster: Cluster, slot: int) -> None:
    """The KV of a request has come to the GPU where it decodes."""
    who = cluster.live[slot]
    stop_timer(cluster, slot)
    who.stage = SOLO_QUEUE
    who.unread = 0
    change_load(cluster, who.gpu, 1, 0)
    wait(cluster, who.gpu, slot)


@inlined
def call(cluster: Cluster, g: int, late: bool) -> None:
    """The first of those who wait at `g` is a new one: `g` looks at it as soon as it may, or an iteration later."""
    here = cluster.gpu[g]
    if here.busy == 0 or (here.chunk == 0 and here.decodes < cluster.batch_size):
        if late and here.busy == 1:
            cut_segment_late(cluster, g)
        else:
            cut_segment(cluster, g)


@called
def abandon(cluster: Cluster, slot: int) -> None:
    """The patience of a waiting request is at its end."""
    who = cluster.live[slot]
    g = who.gpu
    stop_timer(cluster, slot)
    line = gpu_line(cluster, g, WAITING)
    if who.accumulating == 1:
        line = accumulating_line(cluster, g, who.cls)
        cluster.tally[ACCUMULATING] -= 1
    was_first = cluster.lines[line].head == slot and who.accumulating == 0
    unlink(cluster, line, slot)
    count(cluster, PREFILL_QUEUE, who.cls, -1)
    cluster.events[PREFILL_ABANDONMENT, who.cls] += 1
    change_load(cluster, g, -1, -who.unread)
    unbind(cluster, slot)
    retire(cluster, slot, LEFT_PREFILL_QUEUE)
    if was_first and cluster.lines[line].size > 0:
        call(cluster, g, False)


@inlined
def reach_boundary(cluster, law, g):
    """An iteration of `g` has ended, or `g` was idle and is called."""
    here = cluster.gpu[g]
    latest = np.inf
    if here.busy == 1:
        chunk = here.chunk
        if cluster.set.asynchronous:
            latest = last_start(cluster, g)
        end_segment(cluster, g)
        while next_end(cluster, g) == 0:
            slot = pop_end(cluster, g)
            stand_still(cluster, g, slot)
            if cluster.set.asynchronous:
                finish_later(cluster, g, slot)
            else:
                finish(cluster, g, slot)
        if chunk > 0:
            end_prefills(cluster, g)
    if cluster.set.batching == TOKEN_BUDGET:
        compose_within_budget(cluster, law, g, latest)
    elif cluster.set.batching == LAST_SCHEDULABLE:
        if not compose_prompts_first(cluster, law, g):
            compose_within_budget(cluster, law, g, latest)
    else:
        compose_prefill_first(cluster, law, g)


@inlined
def finish(cluster: Cluster, g: int, slot: int) -> None:
    """A decode of `g` has ended, and leaves."""
    make_way(cluster, g, slot)
    unseat(cluster, g, cluster.live[slot].cls)
    change_load(cluster, g, -1, 0)
    unbind(cluster, slot)
    record_completion(cluster, slot)


@inlined
def finish_later(cluster: Cluster, g: int, slot: int) -> None:
    """A decode of `g` has ended; it stays until the next batch is composed."""
    here = cluster.gpu[g]
    here.finished += 1
    cluster.heaps[g, cluster.batch_size - here.finished] = slot


@called
def finish_all(cluster: Cluster, g: int) -> None:
    """Those that have ended leave `g`."""
    here = cluster.gpu[g]
    while here.finished > 0:
        slot = cluster.heaps[g, cluster.batch_size - here.finished]
        here.finished -= 1
        finish(cluster, g, slot)


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


@inlined
def end_prefills(cluster: Cluster, g: int) -> None:
    """The prompts of `g` that are read to their end gain their first token and join the decodes."""
    now = cluster.clock[NOW]
    line = gpu_line(cluster, g, READING)
    slot = cluster.lines[line].head
    while slot != NONE and cluster.live[slot].unread == 0:
        who = cluster.live[slot]
        after = who.next
        unlink(cluster, line, slot)
        cls = who.cls
        tokens = who.prompt + who.produced
        change_load(cluster, g, 0, -tokens)
        count(cluster, PREFILL, cls, -1)
        cluster.events[PREFILL_END, cls] += 1
        if who.produced == 0:
            who.first = now
            observe(cluster, TTFT, cls, now - who.arrival, now)
            cluster.tokens[PROMPT_READ, cls] += who.prompt
        else:
            record_own_gap(cluster, slot, now, True)
        who.last = now
        who.produced += 1
        cluster.gpu[g].held -= tokens
        if who.produced == who.output:
            cluster.events[DECODE_START, cls] += 1
            if cluster.set.asynchronous:
                keep(cluster, g, slot, tokens)
            else:
                give_back(cluster, g, tokens)
                change_load(cluster, g, -1, 0)
                unbind(cluster, slot)
                record_completion(cluster, slot)
        elif cluster.set.placement == POOLS and leaves(cluster, g, slot):
            give_back(cluster, g, tokens)
            change_load(cluster, g, -1, 0)
            ship(cluster, slot)
        else:
            cluster.events[DECODE_START, cls] += 1
            join(cluster, g, slot, tokens)
            seat(cluster, g, cls)
            if cluster.set.batching != TOKEN_BUDGET:
                cluster.batch[g, FRESH, cls] += 1
        slot = after


@called
def keep(cluster: Cluster, g: int, slot: int, tokens: int) -> None:
    """A request has ended with its prompt; it stays, a decode that stands still, until the next batch is composed."""
    who = cluster.live[slot]
    who.held = tokens
    who.joined = cluster.gpu[g].iteration
    if cluster.set.ordered:
        push_back(cluster, gpu_line(cluster, g, DECODING), slot)
    seat(cluster, g, who.cls)
    finish_later(cluster, g, slot)


@inlined
def start_prefill(cluster: Cluster, g: int, slot: int) -> None:
    """The first of those who wait at `g` is admitted to its batch, with the memory of its whole prompt."""
    who = cluster.live[slot]
    unlink(cluster, gpu_line(cluster, g, WAITING), slot)
    stop_timer(cluster, slot)
    push_back(cluster, gpu_line(cluster, g, READING), slot)
    found = find_cached(cluster, g, slot)
    hold(cluster, g, who.unread, found)
    who.unread -= found * cluster.set.block_tokens
    if np.isnan(who.scheduled):
        who.scheduled = cluster.clock[NOW]
        observe(cluster, PREFILL_WAIT, who.cls, who.scheduled - who.arrival, who.scheduled)
    count(cluster, PREFILL_QUEUE, who.cls, -1)
    count(cluster, PREFILL, who.cls, 1)
    cluster.events[PREFILL_START, who.cls] += 1


@inlined
def swap_in(cluster: Cluster, g: int, slot: int) -> float:
    """The first of those who wait at `g` goes on decoding; the seconds its KV takes to come back."""
    who = cluster.live[slot]
    if who.stage == SOLO_QUEUE:
        join_landed(cluster, g, slot)
        return 0.0
    held = who.prompt + who.produced - 1
    unlink(cluster, gpu_line(cluster, g, WAITING), slot)
    if cluster.set.kv_blocks > 0:
        cluster.gpu[g].blocks -= blocks_of(cluster, held)
    join(cluster, g, slot, held)
    cluster.batch[g, FRESH, who.cls] += 1
    count(cluster, PREFILL_QUEUE, who.cls, -1)
    seat(cluster, g, who.cls)
    cluster.events[REJOIN, who.cls] += 1
    return held * cluster.set.swap_seconds


@called
def preempt(cluster: Cluster, g: int) -> float:
    """Memory has run out: the request admitted last goes back to the front of the line; seconds of swapping."""
    reading = gpu_line(cluster, g, READING)
    slot = cluster.lines[reading].tail
    delay = 0.0
    if slot == NONE and cluster.gpu[g].finished > 0 and finish_last(cluster, g):
        return delay
    if slot != NONE:
        who = cluster.live[slot]
        unlink(cluster, reading, slot)
        release(cluster, g, who.prompt + who.produced)
        leave_cached(cluster, g, slot, who.prompt + who.produced - who.unread)
        who.unread = who.prompt + who.produced
        count(cluster, PREFILL, who.cls, -1)
        cluster.events[PREFILL_PREEMPTION, who.cls] += 1
    else:
        slot = cluster.lines[gpu_line(cluster, g, DECODING)].tail
        delay = preempt_decode(cluster, g, slot)
        who = cluster.live[slot]
        unseat(cluster, g, who.cls)
        change_load(cluster, g, 0, who.unread)
    who.preemptions += 1
    push_front(cluster, gpu_line(cluster, g, WAITING), slot)
    count(cluster, PREFILL_QUEUE, who.cls, 1)
    return delay


@inlined
def preempt_decode(cluster: Cluster, g: int, slot: int) -> float:
    """A decode leaves the batch: swapped out, or its KV dropped and all its tokens to be read again."""
    here = cluster.gpu[g]
    who = cluster.live[slot]
    grown = here.iteration - who.joined
    strike_out(cluster, g, slot)
    leave(cluster, g, slot)
    if grown > 0:
        who.last = here.last_token
    elif cluster.batch[g, FRESH, who.cls] > 0:
        cluster.batch[g, FRESH, who.cls] -= 1
    who.produced += grown
    cluster.events[DECODE_PREEMPTION, who.cls] += 1
    if cluster.set.swap:
        who.unread = 0
        return (who.held + grown) * cluster.set.swap_seconds
    leave_cached(cluster, g, slot, who.held + grown)
    who.unread = who.prompt + who.produced
    return 0.0


@inlined
def compose_within_budget(cluster, law, g, latest):
    """The next batch of `g`: all decodes, the prompt under way, then prompts that wait, FCFS, within the budget.

    Who came after `latest` is not in it.
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
    chunk = 0
    if cluster.lines[reading].head != NONE:
        who = cluster.live[cluster.lines[reading].head]
        chunk = min(who.unread, left)
        who.unread -= chunk
        left -= chunk
    swapped = 0
    while (
        not preempted
        and left > 0
        and cluster.lines[waiting].head != NONE
        and here.decodes + here.finished + cluster.lines[reading].size < cluster.batch_size
    ):
        slot = cluster.lines[waiting].head
        who = cluster.live[slot]
        if who.came > latest:
            break
        if who.unread == 0:
            # behind a prompt it waits for the next batch: who joined last is who is preempted first
            if cluster.lines[reading].size > 0 or not admits(cluster, g, who.prompt + who.produced):
                break
            delay += swap_in(cluster, g, slot)
            swapped += 1
            left -= 1
            continue
        if not admits(cluster, g, who.unread + cluster.set.reservation):
            break
        start_prefill(cluster, g, slot)
        part = min(who.unread, left)
        who.unread -= part
        chunk += part
        left -= part
    one_by_one = False
    if cluster.set.asynchronous:  # who waits is looked at again when the next is composed, knowing more
        head = cluster.lines[waiting].head
        one_by_one = head != NONE and (here.finished > 0 or cluster.live[head].came > latest)
        finish_all(cluster, g)
    if chunk == 0 and here.decodes == 0:
        if one_by_one:
            set_epoch(cluster, g, cluster.clock[NOW])  # it has run idle, and composes at once
        else:
            idle(cluster, g)
        return

    length = 1
    if not (preempted or (one_by_one and left > 0)):
        length = min(next_end(cluster, g), iterations_that_fit(cluster, g))
        if chunk > 0:
            alone = cluster.live[cluster.lines[reading].head]
            full = cluster.lines[reading].size == 1 and left == 0 and alone.unread > 0
            full = full and cluster.set.batching == TOKEN_BUDGET
            length = min(length, 1 + (alone.unread - 1) // chunk) if full else 1
            if full:
                alone.unread -= chunk * (length - 1)
    set_mode(cluster, g, 1 if chunk > 0 else 0)
    begin_segment(cluster, law, g, chunk, here.decodes, length, delay)
    if cluster.set.batching == LAST_SCHEDULABLE:
        swapped = fresh(cluster, g)
    if swapped > 0:
        record_own_gaps(cluster, g, swapped)


@inlined
def compose_prompts_first(cluster, law, g):
    """Prompts fill the budget before the decodes of `g`, which stand still unless all of them fit into the rest.

    False, and nothing done, if the decodes are critical, a swapped one comes first, or no prompt can be read.
    """
    here = cluster.gpu[g]
    waiting = gpu_line(cluster, g, WAITING)
    reading = gpu_line(cluster, g, READING)
    first = cluster.lines[waiting].head
    whole = base_time(law, cluster.set.tokens, 0)
    if (
        here.decodes == 0
        or cluster.clock[NOW] + cluster.set.token_offset * whole > here.last_token + cluster.set.token_deadline
        or (cluster.set.kv_blocks > 0 and blocks_next(cluster, g) > here.blocks)
        or (first != NONE and cluster.live[first].unread == 0)
    ):
        return False
    left = cluster.set.tokens
    if cluster.lines[reading].head != NONE:
        who = cluster.live[cluster.lines[reading].head]
        part = min(who.unread, left)
        who.unread -= part
        left -= part
    while (
        left > 0
        and cluster.lines[waiting].head != NONE
        and here.decodes + cluster.lines[reading].size < cluster.batch_size
    ):
        slot = cluster.lines[waiting].head
        who = cluster.live[slot]
        if who.unread == 0 or not admits(cluster, g, who.unread + cluster.set.reservation):
            break
        start_prefill(cluster, g, slot)
        part = min(who.unread, left)
        who.unread -= part
        left -= part
    chunk = cluster.set.tokens - left
    if chunk == 0:
        return False
    set_mode(cluster, g, 1)
    if left < here.decodes:
        begin_segment(cluster, law, g, chunk, 0, 1, 0.0)
        return True
    if cluster.set.kv_blocks > 0:
        prepay(cluster, g)
    begin_segment(cluster, law, g, chunk, here.decodes, 1, 0.0)
    joined = fresh(cluster, g)
    if joined > 0:
        record_own_gaps(cluster, g, joined)
    return True


@inlined
def fresh(cluster: Cluster, g: int) -> int:
    """Decodes of `g` that have joined since its last iteration with decodes."""
    joined = 0
    for i in range(cluster.batch.shape[2]):
        joined += cluster.batch[g, FRESH, i]
    return joined


@inlined
def record_own_gaps(cluster: Cluster, g: int, joined: int) -> None:
    """The gaps of the `joined` decodes that joined `g` last and end with its next iteration."""
    token = first_end(cluster, g)
    slot = cluster.lines[gpu_line(cluster, g, DECODING)].tail
    for _ in range(joined):
        stalled = cluster.gpu[g].chunk > 0 or cluster.live[slot].last < cluster.gpu[g].start
        record_own_gap(cluster, slot, token, stalled)
        slot = cluster.live[slot].previous


@inlined
def compose_prefill_first(cluster, law, g):
    """The next batch of `g`: prompts that wait, whole, as many as the budget holds (one at least), else all decodes."""
    here = cluster.gpu[g]
    waiting = gpu_line(cluster, g, WAITING)
    chunk = 0
    while cluster.lines[waiting].head != NONE:
        slot = cluster.lines[waiting].head
        who = cluster.live[slot]
        tokens = who.unread
        batched = here.decodes + cluster.lines[gpu_line(cluster, g, READING)].size
        if (
            tokens == 0
            or batched >= cluster.batch_size
            or (chunk > 0 and chunk + tokens > cluster.set.tokens)
            or not admits(cluster, g, tokens + cluster.set.reservation)
        ):
            break
        start_prefill(cluster, g, slot)
        chunk += who.unread
        who.unread = 0
    if chunk > 0:
        set_mode(cluster, g, 1)
        begin_segment(cluster, law, g, chunk, 0, 1, 0.0)
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
    while not preempted and cluster.lines[waiting].head != NONE and here.decodes < cluster.batch_size:
        slot = cluster.lines[waiting].head
        who = cluster.live[slot]
        if who.unread > 0 or not admits(cluster, g, who.prompt + who.produced):
            break
        delay += swap_in(cluster, g, slot)
        swapped = True
        joined += 1
    if here.decodes == 0:
        idle(cluster, g)
        return
    length = 1  # after a change of who waits first, prompts are looked at again
    if not (preempted or swapped):
        length = min(next_end(cluster, g), iterations_that_fit(cluster, g))
    set_mode(cluster, g, 0)
    begin_segment(cluster, law, g, 0, here.decodes, length, delay)
    if joined > 0:
        record_own_gaps(cluster, g, joined)
