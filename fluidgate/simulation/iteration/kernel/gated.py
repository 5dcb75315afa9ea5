"""GPUs that form their own batches under a policy: requests wait in its queues until a GPU has room for them.

The gate is asked at arrivals, abandonments and boundaries, before the GPU concerned forms its next batch. A GPU has
room while the prompts that it has been given leave something of the budget of its next iteration, a slot is free, and
the memory that a decode will need is there; once a request is given to a GPU it stays there. While an iteration reads,
its GPU is given none, so that who comes meanwhile is still in the queue when it ends.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.compiled.tournament import winner
from fluidgate.policies.decisions import moves, stages
from fluidgate.policies.decisions.board import FAULT, NOWHERE, WHOLE, update_ready
from fluidgate.policies.decisions.homes import (
    LOOKED_AT,
    best_of_the_rest,
    cheapest,
    claim,
    drop_claims,
    is_slow,
    show,
    turn,
)
from fluidgate.policies.decisions.tables import Tables
from fluidgate.replanning import estimates
from fluidgate.simulation import events, pauses
from fluidgate.simulation.iteration.kernel.cluster import (
    ASSIGNED,
    CHANGED,
    LATE,
    LEFT_PREFILL_QUEUE,
    NOW,
    OUT,
    OVER,
    READING,
    SEATED,
    TOTAL_EVENTS,
    UNTIL,
    WAITING,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.handover import spare_blocks
from fluidgate.simulation.iteration.kernel.lines import gpu_line, policy_line
from fluidgate.simulation.iteration.kernel.live import enter, refused, what_is_missing
from fluidgate.simulation.iteration.kernel.memory import blocks_needed, blocks_of
from fluidgate.simulation.iteration.kernel.placed import end_iterations, start_iterations, wait
from fluidgate.simulation.iteration.kernel.pools import change_load
from fluidgate.simulation.iteration.kernel.prefixes import expect
from fluidgate.simulation.iteration.kernel.record import count, move_clock, retire
from fluidgate.simulation.iteration.kernel.reuse import look_for, to_read_on
from fluidgate.simulation.iteration.kernel.seats import wait_in, wait_no_more
from fluidgate.simulation.iteration.kernel.segment import first_rank
from fluidgate.simulation.iteration.kernel.shelves import next_on_shelves, put_on_shelf, take_from_shelf
from fluidgate.simulation.iteration.kernel.timers import next_timer
from fluidgate.simulation.iteration.kernel.users import (
    goes_on,
    hold_back,
    is_answer,
    next_arrival,
    next_request,
    take_turn,
)
from fluidgate.simulation.iteration.law import ENDLESS

BOOKED = 8
"""One GPU of so many is booked at a time, or one of them all."""

PASSED = 16
"""Of those of a class who wait longest, so many are looked at for one that fits."""


@inlined
def advance(cluster, law, tables, compose, block, budget):
    """Run up to `budget` events; returns a word of `pauses`.

    At one epoch arrivals come first, then the boundaries of GPUs, then abandonments, in order of arrival, then what is
    sent in answer, then a change of tables. It pauses when all events up to `clock[UNTIL]` are over.

    Args:
        cluster: Cluster.
        law: Law.
        tables: Tables of the policy.
        compose: forms the next batch of a GPU: `compose(cluster, law, g, latest)`, see `batching`.
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
        arrival = hold_back(cluster, next_arrival(cluster, block), min(boundary, timer))
        epoch = min(arrival, boundary, timer)
        if tally[CHANGED] == 1:
            epoch = cluster.clock[NOW]
        elif epoch > cluster.clock[UNTIL] and goes_on(cluster, epoch):
            move_clock(cluster, cluster.clock[UNTIL])
            return pauses.REACHED
        arrives = arrival <= epoch and tally[CHANGED] == 0
        take_turn(cluster, epoch, arrives)
        if epoch > cluster.clock[NOW]:
            tally[OVER] = 0
        if not move_clock(cluster, epoch):
            return pauses.DONE
        tally[LATE] = 1 if (is_answer(cluster) if arrives else boundary > epoch) else 0
        if tally[CHANGED] == 1:
            tally[CHANGED] = 0
            tally[LATE] = 1
            look_again(cluster, tables)
            start_all(cluster, tables)
        elif arrives:
            arrive(cluster, tables, next_request(cluster, block))
            start_all(cluster, tables)
        elif boundary <= epoch:
            latest = end_iterations(cluster, g)
            first = first_rank(cluster, g)
            for r in range(first, first + cluster.set.keys.data_parallel):
                look_over(cluster, tables, r)
            tally[OVER] = max(tally[OVER], first)
            start_all(cluster, tables)
            for r in range(first, first + cluster.set.keys.data_parallel):
                compose(cluster, law, r, latest)
                look_over(cluster, tables, r)
            start_iterations(cluster, g)
        else:
            abandon(cluster, cluster.timers[0])
            start_all(cluster, tables)
        tally[TOTAL_EVENTS] += 1
        if cluster.board.round[FAULT] != 0:
            return pauses.FAILED
    return pauses.PAUSED


