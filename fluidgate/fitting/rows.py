"""What a log and its replay say together: rows that are linear in the coefficients of an iteration's time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array, Gpu
from fluidgate.shown import Brief
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.logged import LoggedRun, replayed
from fluidgate.simulation.iteration.what_ran import TERMS, WhatRan

ITERATIONS = (TERMS.index("mixed iterations"), TERMS.index("solo iterations"))


@dataclass(frozen=True, repr=False)
class Rows(Brief):
    """Two rows a request: from its first token to its last, and from when the queue was last empty to its first.

    The second is of what the engine has done while somebody waited. Arrivals after the queue was last empty move
    nothing there, so that all of the time is that of iterations, whoever they were for.

    Attributes:
        took: measured, s; shape (rows,).
        late: measured less replayed, s; shape (rows,).
        terms: `TERMS` met in the replay, shape (rows, terms).
        shifted: 1 where a delay before the engine's queue moves the end of the row and not its start; shape (rows,).
        request: which one each row is of; shape (rows,).
    """

    took: Array
    late: Array
    terms: Array
    shifted: Array
    request: NDArray[np.int64]

    def headline(self) -> str:
        return f"of a replayed log, {len(self.took):,}"

    @property
    def iterations(self) -> Array:
        return np.asarray(self.terms[:, list(ITERATIONS)].sum(axis=1))

    def of_requests(self, chosen: NDArray[np.bool_]) -> Rows:
        kept = chosen[self.request]
        return Rows(self.took[kept], self.late[kept], self.terms[kept], self.shifted[kept], self.request[kept])


@dataclass(frozen=True, repr=False)
class ReplayedRun(Brief):
    """The replay of a run.

    Attributes:
        simulated: its requests, on the log's clock.
        rows: what they met.
        what_ran: in the replay.
    """

    simulated: LoggedRun
    rows: Rows
    what_ran: WhatRan

    @property
    def iterations(self) -> float:
        return float(self.what_ran.before[-1, list(ITERATIONS)].sum())


def replayed_rows(run: LoggedRun, engine: Engine, gpu: Gpu, delay: float = 0.0) -> ReplayedRun:
    """Replay a run.

    Args:
        engine: with the law of `gpu`.
        delay: s from a request's arrival in the log to the engine's queue.
    """
    segments: list[Any] = []
    moved = replace(run, arrival=run.arrival + delay)
    simulated = replace(replayed(moved, engine, segments.append), arrival=run.arrival, clock=run.clock)
    what = WhatRan.of(segments) if engine.keys.data_parallel == 1 else WhatRan.of_ranks(segments, gpu)
    by_first, by_last = what.by(simulated.first_token), what.by(simulated.last_token)
    several = np.flatnonzero(run.output > 1)
    empty = queue_empty(moved.arrival, simulated.first_token)
    spoken = run.last_token - run.first_token
    late = spoken - (simulated.last_token - simulated.first_token)
    rows = Rows(
        took=np.concatenate([spoken[several], run.first_token - empty]),
        late=np.concatenate([late[several], run.first_token - simulated.first_token]),
        terms=np.concatenate([(by_last - by_first)[several], by_first - what.by(empty)]),
        shifted=np.concatenate([np.zeros(len(several)), np.ones(len(empty))]),
        request=np.concatenate([several, np.arange(len(empty))]),
    )
    return ReplayedRun(simulated, rows, what)


def queue_empty(arrival: Array, first_token: Array) -> Array:
    """For each request, in order of arrival, when the queue was last empty before its first token; s."""
    until = np.maximum.accumulate(first_token)
    opens = np.concatenate([[True], arrival[1:] >= until[:-1]])
    return np.asarray(arrival[np.maximum.accumulate(np.where(opens, np.arange(len(arrival)), 0))])
