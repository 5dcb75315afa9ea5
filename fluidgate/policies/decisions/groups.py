"""The mixed and the solo group of a policy, which a new plan makes larger or smaller while requests are served."""

from __future__ import annotations

from typing import Any

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.ready import NOWHERE, move_to_group, update_ready
from fluidgate.policies.decisions.view import MIXED, SOLO


@called
def regroup(net: Any, mixed_gpus: int) -> None:
    """Let the mixed group have `mixed_gpus` GPUs; O(n).

    It grows at once: by GPUs that were about to leave it, then by solo GPUs with a free slot, then by full ones, which
    start a prefill when a decode has ended. It shrinks at once by GPUs without a prefill, and by others when theirs
    has ended. Nobody is moved, and no prefill is broken off. `net` has the fields that `update_ready` needs.
    """
    more = mixed_gpus - committed(net)
    if more > 0:
        grow(net, more)
    elif more < 0:
        shrink(net, -more)
    for g in range(net.gpus):
        here = net.gpu[g]
        here.crowded = 1 if here.group == MIXED and here.prefill_seat == NOWHERE and is_full(net, g) else 0
        update_ready(net, g)


@inlined
def committed(net: Any) -> int:
    """GPUs of the mixed group, but for those that are about to leave it."""
    total = 0
    for g in range(net.gpus):
        if net.gpu[g].group == MIXED and net.gpu[g].leaving == 0:
            total += 1
    return total


@inlined
def is_full(net: Any, g: int) -> bool:
    return bool(net.gpu[g].occupied == net.batch_size)


@called
def grow(net: Any, more: int) -> None:
    for g in range(net.gpus):
        if more > 0 and net.gpu[g].leaving == 1:
            net.gpu[g].leaving = 0
            more -= 1
    for full in (False, True):
        for g in range(net.gpus):
            if more > 0 and net.gpu[g].group == SOLO and is_full(net, g) == full:
                move_to_group(net, g, MIXED)
                more -= 1


@called
def shrink(net: Any, fewer: int) -> None:
    for g in range(net.gpus):
        if fewer > 0 and net.gpu[g].group == MIXED and net.gpu[g].prefill_seat == NOWHERE:
            move_to_group(net, g, SOLO)
            fewer -= 1
    for g in range(net.gpus):
        if fewer > 0 and net.gpu[g].group == MIXED and net.gpu[g].leaving == 0:
            net.gpu[g].leaving = 1
            fewer -= 1


@inlined
def prefill_gone(net: Any, g: int) -> None:
    """The prefill of `g` has ended, or has given way: it was the last one, if `g` is to leave the mixed group."""
    if net.gpu[g].leaving == 1:
        net.gpu[g].leaving = 0
        move_to_group(net, g, SOLO)
