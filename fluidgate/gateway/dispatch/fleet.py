"""The engines and the queues as the decisions see them: counts and ready sets, laid out for compiled code."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluidgate.gateway.dispatch.averages import AVERAGES
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import GPU_FIELDS, NOWHERE, Board, Functions, empty_board
from fluidgate.policies.decisions.view import MIXED, SOLO

OUT = 2
"""Group of the engines that are down: they take nothing."""

ANY, READS, WRITES = 0, 1, 2
"""What an engine takes: whole requests, or the prompts of pairs, or their answers."""

ENGINE = np.dtype(
    [
        *GPU_FIELDS,  # occupied slots include the closed ones; `prefill_seat` holds the class of the prefill
        ("closed", "i4"),  # slots that belong to others, or that the engine does not have
        ("role", "i4"),  # ANY, READS or WRITES
        ("kv", "i8"),  # KV tokens booked, where there is a limit to them
    ],
    align=True,
)


class Fleet(NamedTuple):
    """The state of the cluster, as in the simulators.

    Attributes:
        board: what decisions are taken on; `board.state.gpus` is the number of engines that are up.
        batch_size: slots of an engine, B.
        gpu: dtype ENGINE, shape (engines,).
        decodes: by (engine, class), int64.
        counts: requests by stage and class, int64, shape (6, classes).
        since: epoch of the head of each queue, s, inf if it is empty, shape (3, classes).
        outcome: what the last move came to; `unsettled`, the engine whose prefill has just ended; int64, shape (1,).
        release: epoch at which a class that waits for a limit may start if nothing happens before, s, inf for none;
            shape (1,).
        kv_tokens: KV memory of an engine, tokens; 0 for no limit.
        need: KV tokens that the oldest waiting request of a class will hold, by expectation, int64, shape (classes,).
        averages: of the recent past, see `fluidgate.gateway.dispatch.averages`; shape (AVERAGES, classes).
        pairs: whether each request takes two engines from the start of its prefill on: one that READS, one that WRITES.
    """

    board: Board
    batch_size: int
    gpu: Any
    decodes: Any
    counts: Any
    since: Any
    outcome: Any
    unsettled: Any
    release: Any
    kv_tokens: int
    need: Any
    averages: Any
    pairs: bool

    @property
    def up(self) -> int:
        """Number of engines that are up."""
        return int(self.board.state.gpus)

    def with_up(self, up: int) -> Fleet:
        """The same fleet, so many of whose engines are up."""
        return self._replace(board=self.board._replace(state=self.board.state._replace(gpus=up)))

    def with_reserve(self, reserve: bool) -> Fleet:
        """The same fleet, whose engines of the mixed group keep a slot for a prefill, or don't."""
        return self._replace(board=self.board._replace(reserve=reserve))

    def with_functions(self, functions: Functions) -> Fleet:
        """The same fleet under other decision functions."""
        return self._replace(board=self.board._replace(functions=functions))


def empty_fleet(
    engines: int,
    batch_size: int,
    classes: int,
    *,
    reserve: bool,
    ranked: bool,
    kv_tokens: int = 0,
    pairs: bool = False,
    draws: NDArray[np.uint64],
    functions: Functions,
) -> Fleet:
    """A fleet whose engines are all down.

    Args:
        reserve, ranked, draws, functions: as in `new_board`.
        kv_tokens, pairs: as in `Fleet`.
    """
    gpu = np.zeros(engines, ENGINE)
    counts = np.zeros((stages.STAGES, classes), np.int64)
    since = np.full((stages.QUEUES, classes), np.inf)
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
    gpu["group"] = OUT
    gpu["occupied"] = gpu["closed"] = batch_size
    return Fleet(
        board=board,
        batch_size=batch_size,
        gpu=gpu,
        decodes=np.zeros((engines, classes), np.int64),
        counts=counts,
        since=since,
        outcome=np.zeros(1, np.int64),
        unsettled=np.full(1, NOWHERE, np.int64),
        release=np.full(1, np.inf),
        kv_tokens=kv_tokens,
        need=np.zeros(classes, np.int64),
        averages=np.zeros((AVERAGES, classes)),
        pairs=pairs,
    ).with_up(0)


def problems(fleet: Fleet) -> list[str]:
    """What contradicts itself in a fleet, for tests and for the gateway's own audit; O(engines)."""
    found = []
    gpu, held = fleet.gpu, fleet.decodes.sum(axis=1)
    board, state = fleet.board, fleet.board.state
    prefills = gpu["prefill_seat"] != NOWHERE
    if (gpu["occupied"] != gpu["closed"] + held + prefills).any():
        found.append("slots occupied are not those of prefills, decodes and others")
    mixed = gpu["mixed"] == 1
    if (fleet.decodes[mixed].sum(axis=0) != state.mixed_decodes).any():
        found.append("mixed decodes are not those of the mixed engines")
    if (fleet.decodes[~mixed].sum(axis=0) != state.solo_decodes).any():
        found.append("solo decodes are not those of the solo engines")
    if (
        np.bincount(gpu["prefill_seat"][prefills], minlength=len(state.prefilling)).tolist()
        != state.prefilling.tolist()
    ):
        found.append("prefills are not those of the engines")
    for group in (MIXED, SOLO):
        reserved = board.reserve & (group == MIXED) & ~prefills
        free = np.flatnonzero((gpu["group"] == group) & (gpu["occupied"] < fleet.batch_size - reserved))
        if sorted(board.decode_ready[group, : state.free[group]]) != free.tolist():
            found.append(f"engines of group {group} with a free decode slot are not those listed")
    idle = (gpu["group"] == MIXED) & ~prefills & (gpu["barred"] == 0)
    startable = np.flatnonzero(idle & (gpu["occupied"] < fleet.batch_size))
    if sorted(board.prefill_ready[: state.startable[0]]) != startable.tolist():
        found.append("engines that could start a prefill are not those listed")
    if int((gpu["group"] != OUT).sum()) != fleet.up:
        found.append("engines that are up are not as many as counted")
    return found
