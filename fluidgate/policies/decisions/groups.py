"""The mixed and the solo group of a policy, which a new plan makes larger or smaller while requests are served."""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.board import NOWHERE, Board, move_to_group, update_ready
from fluidgate.policies.decisions.view import MIXED, SOLO


@called
def regroup(board: Board, mixed_gpus: int) -> None:
    """Let the mixed group have `mixed_gpus` GPUs; O(n).

    It grows at once: by GPUs that were about to leave it, then by solo GPUs with a free slot, then by full ones, which
    start a prefill when a decode has ended. It shrinks at once by GPUs without a prefill, and by others when theirs
    has ended. Nobody is moved, and no prefill is broken off.
    """
    more = mixed_gpus - committed(board)
    if more > 0:
        grow(board, more)
    elif more < 0:
        shrink(board, -more)
    for g in range(board.gpus):
        here = board.gpu[g]
        here.crowded = 1 if here.group == MIXED and here.prefill_seat == NOWHERE and is_full(board, g) else 0
        update_ready(board, g)


@inlined
def committed(board: Board) -> int:
    """GPUs of the mixed group, but for those that are about to leave it."""
    total = 0
    for g in range(board.gpus):
        if board.gpu[g].group == MIXED and board.gpu[g].leaving == 0:
            total += 1
    return total


@inlined
def is_full(board: Board, g: int) -> bool:
    return bool(board.gpu[g].occupied == board.state.batch_size)


@called
def grow(board: Board, more: int) -> None:
    for g in range(board.gpus):
        if more > 0 and board.gpu[g].leaving == 1:
            board.gpu[g].leaving = 0
            more -= 1
    for full in (False, True):
        for g in range(board.gpus):
            if more > 0 and board.gpu[g].group == SOLO and is_full(board, g) == full:
                move_to_group(board, g, MIXED)
                more -= 1


@called
def shrink(board: Board, fewer: int) -> None:
    for g in range(board.gpus):
        if fewer > 0 and board.gpu[g].group == MIXED and board.gpu[g].prefill_seat == NOWHERE:
            move_to_group(board, g, SOLO)
            fewer -= 1
    for g in range(board.gpus):
        if fewer > 0 and board.gpu[g].group == MIXED and board.gpu[g].leaving == 0:
            board.gpu[g].leaving = 1
            fewer -= 1


@inlined
def prefill_gone(board: Board, g: int) -> None:
    """The prefill of `g` has ended, or has given way: it was the last one, if `g` is to leave the mixed group."""
    if board.gpu[g].leaving == 1:
        board.gpu[g].leaving = 0
        move_to_group(board, g, SOLO)
