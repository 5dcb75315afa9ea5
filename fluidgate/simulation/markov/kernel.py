"""The Markov kernel: the network of [LDHZ] section 2, GPU by GPU, event by event.

The decisions are those of `fluidgate.policies.decisions`, asked by its protocol.
"""

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.compiled.random import exponential, uniform
from fluidgate.policies.decisions import moves, stages
from fluidgate.policies.decisions.board import FAULT, update_ready
from fluidgate.policies.decisions.limits import next_release, pass_time
from fluidgate.simulation import events, pauses
from fluidgate.simulation.markov.members import add, member, remove
from fluidgate.simulation.markov.network import (
    CURSOR,
    CUTS_MADE,
    DECODE_SERVICE,
    DECODE_WAIT,
    FREE_NODE,
    IN_WINDOW,
    NEXT_ARRIVAL,
    NEXT_CUT,
    NEXT_SAMPLE,
    NONE,
    NOW,
    SAMPLES_TAKEN,
    TOTAL_EVENTS,
    TTFT,
    Network,
)


@inlined
def advance(net, tables, budget):
    """Run up to `budget` events, or to the horizon; returns a word of `pauses`.

    Args:
        net: Network.
        tables: Tables of the policy.
    """
    board = net.board
    for _ in range(budget):
        if net.tally[FREE_NODE] == NONE:
            return pauses.FULL
        if np.isnan(net.clock[NEXT_ARRIVAL]):
            if net.tally[CURSOR] == net.arrivals.size:
                return pauses.BLOCK_READ
            net.clock[NEXT_ARRIVAL] = net.clock[NOW] + net.arrivals[net.tally[CURSOR]].gap
        total = total_rate(net)
        epoch = net.clock[NOW] + exponential(net.services) / total if total > 0.0 else np.inf
        is_arrival = net.clock[NEXT_ARRIVAL] <= epoch
        if is_arrival:
            epoch = net.clock[NEXT_ARRIVAL]
        release = next_release(board.state, tables)
        if not move_clock(net, min(epoch, release)):
            return pauses.DONE
        pass_time(board.state, tables, net.clock[NOW])
        if release < epoch:  # what may happen next is drawn anew: nothing remembers
            start_all(net, tables)
            if board.round[FAULT] != 0:
                return pauses.FAILED
            continue

        stop = NONE
        if is_arrival:
            arrive(net)
        else:
            stop = transition(net, tables, total)
        start_all(net, tables)
        if stop != NONE and board.gpu[stop].mixed == 1 and board.gpu[stop].prefill_seat == NONE:
            change_mode(net, stop)

        net.tally[TOTAL_EVENTS] += 1
        if board.round[FAULT] != 0:
            return pauses.FAILED
    return pauses.PAUSED


@inlined
def total_rate(net: Network) -> float:
    total = 0.0
    for stage in range(stages.STAGES):
        for i in range(net.counts.shape[1]):
            total += net.rates[stage, i] * net.counts[stage, i]
    return total


@inlined
def move_clock(net: Network, epoch: float) -> bool:
    """Move to `epoch`, sampling, opening and cutting the window on the way; False if the horizon comes first."""
    end = min(epoch, net.horizon)
    while net.clock[NEXT_SAMPLE] <= end and net.tally[SAMPLES_TAKEN] < len(net.samples):
        take_sample(net)
    if net.tally[IN_WINDOW] == 0 and end > net.warmup:
        open_window(net)
    while net.clock[NEXT_CUT] <= end and net.tally[CUTS_MADE] < len(net.cut_events):
        cut(net)
    net.clock[NOW] = end
    return epoch <= net.horizon


@called
def take_sample(net: Network) -> None:
    taken = net.tally[SAMPLES_TAKEN]
    for stage in range(stages.STAGES):
        for i in range(net.counts.shape[1]):
            net.samples[taken, stage, i] = net.counts[stage, i]
    net.tally[SAMPLES_TAKEN] = taken + 1
    net.clock[NEXT_SAMPLE] = (taken + 1) * net.sample_interval


