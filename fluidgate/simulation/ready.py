"""The GPUs that could take a decode, by group, and those that could start a prefill: sets kept in constant time."""

from __future__ import annotations

from typing import Any

from fluidgate.compiled import called
from fluidgate.policies.view import MIXED, SOLO

NOWHERE = -1


@called
def update_ready(net: Any, gpu: int) -> None:
    """Enter `gpu` into, or strike it off, the GPUs with a free decode slot and those where a prefill could start.

    `net` has the fields `gpus`, `batch_size`, `mixed_gpus`, `reserve`, `gpu`, `free`, `startable`, `decode_ready` and
    `prefill_ready` of the Markov network.
    """
    here = net.gpu[gpu]
    group = SOLO if gpu >= net.mixed_gpus else MIXED
    idle = here.prefill_seat == NOWHERE
    slots = net.batch_size - 1 if net.reserve and group == MIXED and idle else net.batch_size
    first = net.mixed_gpus if group == SOLO else 0
    if (here.occupied < slots) != (here.decode_position != NOWHERE):
        if here.decode_position == NOWHERE:
            here.decode_position = first + net.free[group]
            net.decode_ready[here.decode_position] = gpu
            net.free[group] += 1
        else:
            net.free[group] -= 1
            moved = net.decode_ready[first + net.free[group]]
            net.decode_ready[here.decode_position] = moved
            net.gpu[moved].decode_position = here.decode_position
            here.decode_position = NOWHERE
    if (group == MIXED and idle and here.occupied < net.batch_size) != (here.prefill_position != NOWHERE):
        if here.prefill_position == NOWHERE:
            here.prefill_position = net.startable[0]
            net.prefill_ready[here.prefill_position] = gpu
            net.startable[0] += 1
        else:
            net.startable[0] -= 1
            moved = net.prefill_ready[net.startable[0]]
            net.prefill_ready[here.prefill_position] = moved
            net.gpu[moved].prefill_position = here.prefill_position
            here.prefill_position = NOWHERE
