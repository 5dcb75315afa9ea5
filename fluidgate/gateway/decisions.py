"""The decisions of a policy taken on a fleet, and the moves that follow: the gate, the router and who takes a slot.

The decision functions are those of `fluidgate.policies`, as in the simulators. All is one compiled function, `moves`:
it compiles once, and a move is one call.
"""

from __future__ import annotations

from enum import IntEnum

from fluidgate.compiled import cached, called, inlined
from fluidgate.gateway.fleet import OUT
from fluidgate.policies.gate import gate
from fluidgate.policies.groups import prefill_gone, regroup
from fluidgate.policies.ready import NOWHERE, drawn_gpu, move_to_group, update_ready
from fluidgate.policies.router import refill, route
from fluidgate.policies.view import HOLD, MIXED, SOLO, STAY, WAIT, View

NOBODY = -1


class Move(IntEnum):
    """What `moves` is asked for."""

    START_PREFILL = 0
    END_PREFILL = 1  # engine
    BOOK_DECODE = 2  # engine
    DROP_PREFILL = 3  # engine
    SETTLE_MODE = 4  # engine
    START_DECODE = 5
    TAKE_SLOT = 6  # engine, class
    LEAVE_SLOT = 7  # engine, class
    SET_CLOSED = 8  # engine, slots
    BRING_UP = 9  # engine, closed slots
    TAKE_DOWN = 10  # engine
    REGROUP = 11  # size of the mixed group


START_PREFILL = int(Move.START_PREFILL)
END_PREFILL = int(Move.END_PREFILL)
BOOK_DECODE = int(Move.BOOK_DECODE)
DROP_PREFILL = int(Move.DROP_PREFILL)
SETTLE_MODE = int(Move.SETTLE_MODE)
START_DECODE = int(Move.START_DECODE)
TAKE_SLOT = int(Move.TAKE_SLOT)
LEAVE_SLOT = int(Move.LEAVE_SLOT)
SET_CLOSED = int(Move.SET_CLOSED)
BRING_UP = int(Move.BRING_UP)
TAKE_DOWN = int(Move.TAKE_DOWN)
REGROUP = int(Move.REGROUP)


@inlined
def view_of(fleet):
    return View(
        fleet.up[0],
        fleet.batch_size,
        fleet.waiting,
        fleet.prefilling,
        fleet.buffered,
        fleet.mixed_decodes,
        fleet.solo_decodes,
        fleet.waiting_since,
        fleet.buffered_since,
        fleet.free,
        fleet.startable,
        fleet.beside,
    )


@inlined
def set_mode(fleet, g, mixed):
    """Let the decodes of engine `g` count as mixed or as solo."""
    if fleet.gpu[g].mixed == mixed:
        return
    fleet.gpu[g].mixed = mixed
    sign = 1 if mixed == 1 else -1
    for i in range(fleet.waiting.size):
        fleet.mixed_decodes[i] += sign * fleet.decodes[g, i]
        fleet.solo_decodes[i] -= sign * fleet.decodes[g, i]


@inlined
def seat(fleet, g, cls, change):
    """A decode of class `cls` takes a slot of engine `g` (1) or leaves it (-1)."""
    fleet.decodes[g, cls] += change
    if fleet.gpu[g].mixed == 1:
        fleet.mixed_decodes[cls] += change
    else:
        fleet.solo_decodes[cls] += change
    fleet.gpu[g].occupied += change
    fleet.gpu[g].crowded = 0
    update_ready(fleet, g)


@called
def start_prefill(fleet, tables, placements):
    """Start one prefill if the gate lets one: `engine * classes + class`, or NOBODY."""
    if fleet.startable[0] == 0 or fleet.waiting.sum() == 0:
        return NOBODY
    cls = gate(view_of(fleet), tables)
    if cls == HOLD:
        return NOBODY
    g = fleet.prefill_ready[int(placements.random() * fleet.startable[0])]
    fleet.waiting[cls] -= 1
    fleet.prefilling[cls] += 1
    fleet.gpu[g].prefill_seat = cls
    fleet.gpu[g].occupied += 1
    set_mode(fleet, g, 1)
    update_ready(fleet, g)
    return g * fleet.waiting.size + cls


@inlined
def vacate(fleet, g):
    """The prefill of engine `g` gives up its slot; its decodes count as mixed until `settle_mode`."""
    cls = fleet.gpu[g].prefill_seat
    fleet.gpu[g].prefill_seat = NOWHERE
    fleet.gpu[g].occupied -= 1
    fleet.gpu[g].crowded = 0
    fleet.prefilling[cls] -= 1
    prefill_gone(fleet, g)
    update_ready(fleet, g)
    return cls