@called
def cut(net: Network) -> None:
    """Keep what has happened since warm-up: the end of a batch."""
    made = net.tally[CUTS_MADE]
    since_warmup = net.clock[NEXT_CUT] - net.warmup
    for stage in range(stages.STAGES):
        for i in range(net.counts.shape[1]):
            net.cut_area[made, stage, i] = net.area[stage, i] + net.counts[stage, i] * since_warmup
    for event in range(events.IN_MARKOV):
        for i in range(net.counts.shape[1]):
            net.cut_events[made, event, i] = net.events[event, i]
    net.tally[CUTS_MADE] = made + 1
    net.clock[NEXT_CUT] = net.warmup + (made + 2) * net.cut_interval


@called
def open_window(net: Network) -> None:
    net.tally[IN_WINDOW] = 1
    net.area.fill(0.0)
    net.events.fill(0)
    net.seconds.fill(0.0)
    for stage in range(stages.STAGES):
        for i in range(net.counts.shape[1]):
            net.base[stage, i] = net.counts[stage, i]


@inlined
def arrive(net):
    draw = net.arrivals[net.tally[CURSOR]].mark
    net.tally[CURSOR] += 1
    net.clock[NEXT_ARRIVAL] = np.nan
    cls = 0
    while cls < len(net.class_edges) - 1 and draw >= net.class_edges[cls]:
        cls += 1
    net.events[events.ARRIVAL, cls] += 1
    join_queue(net, stages.PREFILL_QUEUE, cls)


@inlined
def transition(net, tables, total):
    """Draw the next completion or abandonment by rate and carry it out; the GPU whose prefill ended, or NONE."""
    rest = uniform(net.services) * total
    stage = stages.STAGES - 1
    cls = net.counts.shape[1] - 1
    found = False
    for s in range(stages.STAGES - 1, -1, -1):  # the most frequent last stages first
        for i in range(net.counts.shape[1]):
            weight = net.rates[s, i] * net.counts[s, i]
            if weight > 0.0:
                stage, cls = s, i
                found = rest < weight
                if found:
                    break
                rest -= weight
        if found:
            break
    k = int(rest / net.rates[stage, cls]) if found else net.counts[stage, cls] - 1
    place = member(net, stage, cls, min(k, net.counts[stage, cls] - 1))

    if stage == stages.PREFILL_QUEUE:
        net.events[events.PREFILL_ABANDONMENT, cls] += 1
        leave_queue(net, stage, cls, place)
    elif stage < stages.PREFILL:
        net.events[events.DECODE_ABANDONMENT, cls] += 1
        leave_queue(net, stage, cls, place)
    elif stage == stages.PREFILL:
        end_prefill(net, tables, cls, place)
        return place // net.batch_size
    else:
        net.events[events.DECODE_END, cls] += 1
        net.seconds[DECODE_SERVICE, cls] += net.clock[NOW] - net.seats[place].since
        remove(net, stage, cls, place)
        free_seat(net, place)
    return NONE


@inlined
def end_prefill(net, tables, cls, seat):
    """The prefill in `seat` ends: its decode goes where the policy routes it."""
    now = net.clock[NOW]
    net.events[events.PREFILL_END, cls] += 1
    net.seconds[TTFT, cls] += now - net.seats[seat].since
    gpu = seat // net.batch_size
    remove(net, stages.PREFILL, cls, seat)
    net.gpu[gpu].prefill_seat = NONE
    free_seat(net, seat)
    where = moves.place_decode(net.board, tables, cls, gpu)
    if where >= 0:
        start_decode(net, cls, where)
    else:
        join_queue(net, stages.MIXED_QUEUE - 1 - where, cls)


@inlined
def start_all(net, tables):
    """Let start who may start after an event."""
    moves.open_round(net.board)
    while True:
        kind, cls, gpu = moves.next_start(net.board, tables)
        if kind == moves.NOBODY:
            return
        if kind == moves.NEW_PREFILL:
            start_prefill(net, cls, gpu)
        else:
            queue = stages.MIXED_QUEUE + kind
            node = net.head[queue, cls]
            net.seconds[DECODE_WAIT, cls] += net.clock[NOW] - net.nodes[node].since
            leave_queue(net, queue, cls, node)
            start_decode(net, cls, gpu)