@inlined
def arrive(cluster, tables, arriving):
    slot = enter(cluster, arriving)
    if len(cluster.estimates) > 0:
        estimates.arrived(cluster.estimates, arriving.cls, cluster.clock[NOW])
    if not refused(cluster, slot):
        wait_in(cluster, stages.PREFILL_QUEUE, slot)
        if len(cluster.shelves) > 0:
            put_on_shelf(cluster, slot, tables.priority[arriving.cls] > 0.0)


@called
def look_again(cluster: Cluster, tables: Tables) -> None:
    """Tables, or the GPUs that are up, have changed: who stands in front of its class again is found there."""
    if len(cluster.shelves) > 0:
        for i in range(cluster.counts.shape[1]):
            slot = cluster.lines[policy_line(cluster, stages.PREFILL_QUEUE, i)].head
            while slot != NOWHERE and cluster.live[slot].shelf == NOWHERE:
                put_on_shelf(cluster, slot, tables.priority[i] > 0.0)
                slot = cluster.live[slot].next
    if moves.decides_at_home(cluster.board, tables):
        for g in range(cluster.gpus):
            look_over(cluster, tables, g)


@called
def abandon(cluster: Cluster, slot: int) -> None:
    """The patience of a request in the policy's queue is at its end."""
    request = cluster.live[slot]
    wait_no_more(cluster, slot)
    take_from_shelf(cluster, slot)
    if len(cluster.estimates) > 0:
        estimates.left(cluster.estimates, request.cls)
    cluster.events[events.PREFILL_ABANDONMENT, request.cls] += 1
    retire(cluster, slot, LEFT_PREFILL_QUEUE)


@inlined
def start_all(cluster, tables):
    """Give requests to GPUs while the gate names a class and a GPU has room.

    Where the memory for the oldest of that class is nowhere, it books the GPU that has most: nobody takes from it what
    is to be its own. Few GPUs are booked at a time, since memory lies idle there; on others the next of its class goes
    past it. Other classes don't: the gate has named this one.
    """
    if moves.decides_at_home(cluster.board, tables):
        start_at_home(cluster, tables)
        return
    waiting = cluster.board.state.waiting
    for i in range(waiting.size):
        members = cluster.lines[policy_line(cluster, stages.PREFILL_QUEUE, i)].members
        waiting[i] = max(0, members - cluster.booked[i])
    moves.open_round(cluster.board)
    while True:
        kind, cls, g = moves.next_start(cluster.board, tables)
        if kind != moves.NEW_PREFILL:
            return
        slot = first_that_fits(cluster, tables, g, cls)
        if slot != NOWHERE:
            assign(cluster, tables, g, slot)
        elif may_book(cluster):
            book(cluster, g, cls)
        else:
            return


@called
def start_at_home(cluster: Cluster, tables: Tables) -> None:
    """Give requests to GPUs where they cost least, in turn; who has no room there keeps those after it out.

    Of a class with an index those are looked at first who have least to read; of another the oldest.
    """
    for i in range(cluster.counts.shape[1]):
        cluster.turns[i] = next_on_shelves(cluster, i, 0)
        cluster.looked_at[i] = 0
    while True:
        slot = whose_turn(cluster, tables)
        if slot == NOWHERE:
            break
        request = cluster.live[slot]
        after = request.shelf_next
        cluster.turns[request.cls] = (
            after if after != NOWHERE else next_on_shelves(cluster, request.cls, request.shelf + 1)
        )
        cluster.looked_at[request.cls] += 1
        home = home_of(cluster, tables, slot)
        if home == NOWHERE:
            continue
        if has_room(cluster, tables, home, slot):
            assign(cluster, tables, home, slot)
        else:
            claim(cluster.places, tables, home, request.prompt, request.prompt - to_read_on(cluster, home, slot))
    drop_claims(cluster.places, tables)


