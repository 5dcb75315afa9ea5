"""GPUs that fail, take nothing new, and come back; and what becomes of the requests on one that fails.

The run pauses for it, when all else of the epoch is over. The iteration under way is lost, and all KV. What a request
has written is with its client: it is read again with that, somewhere else. Under a policy it is the next of its class;
else it is placed anew, in order of arrival.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE, move_to_group, update_ready
from fluidgate.policies.decisions.placement import asks_for_reuse, place, set_up, show
from fluidgate.policies.decisions.tables import Placement
from fluidgate.policies.decisions.view import MIXED, SOLO
from fluidgate.simulation import events
from fluidgate.simulation.iteration.kernel.batch import set_mode, unseat
from fluidgate.simulation.iteration.kernel.cluster import (
    ACCUMULATING,
    ASKED,
    ASSIGNED,
    BARRED,
    CHANGED,
    COMPOSER,
    FETCHING,
    ITERATIONS,
    LATE,
    LINES,
    NOW,
    OUT,
    READING,
    SLOT_MASK,
    TURN,
    WAITING,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.handover import let_go, turn_back
from fluidgate.simulation.iteration.kernel.lines import (
    accumulating_line,
    front_line,
    gpu_line,
    policy_line,
    push_front,
    unlink,
)
from fluidgate.simulation.iteration.kernel.pace import segment_ends
from fluidgate.simulation.iteration.kernel.placed import accumulate, show_queues, wait
from fluidgate.simulation.iteration.kernel.pools import change_load
from fluidgate.simulation.iteration.kernel.prefixes import clear, expect
from fluidgate.simulation.iteration.kernel.ranks import rank_of_group
from fluidgate.simulation.iteration.kernel.record import count, record_part, take_back, time_to_first
from fluidgate.simulation.iteration.kernel.reuse import look_for, to_read_on
from fluidgate.simulation.iteration.kernel.seats import free_slot, recall, wait_no_more
from fluidgate.simulation.iteration.kernel.segment import first_end, set_epoch
from fluidgate.simulation.iteration.kernel.timers import stop_timer
from fluidgate.simulation.iteration.kernel.users import OTHERS
from fluidgate.simulation.iteration.law import span
from fluidgate.simulation.iteration.times import GAP, STALL, TTFT

PRECISE = int(Placement.PRECISE)

# What is asked of `move`.
NOTHING = 0
CLOSE = 1  # the GPU takes nothing new
OPEN = 2  # it does again
FAIL = 3  # it has failed, and is closed already
SETTLE = 4  # who was on those that failed goes elsewhere; to be asked after all of an epoch
FORGET = 5  # what the GPU has kept of prompts is lost; it is closed, and nobody is on it


@called
def move(cluster, kind, g):
    """One change of the fleet."""
    if kind == CLOSE:
        close(cluster, g)
    elif kind == OPEN:
        open_up(cluster, g)
    elif kind == FAIL:
        fail(cluster, g)
    elif kind == FORGET and cluster.set.caching:
        clear(cluster, g)
    elif kind == SETTLE:
        settle(cluster)


@called
def close(cluster: Cluster, g: int) -> None:
    """All slots of `g` count as taken, beside those that are."""
    here = cluster.gpu[g]
    if not cluster.set.by_policy and not cluster.set.gated:
        size = cluster.set.keys.data_parallel
        if g % size == 0:
            set_up(cluster.loads, g // size, 0)
        return
    here.leaving = 0
    here.crowded = 0
    here.occupied += cluster.batch_size
    update_ready(cluster.board, g)
    move_to_group(cluster.board, g, OUT)


@called
def open_up(cluster: Cluster, g: int) -> None:
    here = cluster.gpu[g]
    if not cluster.set.by_policy and not cluster.set.gated:
        size = cluster.set.keys.data_parallel
        if g % size == 0:
            set_up(cluster.loads, g // size, 1)
        return
    here.group = MIXED if cluster.set.gated or here.prefill_seat != NOWHERE else SOLO
    here.occupied -= cluster.batch_size
    update_ready(cluster.board, g)


@called
def fail(cluster: Cluster, g: int) -> None:
    if cluster.gpu[g].busy == 1:
        break_off(cluster, g)
    bring_up_to_date(cluster, g)
    if cluster.set.caching:
        clear(cluster, g)
    if cluster.set.by_policy:
        lose_assigned(cluster, g)
    else:
        lose_placed(cluster, g)
    wipe(cluster, g)


@called
def break_off(cluster: Cluster, g: int) -> None:
    """The segment under way on `g` ends with the iterations that are over."""
    here = cluster.gpu[g]
    k = record_part(cluster, g)
    here.length = k
    segment_ends(cluster, g)
    cluster.tally[ITERATIONS] += k
    if here.batch == here.decodes and k == 0:
        take_back_tokens(cluster, g)
    elif here.batch == here.decodes:
        here.iteration += k
        here.last_token = here.origin + span(here.first, here.step, k)
    here.busy = 0


@called
def take_back_tokens(cluster: Cluster, g: int) -> None:
    """The tokens that were to come with the first iteration of the segment, and were noted when it began, do not."""
    here = cluster.gpu[g]
    token = first_end(cluster, g)
    for k in range(here.decodes):
        slot = cluster.heaps[g, k] & SLOT_MASK
        request = cluster.live[slot]
        if request.joined != here.iteration:
            continue
        if cluster.set.by_policy and request.produced == 0:
            take_back(cluster, TTFT, request.cls, time_to_first(cluster, slot), token)
            request.first = np.nan
        elif cluster.set.by_policy or not cluster.set.joins_at_once or request.last < here.start:
            take_back(cluster, GAP, request.cls, token - request.last, token)
            if here.chunk > 0 or request.last < here.start:
                take_back(cluster, STALL, request.cls, token - request.last, token)


@called
def bring_up_to_date(cluster: Cluster, g: int) -> None:
    """The decodes in the batch of `g` have written what they have."""
    here = cluster.gpu[g]
    for k in range(here.decodes):
        request = cluster.live[cluster.heaps[g, k] & SLOT_MASK]
        grown = here.iteration - request.joined
        if grown > 0:
            request.last = here.last_token
        request.produced += grown
        request.joined = here.iteration


@called
def lose_placed(cluster: Cluster, g: int) -> None:
    """Who is on `g`, a GPU that forms its own batches, has to go elsewhere."""
    for k in range(cluster.gpu[g].decodes):
        slot = cluster.heaps[g, k] & SLOT_MASK
        unseat(cluster, g, cluster.live[slot].cls)
        leave_placed(cluster, g, slot, events.DECODE_LOSS)
    line = gpu_line(cluster, g, READING)
    while cluster.lines[line].members > 0:
        slot = cluster.lines[line].head
        unlink(cluster, line, slot)
        count(cluster, stages.PREFILL, cluster.live[slot].cls, -1)
        leave_placed(cluster, g, slot, events.PREFILL_LOSS)
    empty_line(cluster, g, gpu_line(cluster, g, WAITING))
    for i in range(cluster.batch.shape[2]):
        if cluster.set.accumulate:
            empty_line(cluster, g, accumulating_line(cluster, g, i))
        if cluster.set.gated:
            cluster.board.state.prefilling[i] -= cluster.batch[g, ASSIGNED, i]


@called
def empty_line(cluster: Cluster, g: int, line: int) -> None:
    while cluster.lines[line].members > 0:
        slot = cluster.lines[line].head
        request = cluster.live[slot]
        unlink(cluster, line, slot)
        if request.accumulating == 1:
            request.accumulating = 0
            cluster.tally[ACCUMULATING] -= 1
        count(cluster, stages.PREFILL_QUEUE, request.cls, -1)
        leave_placed(cluster, g, slot, events.WAITING_LOSS)


@inlined
def leave_placed(cluster: Cluster, g: int, slot: int, event: int) -> None:
    change_load(cluster, g, -1, -cluster.live[slot].loaded)
    lose(cluster, slot, event)


@called
def lose_assigned(cluster: Cluster, g: int) -> None:
    """Who has a slot of `g`, or KV there, has to be decided anew."""
    slot = next_lost(cluster, g, NOWHERE)
    while slot != NOWHERE:
        number = cluster.live[slot].number
        if cluster.live[slot].stage == stages.PREFILL:
            count(cluster, stages.PREFILL, cluster.live[slot].cls, -1)
            lose(cluster, slot, events.PREFILL_LOSS)
        else:
            if cluster.live[slot].stage < stages.PREFILL:
                wait_no_more(cluster, slot)
                cluster.live[slot].kept = NOWHERE
                cluster.events[events.DECODE_START, cluster.live[slot].cls] += 1
            else:
                leave_slot(cluster, g, slot)
            lose(cluster, slot, events.DECODE_LOSS)
        slot = next_lost(cluster, g, number)


@called
def next_lost(cluster: Cluster, g: int, after: int) -> int:
    """The first after the number `after` that is lost with `g`; NOWHERE if there is none."""
    found = NOWHERE
    for slot in range(len(cluster.live)):
        request = cluster.live[slot]
        if request.stage <= stages.PREFILL_QUEUE or request.number <= after:
            continue
        if found != NOWHERE and cluster.live[found].number < request.number:
            continue
        buffered = request.stage < stages.PREFILL
        if (not buffered and request.gpu == g) or (has_kv_elsewhere(cluster, slot) and request.prefill_gpu == g):
            found = slot
    return found


@inlined
def has_kv_elsewhere(cluster: Cluster, slot: int) -> bool:
    """Whether the KV of a decode is where its prompt was read, or on its way from there."""
    request = cluster.live[slot]
    if request.stage == stages.PREFILL:
        return False
    return bool(request.stage < stages.PREFILL or request.kept != NOWHERE or request.timer_position != NOWHERE)


@called
def leave_slot(cluster: Cluster, g: int, slot: int) -> None:
    """A decode gives up its slot as `g` fails, and what other GPUs hold for it."""
    request = cluster.live[slot]
    there, home = request.gpu, request.kept
    coming = request.timer_position != NOWHERE
    fetching = home != NOWHERE and home != there and not coming
    stop_timer(cluster, slot)
    unseat(cluster, there, request.cls)
    if there != g:
        if fetching:
            unlink(cluster, gpu_line(cluster, there, FETCHING), slot)
        if coming:
            turn_back(cluster, slot)
        free_slot(cluster, there)
        recall(cluster, there)
    elif home != NOWHERE and home != g:
        if coming:
            cluster.gpu[home].moving -= 1
        let_go(cluster, slot)
        recall(cluster, home)


@called
def lose(cluster: Cluster, slot: int, event: int) -> None:
    """A request stands at the front, by number, and is to be read from its beginning, with what it has written."""
    request = cluster.live[slot]
    cluster.events[event, request.cls] += 1
    count(cluster, stages.PREFILL_QUEUE, request.cls, 1)
    request.preemptions += 1
    request.unread = request.prompt + request.produced
    request.stage = stages.PREFILL_QUEUE
    request.gpu = request.kept = NOWHERE
    request.loaded = request.reserved = 0
    line = cluster.lines[front_line(cluster)]
    before = line.tail
    while before != NOWHERE and cluster.live[before].number > request.number:
        before = cluster.live[before].previous
    after = line.head if before == NOWHERE else cluster.live[before].next
    request.previous = before
    request.next = after
    if before == NOWHERE:
        line.head = slot
    else:
        cluster.live[before].next = slot
    if after == NOWHERE:
        line.tail = slot
    else:
        cluster.live[after].previous = slot
    line.members += 1


@called
def wipe(cluster: Cluster, g: int) -> None:
    """Nothing is left on `g`, which stands still."""
    here = cluster.gpu[g]
    set_mode(cluster, g, 0)
    if here.barred == 1 and cluster.set.by_policy:
        cluster.tally[BARRED] -= 1
    if here.booked != NOWHERE:
        cluster.booked[here.booked] -= 1
    here.booked = here.prefill_seat = NOWHERE
    here.occupied = cluster.batch_size
    here.barred = here.reading = here.along = here.joining = here.moving = here.filled = 0
    here.decodes = here.finished = here.chunk = here.batch = here.length = 0
    here.context = here.held = 0
    here.first = here.step = 0.0
    here.origin = cluster.clock[NOW]
    here.blocks = cluster.set.kv_blocks
    here.prepaid = 0
    here.told_after = here.told_waiting = here.told_running = 0
    if not cluster.set.by_policy:
        show(cluster.ranks, g, 0, 0)
    for kind in range(LINES):
        line = cluster.lines[gpu_line(cluster, g, kind)]
        line.head = line.tail = NOWHERE
        line.members = 0
    cluster.growth[g] = 0
    cluster.batch[g] = 0
    set_epoch(cluster, g, np.inf)


@called
def settle(cluster: Cluster) -> None:
    """Who stands at the front goes where it is decided: to a GPU, or in front of its class."""
    cluster.tally[LATE] = 1
    cluster.tally[TURN] = OTHERS
    cluster.tally[COMPOSER] = NOWHERE
    front = front_line(cluster)
    if cluster.set.by_policy or cluster.set.gated:
        while cluster.lines[front].members > 0:
            slot = cluster.lines[front].tail
            unlink(cluster, front, slot)
            queue_again(cluster, slot)
        cluster.tally[ASKED] = 0  # all is decided anew, once the groups are those of the GPUs that are up
        cluster.tally[CHANGED] = 1
        return
    while cluster.lines[front].members > 0 and cluster.loads.ups[0] > 0:
        slot = cluster.lines[front].head
        unlink(cluster, front, slot)
        place_again(cluster, slot)


@inlined
def queue_again(cluster: Cluster, slot: int) -> None:
    """As one that has been preempted it does not leave any more."""
    request = cluster.live[slot]
    stop_timer(cluster, slot)
    request.since = request.arrival
    push_front(cluster, policy_line(cluster, stages.PREFILL_QUEUE, request.cls), slot)
    cluster.since[stages.PREFILL_QUEUE, request.cls] = request.since


@called
def place_again(cluster: Cluster, slot: int) -> None:
    request = cluster.live[slot]
    if cluster.set.prefixes and asks_for_reuse(cluster.loads):
        look_for(cluster, slot, cluster.set.keys.data_parallel)
    if cluster.set.placement == PRECISE:
        show_queues(cluster)
    g = place(cluster.loads, request.unread, cluster.loads.reuse)
    if cluster.set.keys.data_parallel > 1:
        g = rank_of_group(cluster, g)
    request.gpu = g
    request.prefill_gpu = g
    request.loaded = to_read_on(cluster, g, slot)
    change_load(cluster, g, 1, request.loaded)
    if cluster.set.prefixes:
        expect(cluster, g, slot)
    if cluster.set.accumulate and cluster.thresholds[request.cls] > 1:
        accumulate(cluster, g, slot)
    else:
        wait(cluster, g, slot)
