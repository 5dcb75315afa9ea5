"""The board that decisions are taken on: the counted state of a cluster, and the sets of GPUs that are ready.

A simulator or the gateway makes one, keeps its counts, and tells it of each GPU that has changed (`update_ready`); the
sets follow in O(1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluidgate.compiled import called, inlined
from fluidgate.compiled.random import uniform
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.tables import EXCESSES, Tables
from fluidgate.policies.decisions.view import MIXED, PACE, View

NOWHERE = -1

GPU_FIELDS = (
    ("group", "i4"),  # MIXED, SOLO, or another where it takes nothing
    ("prefill_seat", "i4"),  # whoever is in prefill, NOWHERE if nobody is
    ("occupied", "i4"),  # slots that are taken
    ("mixed", "i4"),  # whether its decodes count as mixed
    ("leaving", "i4"),  # whether it leaves the mixed group when its prefill has ended
    ("crowded", "i4"),  # whether it was full when it came under the mixed group's reserve, and still is
    ("barred", "i4"),  # whether no prefill starts there for now
    ("decode_position", "i4"),  # in `decode_ready`, NOWHERE if it is not there
    ("prefill_position", "i4"),  # in `prefill_ready`
    ("filled", "i4"),  # share of its memory that is taken, in 1/WHOLE, where there is a limit to it
    ("level", "i4"),  # how much it has to do; 0 on a board that does not rank
    ("beside_position", "i4"),  # in `beside_ready`
)
"""What a board knows of a GPU; a simulator's own fields come after."""

WHOLE = 1024
EXACT = 32
"""Requests up to which each has a level of its own; beyond there are 8 an octave."""
LEVELS = EXACT + 8 * 16
"""Levels of a board that ranks."""

# Entries of `Board.round`, see `fluidgate.policies.decisions.moves`.
PHASE = 0
FAULT = 1
ROUND = 2


class Functions(NamedTuple):
    """Addresses of a user's decision functions; 0 for the shipped one."""

    gate: int = 0
    route: int = 0
    refill: int = 0


class Board(NamedTuple):
    """A cluster as its policy's decisions see it and change it.

    Attributes:
        state: what a decision may look at; its arrays are the counts of whoever made the board.
        functions: a user's decision functions, where there are some.
        gpus: GPUs of the board, those that take nothing among them.
        reserve: whether a GPU of the mixed group keeps one slot for a prefill.
        gpu: one a GPU, with GPU_FIELDS.
        decode_ready: GPUs with a free decode slot, `state.free` of each group; int32, shape (2 groups, gpus).
        prefill_ready: those where a prefill could start, `state.startable`, by level; int32, shape (gpus,).
        first: where each level begins among them; int64, shape (levels,), one level where GPUs are not ranked.
        beside_ready: those with a free slot beside a prefill, `state.beside`; int32, shape (gpus,).
        round: how far the decisions after an event are, int64, shape (2,).
        draws: state of the random numbers of placements and class draws; uint64, shape (4,).
    """

    state: View
    functions: Functions
    gpus: int
    reserve: bool
    gpu: Any
    decode_ready: Any
    prefill_ready: Any
    first: Any
    beside_ready: Any
    round: Any
    draws: Any


def new_board(
    gpu: NDArray[Any],
    *,
    batch_size: int,
    mixed_gpus: int,
    reserve: bool,
    ranked: bool = False,
    counts: NDArray[np.int64],
    since: NDArray[np.float64],
    draws: NDArray[np.uint64],
    functions: Functions,
) -> Board:
    """The board of an idle cluster: the first GPUs form the mixed group, the others the solo group.

    Args:
        gpu: one a GPU, with GPU_FIELDS; they are set.
        ranked: whether prefills start where the fewest slots are taken.
        counts: requests by stage and class, shape (6, classes).
        since: epoch of the head of each queue, s, inf if it is empty; shape (3, classes).
        draws: see `Board`.
    """
    gpus = len(gpu)
    board = empty_board(
        gpu,
        batch_size=batch_size,
        reserve=reserve,
        ranked=ranked,
        counts=counts,
        since=since,
        draws=draws,
        functions=functions,
    )
    ready = np.arange(gpus, dtype=np.int32)
    gpu["group"] = ready >= mixed_gpus
    gpu["decode_position"] = np.where(ready < mixed_gpus, ready, ready - mixed_gpus)
    gpu["prefill_position"] = np.where(ready < mixed_gpus, ready, NOWHERE)
    board.state.free[:] = mixed_gpus, gpus - mixed_gpus
    if reserve and batch_size == 1:
        gpu["decode_position"][:mixed_gpus] = NOWHERE
        board.state.free[MIXED] = 0
    board.state.startable[0] = board.first[1:] = mixed_gpus
    board.state.room[0] = batch_size if mixed_gpus > 0 else 0
    board.decode_ready[:] = ready, ready + np.int32(mixed_gpus)
    board.prefill_ready[:] = ready
    return board


