"""The decisions of a policy taken on a fleet, and what follows from them, in compiled code.

What is asked, and in which order, is the protocol of `fluidgate.policies.decisions.moves`, as in the simulators. All is
one compiled function, `moves`: it compiles once, and an event is one call, and one more for each request that starts in
its wake.
"""

from __future__ import annotations

from enum import IntEnum

from fluidgate.compiled import called, inlined, kept
from fluidgate.gateway.dispatch.averages import average
from fluidgate.gateway.dispatch.fleet import OUT, READS, WRITES
from fluidgate.policies.decisions import moves as protocol
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE, PHASE, gpu_for_decode, move_to_group, update_ready
from fluidgate.policies.decisions.groups import prefill_gone, regroup
from fluidgate.policies.decisions.limits import next_release, pass_time
from fluidgate.policies.decisions.view import MIXED, SOLO

NOBODY = -1

KINDS = 3
PREFILL = protocol.NEW_PREFILL
"""Kind of a start: a prefill; a waiting decode's is its buffer, 0 or 1."""


class Move(IntEnum):
    """What `moves` is asked for."""

    NOTHING = 0
    END_PREFILL = 1  # engine
    BOOK_DECODE = 2  # engine
    DROP_PREFILL = 3  # engine
    STAY_ON = 4  # engine
    LEAVE_SLOT = 5  # engine, class
    SET_CLOSED = 6  # engine, slots
    BRING_UP = 7  # engine, closed slots
    TAKE_DOWN = 8  # engine
    REGROUP = 9  # size of the mixed group
    GO_ON = 10  # with the round that is under way
    OPEN_AGAIN = 11  # engine
    START = 12  # engine, class: a prefill that was chosen with its place


NOTHING = int(Move.NOTHING)
END_PREFILL = int(Move.END_PREFILL)
BOOK_DECODE = int(Move.BOOK_DECODE)
DROP_PREFILL = int(Move.DROP_PREFILL)
STAY_ON = int(Move.STAY_ON)
LEAVE_SLOT = int(Move.LEAVE_SLOT)
SET_CLOSED = int(Move.SET_CLOSED)
BRING_UP = int(Move.BRING_UP)
TAKE_DOWN = int(Move.TAKE_DOWN)
REGROUP = int(Move.REGROUP)
GO_ON = int(Move.GO_ON)
OPEN_AGAIN = int(Move.OPEN_AGAIN)
START = int(Move.START)


@inlined
def set_mode(fleet, g, mixed):
    """Let the decodes of engine `g` count as mixed or as solo."""
    if fleet.gpu[g].mixed == mixed:
        return
    fleet.gpu[g].mixed = mixed
    sign = 1 if mixed == 1 else -1
    for i in range(fleet.counts.shape[1]):
        fleet.counts[stages.MIXED_DECODE, i] += sign * fleet.decodes[g, i]
        fleet.counts[stages.SOLO_DECODE, i] -= sign * fleet.decodes[g, i]


@inlined
def seat(fleet, g, cls, change):
    """A decode of class `cls` takes a slot of engine `g` (1) or leaves it (-1)."""
    fleet.decodes[g, cls] += change
    fleet.counts[stages.MIXED_DECODE if fleet.gpu[g].mixed == 1 else stages.SOLO_DECODE, cls] += change
    fleet.gpu[g].occupied += change
    fleet.gpu[g].crowded = 0
    update_ready(fleet.board, g)


@inlined
def vacate(fleet, g):
    """The prefill of engine `g` gives up its slot; its decodes count as mixed until all is decided."""
    cls = fleet.gpu[g].prefill_seat
    fleet.gpu[g].prefill_seat = NOWHERE
    fleet.gpu[g].occupied -= 1
    fleet.gpu[g].crowded = 0
    fleet.counts[stages.PREFILL, cls] -= 1
    prefill_gone(fleet.board, g)
    update_ready(fleet.board, g)
    return cls


@called
def end_prefill(fleet, tables, g, now):
    """The prefill of engine `g` ends: the engine whose slot its decode takes, or `-1 - buffer` where it waits."""
    cls = vacate(fleet, g)
    fleet.unsettled[0] = g
    where = protocol.place_decode(fleet.board, tables, cls, g)
    if where >= 0:
        seat(fleet, where, cls, 1)
    else:
        queue = stages.MIXED_QUEUE - 1 - where
        if fleet.counts[queue, cls] == 0:
            fleet.since[queue, cls] = now
        fleet.counts[queue, cls] += 1
    return where


@called
def book_decode(fleet, tables, g):
    """The early form of the router: the engine whose slot the decode of `g`'s prefill will take, booked now.

    Where the policy would let it wait, it stays on `g`: -1. Of pairs it is any with a slot, and there is one.
    """
    cls = fleet.gpu[g].prefill_seat
    to = gpu_for_decode(fleet.board, tables, SOLO) if fleet.pairs else protocol.book_decode(fleet.board, tables, cls, g)
    if to == g:
        return -1
    seat(fleet, to, cls, 1)
    return to


@called
def drop_prefill(fleet, g):
    """The prefill of engine `g` is broken off, or ends where its decode has its slot booked."""
    vacate(fleet, g)
    set_mode(fleet, g, 0)


@called
def stay_on(fleet, g):
    """The prefill of engine `g` ends and its decode keeps its slot."""
    cls = vacate(fleet, g)
    set_mode(fleet, g, 0)
    seat(fleet, g, cls, 1)


