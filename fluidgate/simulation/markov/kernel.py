"""The Markov kernel: the network of [LDHZ] section 2, GPU by GPU, event by event.

The decisions are arguments: `gate`, `route` and `refill` of `fluidgate.policies`, or a user's own. `audit` is called
after every event; the release build passes one that does nothing.
"""

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.ready import drawn_gpu, update_ready
from fluidgate.policies.decisions.view import HOLD, MIXED, SOLO, STAY, WAIT, View
from fluidgate.simulation.markov.members import add, member, remove
from fluidgate.simulation.markov.network import (
    ARRIVAL,
    AUDIT_CODE,
    BAD_GATE,
    BAD_REFILL,
    BAD_ROUTE,
    CUTS_MADE,
    DECODE_ABANDONMENT,
    DECODE_END,
    DECODE_SERVICE,
    DECODE_START,
    DECODE_WAIT,
    EVENTS,
    FREE_NODE,
    IN_WINDOW,
    MIXED_DECODE,
    MIXED_QUEUE,
    NEXT_ARRIVAL,
    NEXT_CUT,
    NEXT_SAMPLE,
    NONE,
    NOW,
    PREFILL,
    PREFILL_ABANDONMENT,
    PREFILL_END,
    PREFILL_QUEUE,
    PREFILL_START,
    SAMPLES_TAKEN,
    SOLO_DECODE,
    SOLO_QUEUE,
    STAGES,
    TOTAL_EVENTS,
    TTFT,
    Network,
)

DONE = 0  # the horizon is reached
PAUSED = 1  # the budget of events is spent
FULL = 2  # no node is free: make more and go on
FAILED = 3  # the audit found a broken invariant


@inlined
def advance(net, tables, gate, route, refill, audit, arrivals, services, placements, budget):
    """Run up to `budget` events, or to the horizon; returns DONE, PAUSED, FULL or FAILED.

    Args:
        net: Network.
        tables: Tables of the policy.
        gate, route, refill: decision functions.
        audit: called after each event, `audit(net, tables) -> 0` if all is well.
        arrivals, services, placements: numpy Generators, one stream each.
    """
    view = View(
        net.gpus,
        net.batch_size,
        net.counts[PREFILL_QUEUE],
        net.counts[PREFILL],
        net.counts[MIXED_QUEUE : SOLO_QUEUE + 1],
        net.counts[MIXED_DECODE],
        net.counts[SOLO_DECODE],
        net.since[PREFILL_QUEUE],
        net.since[MIXED_QUEUE : SOLO_QUEUE + 1],
        net.free,
        net.startable,
        net.beside,
    )
    if np.isnan(net.clock[NEXT_ARRIVAL]):
        net.clock[NEXT_ARRIVAL] = gap(net, arrivals)
    for _ in range(budget):
        if net.tally[FREE_NODE] == NONE:
            return FULL
        total = total_rate(net)
        epoch = net.clock[NOW] + services.standard_exponential() / total if total > 0.0 else np.inf
        is_arrival = net.clock[NEXT_ARRIVAL] <= epoch
        if is_arrival:
            epoch = net.clock[NEXT_ARRIVAL]
        if not move_clock(net, epoch):
            return DONE

        if is_arrival:
            stop = NONE
            arrive(net, arrivals)
        else:
            stop = transition(net, view, tables, route, total, services, placements)
        start_prefills(net, view, tables, gate, placements)
        fill_decodes(net, view, tables, refill, placements)
        if stop != NONE and net.gpu[stop].mixed == 1 and net.gpu[stop].prefill_seat == NONE:
            change_mode(net, stop)

        net.tally[TOTAL_EVENTS] += 1
        if net.tally[AUDIT_CODE] == 0:
            net.tally[AUDIT_CODE] = audit(net, tables)
        if net.tally[AUDIT_CODE] != 0:
            return FAILED
    return PAUSED


@inlined
def total_rate(net: Network) -> float:
    total = 0.0
    for stage in range(STAGES):
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
    for stage in range(STAGES):
        for i in range(net.counts.shape[1]):
            net.samples[taken, stage, i] = net.counts[stage, i]
    net.tally[SAMPLES_TAKEN] = taken + 1
    net.clock[NEXT_SAMPLE] = (taken + 1) * net.sample_interval


@called
def cut(net: Network) -> None:
    """Keep what has happened since warm-up: the end of a batch."""
    made = net.tally[CUTS_MADE]
    since_warmup = net.clock[NEXT_CUT] - net.warmup
    for stage in range(STAGES):
        for i in range(net.counts.shape[1]):
            net.cut_area[made, stage, i] = net.area[stage, i] + net.counts[stage, i] * since_warmup
    for event in range(EVENTS):
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
    for stage in range(STAGES):
        for i in range(net.counts.shape[1]):
            net.base[stage, i] = net.counts[stage, i]


@inlined
def gap(net, arrivals):
    """Seconds to the next arrival of any class: exponential, or Gamma with the same mean."""
    if net.gap_shape == 1.0:
        return arrivals.standard_exponential() / net.arrival_rate
    return arrivals.standard_gamma(net.gap_shape) / (net.gap_shape * net.arrival_rate)