@called
def end_prefill(fleet, tables, g, placements):
    """The prefill of engine `g` ends: the engine whose slot its decode takes, or `-1 - buffer` where it waits."""
    cls = vacate(fleet, g)
    where = route(view_of(fleet), tables, cls, placements.random())
    if where == STAY:
        if fleet.gpu[g].occupied < fleet.batch_size:
            seat(fleet, g, cls, 1)
            return g
        return -1 - MIXED
    if where < STAY and fleet.free[where] > 0:
        to = drawn_gpu(fleet, tables, where, placements)
        seat(fleet, to, cls, 1)
        return to
    return -1 - (where - WAIT if where >= WAIT else 0)


@called
def book_decode(fleet, tables, g, placements):
    """The early form of the router: the engine whose slot the decode of `g`'s prefill will take, booked now.

    Where the policy would let it wait, it stays on `g`: -1.
    """
    cls = fleet.gpu[g].prefill_seat
    where = route(view_of(fleet), tables, cls, placements.random())
    if where >= STAY or fleet.free[where] == 0:
        return -1
    to = drawn_gpu(fleet, tables, where, placements)
    if to == g:
        return -1
    seat(fleet, to, cls, 1)
    return to


@called
def drop_prefill(fleet, g):
    """The prefill of engine `g` is broken off, or ends where its decode stays or has its slot booked."""
    vacate(fleet, g)
    set_mode(fleet, g, 0)


@called
def settle_mode(fleet, g):
    """All is decided after the end of a prefill on `g`: its decodes are solo if no other has started."""
    if fleet.gpu[g].prefill_seat == NOWHERE:
        set_mode(fleet, g, 0)


@called
def start_decode(fleet, tables, placements):
    """Let one waiting decode take a free slot: `(engine * classes + class) * 2 + buffer`, or NOBODY; solo first."""
    for group in (SOLO, MIXED):
        buffer = group if tables.split_buffers else 0
        if fleet.free[group] > 0 and fleet.buffered[buffer].sum() > 0:
            cls = refill(view_of(fleet), tables, group, placements.random())
            if cls != HOLD:
                g = drawn_gpu(fleet, tables, group, placements)
                fleet.buffered[buffer, cls] -= 1
                seat(fleet, g, cls, 1)
                return (g * fleet.waiting.size + cls) * 2 + buffer
    return NOBODY


@called
def set_closed(fleet, g, closed):
    """So many slots of engine `g` are not ours."""
    fleet.gpu[g].occupied += closed - fleet.gpu[g].closed
    fleet.gpu[g].closed = closed
    update_ready(fleet, g)


@called
def bring_up(fleet, g, closed):
    """Engine `g` is up, in the solo group, until the next `regroup`."""
    fleet.up[0] += 1
    fleet.gpu[g].group = SOLO
    fleet.gpu[g].occupied += closed - fleet.gpu[g].closed
    fleet.gpu[g].closed = closed
    update_ready(fleet, g)


@called
def take_down(fleet, g):
    """Engine `g` is down: it takes nothing, and what it still holds ends by itself."""
    fleet.up[0] -= 1
    fleet.gpu[g].leaving = 0
    fleet.gpu[g].occupied += fleet.batch_size - fleet.gpu[g].closed
    fleet.gpu[g].closed = fleet.batch_size
    update_ready(fleet, g)
    move_to_group(fleet, g, OUT)


def moves_kernel(fleet, tables, move, a, b, placements):
    """One move with its arguments; what it returns is said where it is defined, NOBODY if nothing.

    Args:
        fleet: Fleet; it is changed.
        tables: Tables of the policy.
        move: a `Move`, `a` and `b` what it needs.
        placements: numpy Generator.
    """
    if move == START_PREFILL:
        return start_prefill(fleet, tables, placements)
    if move == END_PREFILL:
        return end_prefill(fleet, tables, a, placements)
    if move == BOOK_DECODE:
        return book_decode(fleet, tables, a, placements)
    if move == DROP_PREFILL:
        drop_prefill(fleet, a)
    elif move == SETTLE_MODE:
        settle_mode(fleet, a)
    elif move == START_DECODE:
        return start_decode(fleet, tables, placements)
    elif move == TAKE_SLOT:
        seat(fleet, a, b, 1)
    elif move == LEAVE_SLOT:
        seat(fleet, a, b, -1)
    elif move == SET_CLOSED:
        set_closed(fleet, a, b)
    elif move == BRING_UP:
        bring_up(fleet, a, b)
    elif move == TAKE_DOWN:
        take_down(fleet, a)
    elif move == REGROUP:
        regroup(fleet, a)
    return NOBODY


moves = cached(moves_kernel)
