"""The engines and the queues as the decisions see them: counts and ready sets, laid out for compiled code."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fluidgate.policies.decisions.ready import NOWHERE
from fluidgate.policies.decisions.view import MIXED, SOLO

OUT = 2
"""Group of the engines that are down: they take nothing."""

BUFFERS = 2

ENGINE = np.dtype(
    [
        ("group", "i4"),  # MIXED, SOLO or OUT
        ("occupied", "i4"),  # slots that are taken, the closed ones among them
        ("closed", "i4"),  # slots that belong to others, or that the engine does not have
        ("prefill_seat", "i4"),  # class of the prefill, NOWHERE if there is none
        ("mixed", "i4"),  # whether its decodes count as mixed
        ("leaving", "i4"),  # whether it leaves the mixed group when its prefill has ended
        ("crowded", "i4"),  # whether it was full when it came under the mixed group's reserve
        ("decode_position", "i4"),
        ("prefill_position", "i4"),
        ("beside_position", "i4"),
    ],
    align=True,
)


class Fleet(NamedTuple):
    """The state of the cluster. The sets and counts are those of the simulators; see `View` for what they mean.

    Attributes:
        gpus: number of engines, those that are down among them.
        batch_size: slots of an engine, B.
        reserve: whether an engine of the mixed group keeps a slot for a prefill.
        up: number of engines that are up; int64, shape (1,).
        gpu: dtype ENGINE, shape (gpus,).
        decodes: by (engine, class), int64.
        waiting, prefilling, buffered, mixed_decodes, solo_decodes, waiting_since, buffered_since: as in `View`.
        outcome: what the last move came to; `unsettled`, the engine whose prefill has just ended; int64, shape (1,).
        free, startable, beside: as in `View`; `decode_ready`, `prefill_ready`, `beside_ready` hold the engines.
    """

    gpus: int
    batch_size: int
    reserve: bool
    up: Any
    gpu: Any
    decodes: Any
    waiting: Any
    prefilling: Any
    buffered: Any
    mixed_decodes: Any
    solo_decodes: Any
    waiting_since: Any
    buffered_since: Any
    outcome: Any
    unsettled: Any
    free: Any
    startable: Any
    beside: Any
    decode_ready: Any
    prefill_ready: Any
    beside_ready: Any


def empty_fleet(engines: int, batch_size: int, classes: int, *, reserve: bool) -> Fleet:
    """A fleet whose engines are all down."""
    gpu = np.zeros(engines, ENGINE)
    gpu["group"] = OUT
    gpu["occupied"] = gpu["closed"] = batch_size
    for name in ("prefill_seat", "decode_position", "prefill_position", "beside_position"):
        gpu[name] = NOWHERE
    return Fleet(
        gpus=engines,
        batch_size=batch_size,
        reserve=reserve,
        up=np.zeros(1, np.int64),
        gpu=gpu,
        decodes=np.zeros((engines, classes), np.int64),
        waiting=np.zeros(classes, np.int64),
        prefilling=np.zeros(classes, np.int64),
        buffered=np.zeros((BUFFERS, classes), np.int64),
        mixed_decodes=np.zeros(classes, np.int64),
        solo_decodes=np.zeros(classes, np.int64),
        waiting_since=np.full(classes, np.inf),
        buffered_since=np.full((BUFFERS, classes), np.inf),
        outcome=np.zeros(1, np.int64),
        unsettled=np.full(1, NOWHERE, np.int64),
        free=np.zeros(2, np.int64),
        startable=np.zeros(1, np.int64),
        beside=np.zeros(1, np.int64),
        decode_ready=np.zeros((2, engines), np.int32),
        prefill_ready=np.zeros(engines, np.int32),
        beside_ready=np.zeros(engines, np.int32),
    )


def problems(fleet: Fleet) -> list[str]:
    """What contradicts itself in a fleet, for tests and for the gateway's own audit; O(engines)."""
    found = []
    gpu, held = fleet.gpu, fleet.decodes.sum(axis=1)
    prefills = gpu["prefill_seat"] != NOWHERE
    if (gpu["occupied"] != gpu["closed"] + held + prefills).any():
        found.append("slots occupied are not those of prefills, decodes and others")
    mixed = gpu["mixed"] == 1
    if (fleet.decodes[mixed].sum(axis=0) != fleet.mixed_decodes).any():
        found.append("mixed decodes are not those of the mixed engines")
    if (fleet.decodes[~mixed].sum(axis=0) != fleet.solo_decodes).any():
        found.append("solo decodes are not those of the solo engines")
    if (
        np.bincount(gpu["prefill_seat"][prefills], minlength=len(fleet.prefilling)).tolist()
        != fleet.prefilling.tolist()
    ):
        found.append("prefills are not those of the engines")
    for group in (MIXED, SOLO):
        reserved = fleet.reserve & (group == MIXED) & ~prefills
        free = np.flatnonzero((gpu["group"] == group) & (gpu["occupied"] < fleet.batch_size - reserved))
        if sorted(fleet.decode_ready[group, : fleet.free[group]]) != free.tolist():
            found.append(f"engines of group {group} with a free decode slot are not those listed")
    startable = np.flatnonzero((gpu["group"] == MIXED) & ~prefills & (gpu["occupied"] < fleet.batch_size))
    if sorted(fleet.prefill_ready[: fleet.startable[0]]) != startable.tolist():
        found.append("engines that could start a prefill are not those listed")
    if int((gpu["group"] != OUT).sum()) != fleet.up[0]:
        found.append("engines that are up are not as many as counted")
    return found