def empty_board(
    gpu: NDArray[Any],
    *,
    batch_size: int,
    reserve: bool,
    ranked: bool = False,
    counts: NDArray[np.int64],
    since: NDArray[np.float64],
    draws: NDArray[np.uint64],
    functions: Functions,
) -> Board:
    """A board none of whose GPUs is ready for anything; arguments as for `new_board`."""
    gpus = len(gpu)
    for name in ("prefill_seat", "decode_position", "prefill_position", "beside_position"):
        gpu[name] = NOWHERE
    return Board(
        state=View(
            gpus=gpus,
            batch_size=batch_size,
            waiting=counts[stages.PREFILL_QUEUE],
            prefilling=counts[stages.PREFILL],
            buffered=counts[stages.MIXED_QUEUE : stages.SOLO_QUEUE + 1],
            mixed_decodes=counts[stages.MIXED_DECODE],
            solo_decodes=counts[stages.SOLO_DECODE],
            waiting_since=since[stages.PREFILL_QUEUE],
            buffered_since=since[stages.MIXED_QUEUE : stages.SOLO_QUEUE + 1],
            free=np.zeros(2, np.int64),
            startable=np.zeros(1, np.int64),
            room=np.zeros(1, np.int64),
            beside=np.zeros(1, np.int64),
            now=np.zeros(1),
            excess=np.zeros((EXCESSES, counts.shape[1])),
            pace=np.full(PACE, np.nan),
        ),
        functions=functions,
        gpus=gpus,
        reserve=reserve,
        gpu=gpu,
        decode_ready=np.zeros((2, gpus), np.int32),
        prefill_ready=np.zeros(gpus, np.int32),
        first=np.zeros(LEVELS if ranked else 1, np.int64),
        beside_ready=np.zeros(gpus, np.int32),
        round=np.zeros(ROUND, np.int64),
        draws=draws,
    )


@inlined
def update_ready(board: Board, gpu: int) -> None:
    """Enter `gpu` into, or strike it off, the sets that it belongs to or not."""
    here, view = board.gpu[gpu], board.state
    group = here.group
    idle = here.prefill_seat == NOWHERE
    slots = view.batch_size - 1 if board.reserve and group == MIXED and idle else view.batch_size
    if (here.occupied < slots) != (here.decode_position != NOWHERE):
        if here.decode_position == NOWHERE:
            here.decode_position = view.free[group]
            board.decode_ready[group, here.decode_position] = gpu
            view.free[group] += 1
        else:
            take_no_decodes(board, gpu)
    startable = group == MIXED and idle and here.barred == 0 and here.occupied < view.batch_size
    level = level_of(board, gpu)
    if startable != (here.prefill_position != NOWHERE):
        if startable:
            here.level = level
            join_startable(board, gpu)
        else:
            leave_startable(board, gpu)
    elif startable and level != here.level:
        change_level(board, gpu, level)
    view.room[0] = 0 if view.startable[0] == 0 else view.batch_size - board.gpu[board.prefill_ready[0]].occupied
    if (not idle and here.occupied < view.batch_size) != (here.beside_position != NOWHERE):
        if here.beside_position == NOWHERE:
            here.beside_position = view.beside[0]
            board.beside_ready[here.beside_position] = gpu
            view.beside[0] += 1
        else:
            view.beside[0] -= 1
            moved = board.beside_ready[view.beside[0]]
            board.beside_ready[here.beside_position] = moved
            board.gpu[moved].beside_position = here.beside_position
            here.beside_position = NOWHERE


# `prefill_ready` is in order of level, so that it costs the same to come and go however many GPUs there are: of each
# level above one GPU moves, from one end to the other.


