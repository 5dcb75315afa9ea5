"""The decisions of a policy taken on a fleet, and the moves that follow: the gate, the router and who takes a slot.

The decision functions are those of `fluidgate.policies`, as in the simulators. All is one compiled function, `moves`:
it compiles once, and an event is one call, and one more for each request that starts in its wake. A call costs what the
many arrays of its arguments do, whatever it decides.
"""

from __future__ import annotations

from enum import IntEnum

from fluidgate.compiled import cached, called, inlined
from fluidgate.gateway.dispatch.fleet import OUT
from fluidgate.policies.decisions.gate import gate
from fluidgate.policies.decisions.groups import prefill_gone, regroup
from fluidgate.policies.decisions.ready import NOWHERE, drawn_gpu, move_to_group, update_ready
from fluidgate.policies.decisions.router import refill, route
from fluidgate.policies.decisions.view import HOLD, MIXED, SOLO, STAY, WAIT, View

NOBODY = -1

KINDS = 3
PREFILL = 2
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
    """Start one prefill if the gate lets one: `(engine * classes + class) * KINDS + PREFILL`, or NOBODY."""
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
    return (g * fleet.waiting.size + cls) * KINDS + PREFILL


@inlined
def vacate(fleet, g):
    """The prefill of engine `g` gives up its slot; its decodes count as mixed until all is decided."""
    cls = fleet.gpu[g].prefill_seat
    fleet.gpu[g].prefill_seat = NOWHERE
    fleet.gpu[g].occupied -= 1
    fleet.gpu[g].crowded = 0
    fleet.prefilling[cls] -= 1
    prefill_gone(fleet, g)
    update_ready(fleet, g)
    return cls


@called
def end_prefill(fleet, tables, g, now, placements):
    """The prefill of engine `g` ends: the engine whose slot its decode takes, or `-1 - buffer` where it waits."""
    cls = vacate(fleet, g)
    fleet.unsettled[0] = g
    where = route(view_of(fleet), tables, cls, placements.random())
    if where == STAY:
        if fleet.gpu[g].occupied < fleet.batch_size:
            seat(fleet, g, cls, 1)
            return g
        return wait_for_decode(fleet, MIXED, cls, now)
    if where < STAY and fleet.free[where] > 0:
        to = drawn_gpu(fleet, tables, where, placements)
        seat(fleet, to, cls, 1)
        return to
    return wait_for_decode(fleet, where - WAIT if where >= WAIT else 0, cls, now)


@inlined
def wait_for_decode(fleet, buffer, cls, now):
    if fleet.buffered[buffer, cls] == 0:
        fleet.buffered_since[buffer, cls] = now
    fleet.buffered[buffer, cls] += 1
    return -1 - buffer


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
def start_decode(fleet, tables, placements):
    """Let one waiting decode take a free slot, solo first: `(engine * classes + class) * KINDS + buffer`, or NOBODY."""
    for group in (SOLO, MIXED):
        buffer = group if tables.split_buffers else 0
        if fleet.free[group] > 0 and fleet.buffered[buffer].sum() > 0:
            cls = refill(view_of(fleet), tables, group, placements.random())
            if cls != HOLD:
                g = drawn_gpu(fleet, tables, group, placements)
                fleet.buffered[buffer, cls] -= 1
                seat(fleet, g, cls, 1)
                return (g * fleet.waiting.size + cls) * KINDS + buffer
    return NOBODY


@called
def set_closed(fleet, g, closed):
    """So many slots of engine `g` are not ours."""
    fleet.gpu[g].occupied += closed - fleet.gpu[g].closed
    fleet.gpu[g].closed = closed
    update_ready(fleet, g)


@called
def bring_up(fleet, g, closed):
    """Engine `g` is up, in the solo group until the next `regroup`, unless an old prefill still has its seat."""
    fleet.up[0] += 1
    fleet.gpu[g].group = SOLO if fleet.gpu[g].prefill_seat == NOWHERE else MIXED
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


@inlined
def settle_mode(fleet):
    """All is decided after the end of a prefill: the decodes of its engine are solo if no other has started there."""
    g = fleet.unsettled[0]
    if g != NOWHERE:
        fleet.unsettled[0] = NOWHERE
        if fleet.gpu[g].prefill_seat == NOWHERE:
            set_mode(fleet, g, 0)


@called
def start_next(fleet, tables, placements):
    """Start one that may start: prefills first, then waiting decodes, as the simulators do; NOBODY if there is none."""
    started = start_prefill(fleet, tables, placements)
    if started == NOBODY:
        started = start_decode(fleet, tables, placements)
    if started == NOBODY:
        settle_mode(fleet)
    return started


def moves_kernel(fleet, tables, move, a, b, now, go_on, placements):
    """One move, and the first start in its wake: who it is, as `start_prefill` and `start_decode` say, or NOBODY.

    The caller takes who has started off the queue and asks for NOTHING, which starts the next, until it is NOBODY.

    Args:
        fleet: Fleet; it is changed. `fleet.outcome` holds what the move itself came to.
        tables: Tables of the policy.
        move: a `Move`, `a` and `b` what it needs.
        now: epoch, s.
        go_on: whether anyone may start; if not, NOBODY does.
        placements: numpy Generator.
    """
    if move == END_PREFILL:
        fleet.outcome[0] = end_prefill(fleet, tables, a, now, placements)
    elif move == BOOK_DECODE:
        fleet.outcome[0] = book_decode(fleet, tables, a, placements)
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
        regroup(fleet, a)
    return start_next(fleet, tables, placements) if go_on else NOBODY


moves = cached(moves_kernel)
