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
from fluidgate.policies.decisions.tables import EXCESSES
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
    ("beside_position", "i4"),  # in `beside_ready`
)
"""What a board knows of a GPU; a simulator's own fields come after."""

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
        prefill_ready: those where a prefill could start, `state.startable`; int32, shape (gpus,).
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
    beside_ready: Any
    round: Any
    draws: Any


def new_board(
    gpu: NDArray[Any],
    *,
    batch_size: int,
    mixed_gpus: int,
    reserve: bool,
    counts: NDArray[np.int64],
    since: NDArray[np.float64],
    draws: NDArray[np.uint64],
    functions: Functions,
) -> Board:
    """The board of an idle cluster: the first GPUs form the mixed group, the others the solo group.

    Args:
        gpu: one a GPU, with GPU_FIELDS; they are set.
        counts: requests by stage and class, shape (6, classes).
        since: epoch of the head of each queue, s, inf if it is empty; shape (3, classes).
        draws: see `Board`.
    """
    gpus = len(gpu)
    board = empty_board(
        gpu, batch_size=batch_size, reserve=reserve, counts=counts, since=since, draws=draws, functions=functions
    )
    ready = np.arange(gpus, dtype=np.int32)
    gpu["group"] = ready >= mixed_gpus
    gpu["decode_position"] = np.where(ready < mixed_gpus, ready, ready - mixed_gpus)
    gpu["prefill_position"] = np.where(ready < mixed_gpus, ready, NOWHERE)
    board.state.free[:] = mixed_gpus, gpus - mixed_gpus
    if reserve and batch_size == 1:
        gpu["decode_position"][:mixed_gpus] = NOWHERE
        board.state.free[MIXED] = 0
    board.state.startable[0] = mixed_gpus
    board.decode_ready[:] = ready, ready + np.int32(mixed_gpus)
    board.prefill_ready[:] = ready
    return board


def empty_board(
    gpu: NDArray[Any],
    *,
    batch_size: int,
    reserve: bool,
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
        beside_ready=np.zeros(gpus, np.int32),
        round=np.zeros(ROUND, np.int64),
        draws=draws,
    )


@called
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
    if startable != (here.prefill_position != NOWHERE):
        if here.prefill_position == NOWHERE:
            here.prefill_position = view.startable[0]
            board.prefill_ready[here.prefill_position] = gpu
            view.startable[0] += 1
        else:
            view.startable[0] -= 1
            moved = board.prefill_ready[view.startable[0]]
            board.prefill_ready[here.prefill_position] = moved
            board.gpu[moved].prefill_position = here.prefill_position
            here.prefill_position = NOWHERE
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
    """A GPU where a prefill could start, drawn uniformly; there is one."""
    return board.prefill_ready[int(uniform(board.draws) * board.state.startable[0])]


@inlined
def gpu_for_decode(board: Board, spare: int, group: int) -> int:
    """A GPU of `group` with a free decode slot, drawn uniformly among those that `Tables.spare` prefers."""
    view = board.state
    if spare >= 0 and group == MIXED and not board.reserve:
        if view.beside[0] > 0 and view.startable[0] <= spare:
            return board.beside_ready[int(uniform(board.draws) * view.beside[0])]
        if view.startable[0] > 0:
            return board.prefill_ready[int(uniform(board.draws) * view.startable[0])]
    return board.decode_ready[group, int(uniform(board.draws) * view.free[group])]
