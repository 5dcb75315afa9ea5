"""The GPUs that could take a decode, by group or beside a prefill, and those that could start one, in O(1)."""

from __future__ import annotations

from typing import Any

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.view import MIXED

NOWHERE = -1


@called
def update_ready(net: Any, gpu: int) -> None:
    """Enter `gpu` into, or strike it off, the sets that it belongs to or not.

    `net` has the fields `gpus`, `batch_size`, `reserve`, `gpu`, `free`, `startable`, `beside`, `decode_ready`,
    `prefill_ready` and `beside_ready` of the Markov network.
    """
    here = net.gpu[gpu]
    group = here.group
    idle = here.prefill_seat == NOWHERE
    slots = net.batch_size - 1 if net.reserve and group == MIXED and idle else net.batch_size
    if (here.occupied < slots) != (here.decode_position != NOWHERE):
        if here.decode_position == NOWHERE:
            here.decode_position = net.free[group]
            net.decode_ready[group, here.decode_position] = gpu
            net.free[group] += 1
        else:
            take_no_decodes(net, gpu)
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
    if (not idle and here.occupied < net.batch_size) != (here.beside_position != NOWHERE):
        if here.beside_position == NOWHERE:
            here.beside_position = net.beside[0]
            net.beside_ready[here.beside_position] = gpu
            net.beside[0] += 1
        else:
            net.beside[0] -= 1
            moved = net.beside_ready[net.beside[0]]
            net.beside_ready[here.beside_position] = moved
            net.gpu[moved].beside_position = here.beside_position
            here.beside_position = NOWHERE


@inlined
def take_no_decodes(net: Any, gpu: int) -> None:
    """Strike `gpu` off the GPUs of its group that could take a decode."""
    here = net.gpu[gpu]
    net.free[here.group] -= 1
    moved = net.decode_ready[here.group, net.free[here.group]]
    net.decode_ready[here.group, here.decode_position] = moved
    net.gpu[moved].decode_position = here.decode_position
    here.decode_position = NOWHERE


@called
def move_to_group(net: Any, gpu: int, group: int) -> None:
    """Let `gpu` belong to the mixed or to the solo group from now on."""
    if net.gpu[gpu].decode_position != NOWHERE:
        take_no_decodes(net, gpu)
    net.gpu[gpu].group = group
    update_ready(net, gpu)


@inlined
def drawn_gpu(net, tables, group, placements):
    """A GPU of `group` with a free decode slot, drawn uniformly among those that `Tables.spare` prefers."""
    if tables.spare >= 0 and group == MIXED and not net.reserve:
        if net.beside[0] > 0 and net.startable[0] <= tables.spare:
            return net.beside_ready[int(placements.random() * net.beside[0])]
        if net.startable[0] > 0:
            return net.prefill_ready[int(placements.random() * net.startable[0])]
    return net.decode_ready[group, int(placements.random() * net.free[group])]