@inlined
def start_prefill(net, cls, gpu):
    """The oldest of the class that waits starts its prefill."""
    node = net.head[stages.PREFILL_QUEUE, cls]
    since = net.nodes[node].since
    leave_queue(net, stages.PREFILL_QUEUE, cls, node)
    seat = take_seat(net, gpu, cls, since)
    net.gpu[gpu].prefill_seat = seat
    add(net, stages.PREFILL, cls, seat)
    net.events[events.PREFILL_START, cls] += 1
    if net.gpu[gpu].mixed == 0:
        change_mode(net, gpu)
    update_ready(net.board, gpu)


@inlined
def start_decode(net: Network, cls: int, gpu: int) -> None:
    seat = take_seat(net, gpu, cls, net.clock[NOW])
    add(net, stages.MIXED_DECODE if net.gpu[gpu].mixed == 1 else stages.SOLO_DECODE, cls, seat)
    net.events[events.DECODE_START, cls] += 1
    update_ready(net.board, gpu)


@called
def change_mode(net: Network, gpu: int) -> None:
    """Turn the decodes of `gpu` from solo to mixed or back, [LDHZ] (10)."""
    old, new = (
        (stages.MIXED_DECODE, stages.SOLO_DECODE)
        if net.gpu[gpu].mixed == 1
        else (stages.SOLO_DECODE, stages.MIXED_DECODE)
    )
    net.gpu[gpu].mixed = 1 - net.gpu[gpu].mixed
    first = gpu * net.batch_size
    for seat in range(first, first + net.batch_size):
        cls = net.seats[seat].cls
        if cls != NONE and seat != net.gpu[gpu].prefill_seat:
            remove(net, old, cls, seat)
            add(net, new, cls, seat)


@inlined
def take_seat(net: Network, gpu: int, cls: int, since: float) -> int:
    seat = net.gpu[gpu].free_seat
    net.gpu[gpu].free_seat = net.seats[seat].position
    net.gpu[gpu].occupied += 1
    net.seats[seat].cls = cls
    net.seats[seat].since = since
    return seat


@inlined
def free_seat(net: Network, seat: int) -> None:
    gpu = seat // net.batch_size
    net.seats[seat].cls = NONE
    net.seats[seat].position = net.gpu[gpu].free_seat
    net.gpu[gpu].free_seat = seat
    net.gpu[gpu].occupied -= 1
    update_ready(net.board, gpu)


@inlined
def join_queue(net: Network, queue: int, cls: int) -> None:
    """A request joins the end of a queue now."""
    node = net.tally[FREE_NODE]
    net.tally[FREE_NODE] = net.nodes[node].next
    last = net.tail[queue, cls]
    net.nodes[node].since = net.clock[NOW]
    net.nodes[node].cls = cls
    net.nodes[node].next = NONE
    net.nodes[node].previous = last
    net.tail[queue, cls] = node
    if last == NONE:
        net.head[queue, cls] = node
        net.since[queue, cls] = net.clock[NOW]
    else:
        net.nodes[last].next = node
    add(net, queue, cls, node)


@inlined
def leave_queue(net: Network, queue: int, cls: int, node: int) -> None:
    """A request leaves a queue, wherever it stands in it."""
    remove(net, queue, cls, node)
    before, after = net.nodes[node].previous, net.nodes[node].next
    if after == NONE:
        net.tail[queue, cls] = before
    else:
        net.nodes[after].previous = before
    if before == NONE:
        net.head[queue, cls] = after
        net.since[queue, cls] = np.inf if after == NONE else net.nodes[after].since
    else:
        net.nodes[before].next = after
    net.nodes[node].next = net.tally[FREE_NODE]
    net.tally[FREE_NODE] = node
