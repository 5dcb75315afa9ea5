"""What sessions look like: how many turns, how long users and tools think."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.shown import Brief
from fluidgate.workloads.sessions import NONE, Sessions


@dataclass(frozen=True, repr=False)
class Spread(Brief):
    """Mean and percentiles of a sample that is not empty."""

    mean: float
    p50: float
    p90: float

    @staticmethod
    def of(sample: NDArray[Any]) -> Spread | None:
        """None of an empty one."""
        if len(sample) == 0:
            return None
        return Spread(float(sample.mean()), float(np.quantile(sample, 0.5)), float(np.quantile(sample, 0.9)))


@dataclass(frozen=True, repr=False)
class SessionSummary(Brief):
    """The sessions that requests are of.

    Attributes:
        count: sessions that no other sets off.
        subagents: sessions that a request of another sets off.
        turns: requests of those, without their sub-agents'.
        think: s from the end of an answer to the next request of its session, sub-agents' too; None where the traces do
            not say it, or no session has a second turn.
    """

    count: int
    subagents: int
    turns: Spread | None
    think: Spread | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summary_of(parts: Sequence[tuple[Sessions, NDArray[np.bool_]]]) -> SessionSummary | None:
    """The sessions of several traces, as far as their requests are chosen; None where there are none.

    Args:
        parts: the sessions of a trace, and which of its requests, shape (requests,).
    """
    turns: list[NDArray[np.int64]] = []
    thinks = [np.empty(0)]
    subagents = 0
    for sessions, chosen in parts:
        each = np.bincount(sessions.session[chosen], minlength=int(sessions.session.max()) + 1)
        own = each[sessions.session[sessions.own_first]]
        turns.append(own[own > 0])
        subagents += int((chosen & (sessions.spawner != NONE)).sum())
        if sessions.think is not None:
            thinks.append(sessions.think[chosen & (sessions.after != NONE)])
    count = sum(map(len, turns))
    if not count and not subagents:
        return None
    return SessionSummary(count, subagents, Spread.of(np.concatenate(turns)), Spread.of(np.concatenate(thinks)))