@inlined
def whose_turn(cluster, tables):
    """Of the next of each class the one that is asked first, NOWHERE when all have been asked."""
    best = NOWHERE
    most = 0.0
    for i in range(cluster.counts.shape[1]):
        slot = cluster.turns[i]
        if slot != NOWHERE and cluster.looked_at[i] < LOOKED_AT:
            request = cluster.live[slot]
            its = turn(tables, i, request.prompt, request.found, request.arrival)
            if best == NOWHERE or its > most:
                best, most = slot, its
    return best


@called
def home_of(cluster: Cluster, tables: Tables, slot: int) -> int:
    """The GPU where a request costs least; NOWHERE if none takes any."""
    request = cluster.live[slot]
    look_for(cluster, slot, 1)
    reuse = cluster.loads.reuse
    ready = cluster.board.prefill_ready[0] if cluster.board.state.startable[0] > 0 else NOWHERE
    for k in range(reuse.count[0]):
        note_wait(cluster, tables, reuse.gpu[k], slot)
    note_wait(cluster, tables, best_of_the_rest(cluster.places), slot)
    if ready != NOWHERE:
        note_wait(cluster, tables, ready, slot)
    return cheapest(cluster.places, tables, reuse, ready, request.cls, request.prompt)


@called
def has_room(cluster: Cluster, tables: Tables, g: int, slot: int) -> bool:
    """Whether a request can start on `g`, for which nobody waits who goes before it."""
    here = cluster.gpu[g]
    if here.barred == 1 or here.occupied >= cluster.batch_size or cluster.places.claims[0, g] > 0:
        return False
    if is_slow(cluster.places, tables, g, cluster.live[slot].prompt):
        return False
    return blocks_to_start(cluster, g, slot) <= free_blocks(cluster, tables, g)


@inlined
def note_wait(cluster, tables, g, slot):
    """How long the iteration of `g` goes on that reads now, and what memory a request has to wait for there."""
    here = cluster.gpu[g]
    reads = here.busy == 1 and here.chunk > 0
    cluster.places.wait[g] = max(cluster.epochs[g] - cluster.clock[NOW], 0.0) if reads else 0.0
    short = blocks_to_start(cluster, g, slot) - free_blocks(cluster, tables, g)
    cluster.places.short[g] = short * cluster.set.keys.kv_block