@called
def set_closed(fleet, g, closed):
    """So many slots of engine `g` are not ours."""
    fleet.gpu[g].occupied += closed - fleet.gpu[g].closed
    fleet.gpu[g].closed = closed
    update_ready(fleet.board, g)


@called
def bring_up(fleet, g, closed):
    """Engine `g` is up, in the solo group until the next `regroup`, unless an old prefill still has its seat. Of pairs
    it is in the group of its role, for ever."""
    fleet.gpu[g].group = SOLO if fleet.gpu[g].prefill_seat == NOWHERE else MIXED
    if fleet.gpu[g].role == READS:
        fleet.gpu[g].group = MIXED
    elif fleet.gpu[g].role == WRITES:
        fleet.gpu[g].group = SOLO
    set_closed(fleet, g, closed)


@called
def take_down(fleet, g):
    """Engine `g` is down: it takes nothing, and what it still holds ends by itself."""
    fleet.gpu[g].leaving = 0
    set_closed(fleet, g, fleet.batch_size)
    move_to_group(fleet.board, g, OUT)


@called
def start_prefill(fleet, g, cls):
    """One of class `cls` leaves the queue for the prefill of engine `g`."""
    fleet.counts[stages.PREFILL_QUEUE, cls] -= 1
    fleet.counts[stages.PREFILL, cls] += 1
    fleet.gpu[g].prefill_seat = cls
    fleet.gpu[g].occupied += 1
    set_mode(fleet, g, 1)
    update_ready(fleet.board, g)


@called
def start_next(fleet, tables):
    """Start the next of the round: `(engine * classes + class) * KINDS + kind`, or NOBODY if it is over.

    `kind` is PREFILL, or the buffer that a decode has waited in.
    """
    if fleet.pairs and fleet.board.round[PHASE] == protocol.PREFILLS and fleet.board.state.free[SOLO] == 0:
        fleet.board.round[PHASE] = protocol.OVER  # nobody could write
    kind, cls, g = protocol.next_start(fleet.board, tables)
    while kind == PREFILL and lacks_memory(fleet, g, cls):
        bar(fleet, g, 1)
        kind, cls, g = protocol.next_start(fleet.board, tables)
    if kind == protocol.NOBODY:
        settle_mode(fleet)
        fleet.release[0] = next_release(fleet.board.state, tables)
        return NOBODY
    if kind == PREFILL:
        start_prefill(fleet, g, cls)
    else:
        fleet.counts[stages.MIXED_QUEUE + kind, cls] -= 1
        seat(fleet, g, cls, 1)
    return (g * fleet.counts.shape[1] + cls) * KINDS + kind


@inlined
def lacks_memory(fleet, g, cls):
    """Whether what the oldest of the class will hold does not fit beside what is booked on engine `g`; an engine with
    nothing booked takes anybody."""
    booked = fleet.gpu[g].kv
    return fleet.kv_tokens > 0 and booked > 0 and booked + fleet.need[cls] > fleet.kv_tokens


@called
def bar(fleet, g, barred):
    """No prefill starts on engine `g` until some of its memory is free again, or (0) it may again."""
    fleet.gpu[g].barred = barred
    update_ready(fleet.board, g)


@inlined
def settle_mode(fleet):
    """All is decided after the end of a prefill: the decodes of its engine are solo if no other has started there."""
    g = fleet.unsettled[0]
    if g != NOWHERE:
        fleet.unsettled[0] = NOWHERE
        if fleet.gpu[g].prefill_seat == NOWHERE:
            set_mode(fleet, g, 0)


def moves_kernel(fleet, tables, move, a, b, now, may_start):
    """One move, and the first start in its wake: who it is, as `start_next` says, or NOBODY.

    The caller takes who has started off the queue and asks to GO_ON, until it is NOBODY.

    Args:
        fleet: Fleet; it is changed. `fleet.outcome` holds what the move itself came to.
        tables: Tables of the policy.
        move: a `Move`, `a` and `b` what it needs.
        now: epoch, s.
        may_start: whether anyone may start; if not, NOBODY does.
    """
    average(fleet.averages, fleet.board.state, tables, now - fleet.board.state.now[0])
    pass_time(fleet.board.state, tables, now)
    if move == END_PREFILL:
        fleet.outcome[0] = end_prefill(fleet, tables, a, now)
    elif move == BOOK_DECODE:
        fleet.outcome[0] = book_decode(fleet, tables, a)
    elif move == DROP_PREFILL:
        drop_prefill(fleet, a)
    elif move == STAY_ON:
        stay_on(fleet, a)
    elif move == LEAVE_SLOT:
        seat(fleet, a, b, -1)
    elif move == SET_CLOSED:
        set_closed(fleet, a, b)
    elif move == BRING_UP:
        bring_up(fleet, a, b)
    elif move == TAKE_DOWN:
        take_down(fleet, a)
    elif move == REGROUP:
        regroup(fleet.board, a)
    elif move == OPEN_AGAIN:
        bar(fleet, a, 0)
    elif move == START:
        start_prefill(fleet, a, b)
    if not may_start:
        return NOBODY
    if move != GO_ON:
        protocol.open_round(fleet.board)
    return start_next(fleet, tables)


moves = kept(moves_kernel, "the gateway's decisions", seconds=10)