@inlined
def level_of(board: Board, gpu: int) -> int:
    """How much `gpu` has to do, by its requests, or by its memory where there is a limit to it."""
    if len(board.first) == 1:
        return 0
    amount = max(board.gpu[gpu].occupied, board.gpu[gpu].filled)
    octave = 0
    while amount >= EXACT:
        amount //= 2
        octave += 1
    return amount if octave == 0 else min(LEVELS - 1, EXACT + 8 * (octave - 1) + amount // 2 - 8)


@inlined
def join_startable(board: Board, gpu: int) -> None:
    """Enter `gpu` at its level."""
    hole = board.state.startable[0]
    board.state.startable[0] = hole + 1
    for level in range(len(board.first) - 1, board.gpu[gpu].level, -1):
        start = board.first[level]
        if start < hole:
            put_startable(board, board.prefill_ready[start], hole)
        board.first[level] = start + 1
        hole = start
    put_startable(board, gpu, hole)


@inlined
def leave_startable(board: Board, gpu: int) -> None:
    """Strike `gpu` off."""
    here, levels = board.gpu[gpu], len(board.first)
    hole = here.prefill_position
    for level in range(here.level, levels):
        last = (board.first[level + 1] if level + 1 < levels else board.state.startable[0]) - 1
        if last > hole:
            put_startable(board, board.prefill_ready[last], hole)
        if level > here.level:
            board.first[level] -= 1
        hole = last
    board.state.startable[0] -= 1
    here.prefill_position = NOWHERE


@inlined
def change_level(board: Board, gpu: int, level: int) -> None:
    """Move `gpu` to another level, one at a time."""
    here = board.gpu[gpu]
    while here.level < level:
        last = board.first[here.level + 1] - 1
        put_startable(board, board.prefill_ready[last], here.prefill_position)
        put_startable(board, gpu, last)
        board.first[here.level + 1] = last
        here.level += 1
    while here.level > level:
        start = board.first[here.level]
        put_startable(board, board.prefill_ready[start], here.prefill_position)
        put_startable(board, gpu, start)
        board.first[here.level] = start + 1
        here.level -= 1


@inlined
def put_startable(board: Board, gpu: int, position: int) -> None:
    board.prefill_ready[position] = gpu
    board.gpu[gpu].prefill_position = position


@inlined
def fewest(board: Board) -> int:
    """How many of the GPUs where a prefill could start are at the lowest level among them: the first so many."""
    above = board.gpu[board.prefill_ready[0]].level + 1
    return board.first[above] if above < len(board.first) else board.state.startable[0]


@called
def at_its_level(board: Board, gpu: int) -> bool:
    """Whether `gpu`, where a prefill could start, is at its level, and how much room there is most: for audits."""
    here, levels, count = board.gpu[gpu], len(board.first), board.state.startable[0]
    level = level_of(board, gpu)
    end = board.first[level + 1] if level + 1 < levels else count
    room = board.state.batch_size - board.gpu[board.prefill_ready[0]].occupied
    return bool(
        here.level == level and board.first[level] <= here.prefill_position < end and board.state.room[0] == room
    )


@inlined
def take_no_decodes(board: Board, gpu: int) -> None:
    """Strike `gpu` off the GPUs of its group that could take a decode."""
    here, free = board.gpu[gpu], board.state.free
    free[here.group] -= 1
    moved = board.decode_ready[here.group, free[here.group]]
    board.decode_ready[here.group, here.decode_position] = moved
    board.gpu[moved].decode_position = here.decode_position
    here.decode_position = NOWHERE


@called
def move_to_group(board: Board, gpu: int, group: int) -> None:
    """Let `gpu` belong to another group from now on."""
    if board.gpu[gpu].decode_position != NOWHERE:
        take_no_decodes(board, gpu)
    board.gpu[gpu].group = group
    update_ready(board, gpu)


@inlined
def gpu_for_prefill(board: Board) -> int:
    """A GPU where a prefill could start, drawn uniformly among those of the lowest level; there is one."""
    return board.prefill_ready[int(uniform(board.draws) * fewest(board))]


@inlined
def gpu_for_decode(board: Board, tables: Tables, group: int) -> int:
    """A GPU of `group` with a free decode slot, drawn uniformly among those that `Tables.spare` prefers.

    Where no more GPUs could start a prefill than are to stay so, it is one of the emptiest of them.
    """
    view = board.state
    if tables.spare >= 0 and group == MIXED and not board.reserve:
        if view.beside[0] > 0 and view.startable[0] <= tables.spare:
            return board.beside_ready[int(uniform(board.draws) * view.beside[0])]
        if view.startable[0] > 0:
            among = fewest(board) if view.startable[0] <= tables.ready else view.startable[0]
            return board.prefill_ready[int(uniform(board.draws) * among)]
    return board.decode_ready[group, int(uniform(board.draws) * view.free[group])]