@inlined
def may_book(cluster: Cluster) -> bool:
    return cluster.booked.sum() < max(1, cluster.gpus // BOOKED)


@called
def first_that_fits(cluster: Cluster, tables: Tables, g: int, cls: int) -> int:
    """Of the class the oldest that `g` has memory for, NOWHERE if there is none; who may book a GPU is not passed."""
    slot = cluster.lines[policy_line(cluster, stages.PREFILL_QUEUE, cls)].head
    free = free_blocks(cluster, tables, g)
    for at in range(PASSED):
        if slot == NOWHERE or blocks_to_start(cluster, g, slot) <= free:
            return slot
        if at >= cluster.booked[cls] and may_book(cluster):
            return NOWHERE
        slot = cluster.live[slot].next
    return NOWHERE


@called
def book(cluster: Cluster, g: int, cls: int) -> None:
    """`g` takes nobody until its next boundary, when all is decided anew."""
    cluster.gpu[g].booked = cls
    cluster.booked[cls] += 1
    cluster.board.state.waiting[cls] -= 1
    cluster.gpu[g].barred = 1
    update_ready(cluster.board, g)


@inlined
def blocks_to_start(cluster: Cluster, g: int, slot: int) -> int:
    """Blocks of `g` that must be free for a request: its prompt's, and its next token's."""
    return blocks_needed(cluster, g, slot, cluster.live[slot].unread + max(cluster.set.keys.kv_reservation, 1))


@called
def free_blocks(cluster: Cluster, tables: Tables, g: int) -> int:
    """Blocks of `g` that a prompt may take beside those who are there and what they are expected to need; all of an
    empty GPU."""
    if cluster.set.kv_blocks == 0 or cluster.gpu[g].occupied == 0:
        return ENDLESS
    free = spare_blocks(cluster, g) - promised_blocks(cluster, g)
    return free - blocks_of(cluster, int(headroom(cluster, tables, g, free)))


@inlined
def headroom(cluster: Cluster, tables: Tables, g: int, free: int) -> float:
    """KV tokens of `g` that are kept free, where outputs are as long as the policy expects.

    Of N requests one leaves every D/N iterations, D the harmonic mean of their outputs; until then they grow by D in
    the mean, exponentially. With h free one is preempted each time with probability exp(-h/D), the youngest: it loses L
    tokens, the mean of what a request holds, for the D/N iterations since it came and for one to be read again. With
    what h costs, free all that time, the sum is least at h = D log(L/D (1 + N/D)); 1 is added so that it stays above 0.
    """
    requests, leave = 0, 0.0
    for i in range(cluster.batch.shape[2]):
        here = cluster.batch[g, SEATED, i] + cluster.batch[g, ASSIGNED, i]
        if tables.expected_output[i] > 0.0:
            requests += here
            leave += here / tables.expected_output[i]
    if requests == 0:
        return 0.0
    output = requests / leave
    held = (cluster.set.kv_blocks - free) * cluster.set.keys.kv_block / requests
    return output * np.log(1.0 + held / output * (1.0 + requests / output))


@inlined
def promised_blocks(cluster: Cluster, g: int) -> int:
    """Blocks that those will take who have been given to `g` and are not admitted yet."""
    blocks = 0
    slot = cluster.lines[gpu_line(cluster, g, WAITING)].head
    while slot != NOWHERE:
        request = cluster.live[slot]
        blocks += blocks_needed(cluster, g, slot, request.prompt + request.produced + 1)
        slot = request.next
    return blocks


@called
def assign(cluster: Cluster, tables: Tables, g: int, slot: int) -> None:
    """A request leaves the policy's queue for `g`, whose batch it joins at the next boundary."""
    request = cluster.live[slot]
    wait_no_more(cluster, slot)
    take_from_shelf(cluster, slot)
    cluster.board.state.waiting[request.cls] -= 1
    request.gpu = g
    request.prefill_gpu = g
    count(cluster, stages.PREFILL_QUEUE, request.cls, 1)
    request.loaded = to_read_on(cluster, g, slot)
    change_load(cluster, g, 1, request.loaded)
    if cluster.set.prefixes:
        expect(cluster, g, slot)
    late = cluster.tally[LATE]
    if g < cluster.tally[OVER]:
        cluster.tally[LATE] = 1
    wait(cluster, g, slot)
    cluster.tally[LATE] = late
    look_over(cluster, tables, g)


@called
def look_over(cluster: Cluster, tables: Tables, g: int) -> None:
    """What `g` holds has changed: how full it is, and whether it has room for more."""
    here = cluster.gpu[g]
    if here.booked != NOWHERE:
        cluster.booked[here.booked] -= 1
        here.booked = NOWHERE
    waiting, reading = gpu_line(cluster, g, WAITING), gpu_line(cluster, g, READING)
    for i in range(cluster.batch.shape[2]):
        cluster.board.state.prefilling[i] -= cluster.batch[g, ASSIGNED, i]
        cluster.batch[g, ASSIGNED, i] = 0
    backlog = 0
    for line in (waiting, reading):
        slot = cluster.lines[line].head
        while slot != NOWHERE:
            request = cluster.live[slot]
            backlog += request.unread
            cluster.batch[g, ASSIGNED, request.cls] += 1
            slot = request.next
    for i in range(cluster.batch.shape[2]):
        cluster.board.state.prefilling[i] += cluster.batch[g, ASSIGNED, i]
    here.occupied = here.decodes + here.finished + cluster.lines[waiting].members + cluster.lines[reading].members
    if here.group == OUT:
        here.occupied += cluster.batch_size
    if cluster.set.kv_blocks > 0:
        taken = cluster.set.kv_blocks - here.blocks + promised_blocks(cluster, g)
        here.filled = (taken * WHOLE) // cluster.set.kv_blocks
    if moves.decides_at_home(cluster.board, tables):
        places = cluster.places
        places.decodes[g] = here.occupied
        places.backlog[g] = backlog
        places.context[g] = here.context + backlog + here.held
        places.free[g] = here.blocks * cluster.set.keys.kv_block if cluster.set.kv_blocks > 0 else ENDLESS
        show(places, tables, g, here.group != OUT)
    reads_on = here.busy == 1 and here.chunk > 0
    here.barred = 1 if reads_on or backlog + here.decodes >= cluster.set.tokens else 0
    update_ready(cluster.board, g)