@inlined
def arrive(net, arrivals):
    draw = arrivals.random()
    cls = 0
    while cls < len(net.class_edges) - 1 and draw >= net.class_edges[cls]:
        cls += 1
    net.clock[NEXT_ARRIVAL] = net.clock[NOW] + gap(net, arrivals)
    net.events[ARRIVAL, cls] += 1
    join_queue(net, PREFILL_QUEUE, cls)


@inlined
def transition(net, view, tables, route, total, services, placements):
    """Draw the next completion or abandonment by rate and carry it out; the GPU whose prefill ended, or NONE."""
    rest = services.random() * total
    stage = STAGES - 1
    cls = net.counts.shape[1] - 1
    found = False
    for s in range(STAGES - 1, -1, -1):  # the most frequent last stages first
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
    who = member(net, stage, cls, min(k, net.counts[stage, cls] - 1))

    if stage == PREFILL_QUEUE:
        net.events[PREFILL_ABANDONMENT, cls] += 1
        leave_queue(net, stage, cls, who)
    elif stage < PREFILL:
        net.events[DECODE_ABANDONMENT, cls] += 1
        leave_queue(net, stage, cls, who)
    elif stage == PREFILL:
        end_prefill(net, view, tables, route, cls, who, placements)
        return who // net.batch_size
    else:
        net.events[DECODE_END, cls] += 1
        net.seconds[DECODE_SERVICE, cls] += net.clock[NOW] - net.seats[who].since
        remove(net, stage, cls, who)
        free_seat(net, who)
    return NONE


@inlined
def end_prefill(net, view, tables, route, cls, seat, placements):
    """The prefill in `seat` ends: its decode goes where the policy routes it."""
    now = net.clock[NOW]
    net.events[PREFILL_END, cls] += 1
    net.seconds[TTFT, cls] += now - net.seats[seat].since
    gpu = seat // net.batch_size
    remove(net, PREFILL, cls, seat)
    net.gpu[gpu].prefill_seat = NONE
    free_seat(net, seat)
    where = route(view, tables, cls, placements.random())
    if where < MIXED or where > WAIT + SOLO:
        net.tally[AUDIT_CODE] = BAD_ROUTE
        where = WAIT
    if where == STAY and net.gpu[gpu].decode_position != NONE:
        start_decode(net, cls, gpu)
    elif where < STAY and view.free[where] > 0:
        start_decode(net, cls, drawn_gpu(net, tables, where, placements))
    else:
        buffer = where - WAIT if where >= WAIT else 0
        join_queue(net, MIXED_QUEUE + buffer, cls)


@inlined
def start_prefills(net, view, tables, gate, placements):
    """Start prefills while the gate names a class and a GPU can take it, each GPU drawn uniformly."""
    while net.startable[0] > 0 and view.waiting.sum() > 0:
        cls = gate(view, tables)
        if cls == HOLD:
            return
        if cls < 0 or cls >= len(view.waiting) or view.waiting[cls] == 0:
            net.tally[AUDIT_CODE] = BAD_GATE
            return
        node = net.head[PREFILL_QUEUE, cls]
        since = net.nodes[node].since
        leave_queue(net, PREFILL_QUEUE, cls, node)
        gpu = net.prefill_ready[int(placements.random() * net.startable[0])]
        seat = take_seat(net, gpu, cls, since)
        net.gpu[gpu].prefill_seat = seat
        add(net, PREFILL, cls, seat)
        net.events[PREFILL_START, cls] += 1
        if net.gpu[gpu].mixed == 0:
            change_mode(net, gpu)
        update_ready(net, gpu)


@inlined
def fill_decodes(net, view, tables, refill, placements):
    """Give free decode slots to buffered requests, the solo group first."""
    for group in (SOLO, MIXED):
        queue = MIXED_QUEUE + (group if tables.split_buffers else 0)
        while net.free[group] > 0 and net.counts[queue].sum() > 0:
            cls = refill(view, tables, group, placements.random())
            if cls == HOLD:
                break
            if cls < 0 or cls >= len(view.waiting) or net.counts[queue, cls] == 0:
                net.tally[AUDIT_CODE] = BAD_REFILL
                return
            node = net.head[queue, cls]
            net.seconds[DECODE_WAIT, cls] += net.clock[NOW] - net.nodes[node].since
            leave_queue(net, queue, cls, node)
            start_decode(net, cls, drawn_gpu(net, tables, group, placements))


@inlined
def start_decode(net: Network, cls: int, gpu: int) -> None:
    seat = take_seat(net, gpu, cls, net.clock[NOW])
    add(net, MIXED_DECODE if net.gpu[gpu].mixed == 1 else SOLO_DECODE, cls, seat)
    net.events[DECODE_START, cls] += 1
    update_ready(net, gpu)


@called
def change_mode(net: Network, gpu: int) -> None:
    """Turn the decodes of `gpu` from solo to mixed or back, [LDHZ] (10)."""
    old, new = (MIXED_DECODE, SOLO_DECODE) if net.gpu[gpu].mixed == 1 else (SOLO_DECODE, MIXED_DECODE)
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
    update_ready(net, gpu)


@called
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


@called
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
