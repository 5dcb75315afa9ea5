"""Replay a log, fit what its requests met to how long they took, and replay it again, until nothing changes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fluidgate.fitting.coefficients import Coefficients
from fluidgate.fitting.regression import Equations, redrawn, resolved, robust
from fluidgate.fitting.rows import ReplayedRun, Rows, replayed_rows
from fluidgate.model import Array, Gpu, IterationTime
from fluidgate.shown import Brief
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.law import law_of
from fluidgate.simulation.iteration.logged import LoggedRun

ROUNDS = 40
CONVERGED = 1e-3
"""By how much the time of the rows may change in a round, root mean square, of what it is."""
DRAWS = 200
SCALINGS = 3
SYSTEMATIC = 0.2
"""Of what one iteration of a request differs at random from the law, what all of them together do."""


@dataclass(frozen=True, repr=False)
class Fit(Brief):
    """Coefficients fitted to part of a log, the delay between client and engine the last of them, s.

    Attributes:
        values: s, s a token and so on; shape (coefficients + 1,).
        sd: of each; shape (coefficients + 1,).
        correlation: of their errors, shape (coefficients + 1, coefficients + 1).
        resolution: how much the log says of each: 1 all, 0 nothing, and the value is what was likely before.
        rounds: replays.
        converged: whether the last of them changed nothing.
        replay: of all requests, with these values.
        outlying: share of the rows that were held for less than a half, for nothing explains them.
    """

    values: Array
    sd: Array
    correlation: Array
    resolution: Array
    rounds: int
    converged: bool
    replay: ReplayedRun
    outlying: float


def fit(run: LoggedRun, engine: Engine, coefficients: Coefficients, fitted: NDArray[np.bool_], seed: int = 0) -> Fit:
    """Fit to some requests of a log; all of them are replayed.

    Args:
        engine: its law is put in the place of by what is fitted.
        fitted: shape (requests,).
    """
    task = _Task(run, engine, coefficients, fitted)
    values = task.start()
    prior = coefficients.prior(values[:-1]).and_one_more(known=run.clock != "client")
    best, rounds, converged = (math.inf, values), 0, False
    while rounds < ROUNDS and not converged:
        rounds += 1
        tried = task.replayed(values)
        best = min(best, (tried.distance, values), key=lambda each: each[0])
        found, _, _ = robust(tried.equations, prior)
        moved = tried.equations.design @ (found - values)
        converged = _size(moved) <= CONVERGED * _size(tried.rows.took)
        values = values + (1.0 if rounds <= 6 else 0.4) * (found - values)
    last = task.replayed(values)
    if not converged and last.distance > best[0]:
        values = best[1]
        last = task.replayed(values)
    _, weight, scale = robust(last.equations, prior)
    covariance, resolution = resolved(last.equations, weight, scale, prior)
    draws = redrawn(last.equations, weight, scale, prior, DRAWS, seed)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    return Fit(
        values=values,
        sd=np.maximum(draws.std(axis=0), deviation),
        correlation=covariance / np.outer(deviation, deviation),
        resolution=resolution,
        rounds=rounds,
        converged=converged,
        replay=last.replay,
        outlying=float(np.mean(weight < 0.5)),
    )


def gpu_of(engine: Engine, iteration: IterationTime) -> Gpu:
    """A GPU of the engine with an iteration time."""
    return Gpu(batch_size=engine.batch_size, chunk_size=engine.tokens, iteration=iteration)


@dataclass(frozen=True)
class _Replayed:
    """One replay: how far it lies from the log, and the rows that say what to change."""

    replay: ReplayedRun
    rows: Rows
    equations: Equations

    @property
    def distance(self) -> float:
        return float(np.mean(np.abs(self.rows.late) / np.sqrt(self.equations.size)))


@dataclass(frozen=True)
class _Task:
    run: LoggedRun
    engine: Engine
    coefficients: Coefficients
    fitted: NDArray[np.bool_]

    def start(self) -> Array:
        """Values and delay; a law of the wrong size is first scaled as a whole."""
        values = np.append(self.coefficients.start(), 0.0)
        for _ in range(SCALINGS if self.coefficients.scales else 0):
            rows = self.replayed(values).rows
            took = rows.terms @ self.coefficients.columns @ values[:-1]
            several = (rows.shifted == 0.0) & (took > 0.0)
            if several.any():
                values[:-1] *= max(float(np.median(1.0 + rows.late[several] / took[several])), 0.01)
        return values

    def replayed(self, values: Array) -> _Replayed:
        gpu = gpu_of(self.engine, self.coefficients.iteration(values[:-1]))
        replay = replayed_rows(self.run, replace(self.engine, law=law_of(gpu)), gpu, float(values[-1]))
        rows = replay.rows.of_requests(self.fitted)
        design = np.column_stack([rows.terms @ self.coefficients.columns, rows.shifted])
        count = np.maximum(rows.iterations, 1.0)
        size = count + (SYSTEMATIC * count) ** 2
        overlap = max(float(rows.iterations.sum()) / max(replay.iterations, 1.0), 1.0)
        return _Replayed(replay, rows, Equations(design, rows.late + design @ values, size, overlap, rows.request))


def _size(times: Array) -> float:
    return float(np.sqrt(np.sum(times**2)))
