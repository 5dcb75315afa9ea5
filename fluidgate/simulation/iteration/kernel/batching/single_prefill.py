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
from fluidgate.policies.decisions.board import FAULT, NOWHERE, PHASE, update_ready
from fluidgate.policies.decisions.groups import regroup
from fluidgate.policies.decisions.limits import next_release, pass_time
from fluidgate.policies.decisions.tables import Tables
from fluidgate.replanning import estimates
from fluidgate.simulation import events, pauses
from fluidgate.simulation.iteration.kernel.admission import complete
from fluidgate.simulation.iteration.kernel.batch import (
    end_decodes,
    make_way,
    next_end,
    record_own_gap,
    seat,
    set_mode,
    unseat,
)
from fluidgate.simulation.iteration.kernel.cluster import (
    ASK,
    ASK_FOR_DECODES,
    ASKED,
    CALLED,
    CHANGED,
    COMPOSER,
    DECODING,
    DUE,
    FETCHING,
    LATE,
    LEFT_DECODE_BUFFER,
    LEFT_PREFILL_QUEUE,
    MIXED_GROUP,
    NOW,
    PROMPT_READ,
    RELEASE,
    TOTAL_EVENTS,
    UNTIL,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.handover import (
    carry,
    let_go,
    make_room,
    read_tokens,
)
from fluidgate.simulation.iteration.kernel.keys import SWAP
from fluidgate.simulation.iteration.kernel.lines import gpu_line, policy_line, push_back, push_front
from fluidgate.simulation.iteration.kernel.live import enter, preempt_decode, read_before, refused, what_is_missing
from fluidgate.simulation.iteration.kernel.memory import (
    blocks_needed,
    blocks_next,
    give_prompt_back,
    hold_prompt,
    iterations_that_fit,
    prepay,
)
from fluidgate.simulation.iteration.kernel.prefixes import ANSWER, let_text_go
from fluidgate.simulation.iteration.kernel.ranks import all_composed, step_together
from fluidgate.simulation.iteration.kernel.record import (
    count,
    move_clock,
    note_found,
    observe,
    retire,
    time_to_first,
)
from fluidgate.simulation.iteration.kernel.reuse import ready_home
from fluidgate.simulation.iteration.kernel.seats import (
    bar,
    call,
    free_slot,
    lose_slot,
    open_again,
    recall,
    vacate,
    wait_for_boundary,
    wait_in,
    wait_in_front,
    wait_no_more,
)
from fluidgate.simulation.iteration.kernel.segment import begin_segment, end_segment, first_end, first_rank, idle
from fluidgate.simulation.iteration.kernel.sending import (
    fetch_all,
    gives_way,
    has_memory,
    join_pending,
    land,
    send,
    send_if_there_is_memory,
    unblock,
)
from fluidgate.simulation.iteration.kernel.timers import in_transit, next_timer
from fluidgate.simulation.iteration.kernel.transfer import transfer_seconds
from fluidgate.simulation.iteration.kernel.users import (
    goes_on,
    hold_back,
    is_answer,
    next_arrival,
    next_request,
    take_turn,
)
from fluidgate.simulation.iteration.law import alike
from fluidgate.simulation.iteration.times import PREFILL_WAIT, TTFT

GRID = 2.0**-16  # s, of the epochs at which time alone releases a class


@inlined
def advance(cluster, law, tables, block, budget):
    """Run up to `budget` events; returns a word of `pauses`.

    At one epoch arrivals come first, then transfers, then what ends with an iteration, by GPU; then the GPUs concerned
    form their next batches, by number; then abandonments; then what is sent in answer; then a change of tables. Each
    kind in order of arrival. It pauses when all events up to `clock[UNTIL]` are over.

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
        g = winner(cluster.tree)
        boundary = cluster.epochs[g]
        timer = next_timer(cluster)
        landing = timer < np.inf and in_transit(cluster, cluster.timers[0])
        if cluster.set.kv_blocks > 0 and boundary == np.inf and not landing and unblock(cluster):
            continue
        busy = tally[DUE] > 0 or tally[ASKED] != 0 or tally[CHANGED] == 1
        others = cluster.clock[NOW] if busy else min(boundary, timer)
        arrival = hold_back(cluster, next_arrival(cluster, block), others)
        early = min(arrival, boundary, timer if landing else np.inf)
        if tally[DUE] > 0 and tally[ASKED] == 0 and early > cluster.clock[NOW]:
            compose_due(cluster, law)
            continue
        release = next_look(cluster, tables)
        epoch = min(early, timer, release)
        if tally[CHANGED] == 1 or tally[ASKED] != 0:
            epoch = cluster.clock[NOW]
        elif epoch > cluster.clock[UNTIL] and goes_on(cluster, epoch):
            move_clock(cluster, cluster.clock[UNTIL])
            pass_time(cluster.board.state, tables, cluster.clock[NOW])
            return pauses.REACHED
        arrives = arrival <= epoch and tally[CHANGED] == 0 and tally[ASKED] == 0
        if tally[ASKED] == 0:
            take_turn(cluster, epoch, arrives)
        if not move_clock(cluster, epoch):
            return pauses.DONE
        pass_time(cluster.board.state, tables, cluster.clock[NOW])
        decide = True
        ended = NOWHERE
        released = False
        if tally[ASKED] == 0:
            tally[LATE] = 1 if arrives and is_answer(cluster) else 0
            tally[COMPOSER] = NOWHERE
        prefills = tally[ASKED] != ASK_FOR_DECODES
        if tally[ASKED] != 0:
            tally[ASKED] = 0
        elif tally[CHANGED] == 1:
            tally[CHANGED] = 0
            tally[LATE] = 1
            regroup(cluster.board, tables.mixed_gpus)
            tally[MIXED_GROUP] = tables.mixed_gpus
        elif arrives:
            slot = enter(cluster, next_request(cluster, block))
            if len(cluster.estimates) > 0:
                estimates.arrived(cluster.estimates, cluster.live[slot].cls, epoch)
            if not refused(cluster, slot):
                wait_in(cluster, stages.PREFILL_QUEUE, slot)
        elif landing and timer <= epoch:
            land(cluster, cluster.timers[0])
            decide = False
        elif release <= epoch and release < min(early, timer):
            released = True
        elif boundary <= epoch:
            ended = g
            decide = end_iteration(cluster, tables, g)
        else:
            tally[LATE] = 1
            abandon(cluster, cluster.timers[0])
        if decide:
            start_all(cluster, tables, prefills)
        if prefills:
            cluster.clock[RELEASE] = np.inf if decide else release
        if ended != NOWHERE and cluster.gpu[ended].prefill_seat == NOWHERE:
            set_mode(cluster, ended, 0)
        if not released:
            tally[TOTAL_EVENTS] += 1
        if cluster.board.round[FAULT] != 0:
            return pauses.FAILED
    return pauses.PAUSED


@inlined
def next_look(cluster: Cluster, tables: Tables) -> float:
    """The epoch, s, at which a class that waits for a limit may start if nothing happens before; inf if none.

    It is on a grid. A prompt that starts between two boundaries is read from the second on, wherever between: starts it
    a rounding later, the excess over a limit L is less by 1 - L roundings, and the next release sooner by 1/L - 1 of
    them. So a rounding would grow from release to release. What was known before an event that decided nothing still
    holds: at that event an excess may be too small to block and above its grace yet.
    """
    if not tables.limited:
        return np.inf
    release = next_release(cluster.board.state, tables)
    return min(np.ceil(release / GRID) * GRID, cluster.clock[RELEASE])


@called
def abandon(cluster: Cluster, slot: int) -> None:
    """The patience of a waiting request is at its end."""
    request = cluster.live[slot]
    buffered = request.stage != stages.PREFILL_QUEUE
    wait_no_more(cluster, slot)
    if len(cluster.estimates) > 0:
        estimates.left(cluster.estimates, request.cls)
    cluster.events[events.DECODE_ABANDONMENT if buffered else events.PREFILL_ABANDONMENT, request.cls] += 1
    if request.kept != NOWHERE:
        home = request.kept
        let_go(cluster, slot)
        request.piece = NOWHERE
        recall(cluster, home)
    elif buffered and cluster.set.caching:
        read = read_tokens(cluster, slot) // cluster.set.keys.kv_block
        let_text_go(cluster, request.prefill_gpu, request.piece, read, False)
        request.piece = NOWHERE
    retire(cluster, slot, LEFT_DECODE_BUFFER if buffered else LEFT_PREFILL_QUEUE)


@inlined
def end_iteration(cluster, tables, g):
    """An iteration of `g` has ended, or `g` was idle and is called: decodes leave, then the prefill is routed.

    Returns whether any was completed.
    """
    here = cluster.gpu[g]
    if here.along > 0:
        called = here.along == CALLED
        here.along = 0
        if not called:
            idle(cluster, g)
            return False
    make_due(cluster, g)
    if here.busy == 0:
        return False
    if here.chunk > 0:
        cluster.live[here.prefill_seat].unread -= here.chunk * here.length
    end_segment(cluster, g)
    end_decodes(cluster, g)
    ended = here.finished
    here.finished = 0
    for k in range(1, ended + 1):
        slot = cluster.heaps[g, cluster.batch_size - k]
        make_way(cluster, g, slot, ANSWER)
        unseat(cluster, g, cluster.live[slot].cls)
        free_slot(cluster, g)
        complete(cluster, slot)
    completed = ended > 0
    if here.reading == 1 and cluster.live[here.prefill_seat].unread == 0:
        end_prefill(cluster, tables, g)
        completed = True
    return completed


@inlined
def end_prefill(cluster, tables, g):
    """The prefill of `g` ends: its decode goes where the policy routes it."""
    slot = vacate(cluster, g)
    request = cluster.live[slot]
    request.since = cluster.clock[NOW]
    if cluster.set.kv_blocks > 0:
        request.kept = g
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
def start_all(cluster, tables, prefills):
    """Let start who may start after an event; `prefills` too or decodes alone."""
    moves.open_round(cluster.board)
    if not prefills:
        cluster.board.round[PHASE] = moves.SOLO_DECODES
    while True:
        kind, cls, g = moves.next_start(cluster.board, tables)
        if kind == moves.NOBODY:
            return
        queue = stages.PREFILL_QUEUE if kind == moves.NEW_PREFILL else stages.MIXED_QUEUE + kind
        slot = cluster.lines[policy_line(cluster, queue, cls)].head
        if kind == moves.NEW_PREFILL and moves.decides_at_home(cluster.board, tables):
            g = ready_home(cluster, slot, g)
        if kind == moves.NEW_PREFILL and cluster.set.kv_blocks > 0 and not has_memory(cluster, g, slot):
            bar(cluster, g)
            continue
        wait_no_more(cluster, slot)
        if kind == moves.NEW_PREFILL:
            start_prefill(cluster, slot, g)
        else:
            start_decode(cluster, slot, g)


@inlined
def start_prefill(cluster: Cluster, slot: int, g: int) -> None:
    """A prompt takes a slot of `g` and its memory there; it is read from the next iteration on."""
    request = cluster.live[slot]
    if cluster.set.kv_blocks > 0:
        make_room(cluster, g, blocks_needed(cluster, g, slot, request.unread))
        request.reserved = 1
    tokens = request.unread
    is_first = request.cached == NOWHERE
    request.unread -= hold_prompt(cluster, g, slot, tokens)
    if cluster.set.prefixes:
        note_found(cluster, slot, tokens - request.unread, is_first)
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
    if request.unread < 0:  # swapped out while it waited
        push_back(cluster, gpu_line(cluster, g, FETCHING), slot)
        call(cluster, g)
    elif g == request.prefill_gpu:
        wait_for_boundary(cluster, slot)
    elif cluster.set.kv_blocks == 0:
        tokens = request.prompt + request.produced - carry(cluster, g, request.prefill_gpu, slot)
        send(cluster, slot, transfer_seconds(cluster, tokens))
    else:
        send_if_there_is_memory(cluster, slot, g)


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
    """The GPUs that are due form their next batches, by number.

    Where memory has run out a decode may have lost its slot, and where KV has left it another GPU may be called: that
    comes before the rest.
    """
    due, k = cluster.tally[DUE], 0
    while k < due:
        g = cluster.due[k]
        k += 1
        cluster.gpu[g].due = 0
        cluster.tally[COMPOSER] = g
        if compose(cluster, law, g):
            cluster.tally[ASKED] = ASK
        start_iterations(cluster, g)
        if cluster.tally[ASKED] != 0 or cluster.epochs[winner(cluster.tree)] <= cluster.clock[NOW]:
            break
    for j in range(k, due):
        cluster.due[j - k] = cluster.due[j]
    cluster.tally[DUE] = due - k


@inlined
def compose(cluster, law, g):
    """The next batch of `g`: its decodes, those that wait to join, and a chunk of its prefill.

    True if anybody has given way.
    """
    here = cluster.gpu[g]
    delay = 0.0
    preempted = False
    if cluster.set.kv_blocks > 0:
        while blocks_next(cluster, g) > here.blocks:
            delay += preempt(cluster, g)
            preempted = True
        prepay(cluster, g)
    joined = 0
    if not preempted:
        joined = join_pending(cluster, g)
        if cluster.lines[gpu_line(cluster, g, FETCHING)].head != NOWHERE:
            delay += fetch_all(cluster, g)
            joined += join_pending(cluster, g)
        if joined > 0 and cluster.lines[gpu_line(cluster, g, FETCHING)].members == 0:
            open_again(cluster, g)
    chunk = read = 0
    if here.prefill_seat != NOWHERE:
        request = cluster.live[here.prefill_seat]
        if here.reading == 0 and not preempted:
            here.reading = 1
            here.held += request.prompt + request.produced
            request.joined = here.iteration
            request.reserved = 0
            if np.isnan(request.scheduled):
                request.scheduled = cluster.clock[NOW]
                observe(cluster, PREFILL_WAIT, request.cls, request.scheduled - request.arrival, request.scheduled)
        if here.reading == 1:
            chunk = min(request.unread, cluster.set.tokens)
            read = chunk * read_before(request)
    if chunk == 0 and here.decodes == 0:
        idle(cluster, g)
        if preempted:  # the last of its decodes too, and others may join now
            call(cluster, g)
        return preempted or (cluster.set.kv_blocks > 0 and gives_way(cluster, g))
    length = 1
    if not preempted:
        length = min(next_end(cluster, g), iterations_that_fit(cluster, g))
        if chunk > 0:
            length = min(length, cluster.live[here.prefill_seat].unread // chunk)
        length = min(length, alike(law, chunk, here.decodes, here.context))
    begin_segment(cluster, law, g, chunk, read, here.decodes, length, delay)
    here.joining = joined
    return preempted


@inlined
def start_iterations(cluster: Cluster, g: int) -> None:
    """`g` has formed its next batch; once all ranks in step with it have, they go on."""
    first = first_rank(cluster, g)
    if cluster.set.keys.data_parallel > 1:
        if not all_composed(cluster, g):
            return
        step_together(cluster, g)
    for r in range(first, first + cluster.set.keys.data_parallel):
        if cluster.gpu[r].joining > 0:
            record_first_tokens(cluster, r)


@inlined
def record_first_tokens(cluster: Cluster, g: int) -> None:
    """The decodes that joined `g` last gain their first token, or go on, with its next iteration."""
    token = first_end(cluster, g)
    slot = cluster.lines[gpu_line(cluster, g, DECODING)].tail
    for _ in range(cluster.gpu[g].joining):
        request = cluster.live[slot]
        if request.produced == 0:
            request.first = token
            observe(cluster, TTFT, request.cls, time_to_first(cluster, slot), token)
        else:
            record_own_gap(cluster, slot, token, cluster.gpu[g].chunk > 0 or request.last < cluster.gpu[g].start)
        slot = request.previous
    cluster.gpu[g].joining = 0


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
        give_prompt_back(cluster, g, slot)
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
        push_front(cluster, gpu_line(cluster, g, FETCHING), slot)
    else:
        lose_slot(cluster, g, slot)
    return delay
