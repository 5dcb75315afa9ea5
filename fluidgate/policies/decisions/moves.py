"""The protocol of asking: when gate, route and refill are asked, in which order, and what their answers come to.

Both simulators and the gateway ask so. After each event (an arrival, an end, somebody who leaves) a round is opened:
prefills start while a GPU could take one, somebody waits and the gate names a class; then waiting decodes take free
slots, the solo group's first, while the refill names one. `next_start` gives one start at a time, which whoever asks
carries out (it knows who the oldest of the class is) before it asks again.

An answer that a decision may not give breaks the round off and is noted on the board.
"""

from __future__ import annotations

from fluidgate.compiled import call_pointer, inlined
from fluidgate.compiled.random import uniform
from fluidgate.policies.decisions.board import FAULT, NOWHERE, PHASE, Board, gpu_for_decode, gpu_for_prefill
from fluidgate.policies.decisions.gate import gate
from fluidgate.policies.decisions.router import refill, route
from fluidgate.policies.decisions.tables import Tables
from fluidgate.policies.decisions.view import HOLD, MIXED, SOLO, STAY, WAIT

NOBODY = -1
NEW_PREFILL = 2
"""Kind of a start: a prefill. Otherwise a decode, and the kind is the buffer it waited in, 0 or 1."""

# Values of `Board.round[PHASE]`.
PREFILLS = 0
SOLO_DECODES = 1
MIXED_DECODES = 2
OVER = 3

# Values of `Board.round[FAULT]`.
BAD_GATE = 1
BAD_ROUTE = 2
BAD_REFILL = 3

FAULTS = {
    BAD_GATE: (
        "gate",
        "the gate named a class that does not exist or has nobody waiting; answer a class that waits, or HOLD",
    ),
    BAD_ROUTE: (
        "route",
        "the route is none of MIXED, SOLO, STAY, WAIT and WAIT + 1; answer one of them",
    ),
    BAD_REFILL: (
        "refill",
        "the refill named a class that does not exist or has nobody in the buffer; answer a class that waits there, "
        "or HOLD",
    ),
}
"""By fault: the decision function, and what is wrong with its answer."""


@inlined
def open_round(board: Board) -> None:
    """Something has happened: ask from the start."""
    board.round[PHASE] = PREFILLS


@inlined
def next_start(board: Board, tables: Tables) -> tuple[int, int, int]:
    """The next to start in this round: (kind, class, GPU); the kind is NOBODY if the round is over.

    `kind` is NEW_PREFILL for the oldest of the class that waits for its prefill, else the buffer whose oldest of the
    class takes a decode slot.
    """
    view = board.state
    if board.round[PHASE] == PREFILLS:
        if view.startable[0] > 0 and view.waiting.sum() > 0:
            cls = ask_gate(board, tables)
            if cls != HOLD:
                if cls < 0 or cls >= view.waiting.size or view.waiting[cls] == 0:
                    board.round[FAULT] = BAD_GATE
                else:
                    return NEW_PREFILL, cls, gpu_for_prefill(board)
        board.round[PHASE] = SOLO_DECODES
    while board.round[PHASE] < OVER:
        group = SOLO if board.round[PHASE] == SOLO_DECODES else MIXED
        buffer = group if tables.split_buffers else 0
        if view.free[group] > 0 and view.buffered[buffer].sum() > 0:
            cls = ask_refill(board, tables, group)
            if cls != HOLD:
                if cls < 0 or cls >= view.waiting.size or view.buffered[buffer, cls] == 0:
                    board.round[FAULT] = BAD_REFILL
                    break
                return buffer, cls, gpu_for_decode(board, tables, group)
        board.round[PHASE] += 1
    return NOBODY, 0, 0


@inlined
def place_decode(board: Board, tables: Tables, cls: int, g: int) -> int:
    """Where the decode of class `cls` goes whose prefill has just left its slot on `g`: a GPU, or `-1 - buffer`."""
    where = ask_route(board, tables, cls)
    if where == STAY and board.gpu[g].decode_position != NOWHERE:
        return g
    if where < STAY and board.state.free[where] > 0:
        return gpu_for_decode(board, tables, where)
    return -1 - (where - WAIT if where >= WAIT else 0)


@inlined
def book_decode(board: Board, tables: Tables, cls: int, g: int) -> int:
    """The router asked before the prefill on `g` has ended: the GPU that will take its decode, `g` where none would."""
    where = ask_route(board, tables, cls)
    if where >= STAY or board.state.free[where] == 0:
        return g
    return gpu_for_decode(board, tables, where)


@inlined
def ask_gate(board: Board, tables: Tables) -> int:
    """The class that the policy's gate names."""
    if board.functions.gate != 0:
        return call_pointer(board.functions.gate, board.state, tables, 0, 0.0)
    return gate(board.state, tables)


@inlined
def decides_at_home(board: Board, tables: Tables) -> bool:
    """Whether gate and placement decide together (`homes`): by tables made for that, where no user's gate decides."""
    return tables.homing and board.functions.gate == 0


@inlined
def ask_route(board: Board, tables: Tables, cls: int) -> int:
    """Where the policy's route sends a decode of class `cls`; WAIT, and a fault noted, if it is nowhere."""
    draw = uniform(board.draws)
    if board.functions.route != 0:
        where = call_pointer(board.functions.route, board.state, tables, cls, draw)
    else:
        where = route(board.state, tables, cls, draw)
    if where < MIXED or where > WAIT + SOLO:
        board.round[FAULT] = BAD_ROUTE
        where = WAIT
    return where


@inlined
def ask_refill(board: Board, tables: Tables, group: int) -> int:
    """The class that the policy's refill names for a free slot of `group`."""
    draw = uniform(board.draws)
    if board.functions.refill != 0:
        return call_pointer(board.functions.refill, board.state, tables, group, draw)
    return refill(board.state, tables, group, draw)
