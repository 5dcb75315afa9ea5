"""The queue of arrivals whose rate changes, as a fluid: more than can be served builds a queue that drains later.

Where phases last for exponential times the law of the fluid is a sum of exponentials (D. Anick, D. Mitra, M. M. Sondhi,
Stochastic theory of a data-handling system with multiple sources, Bell System Technical Journal 61(8), 1982); where
rates repeat it follows a path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fluidgate.model import Array, Arrivals
from fluidgate.tails.density import Grid

_STEPS = 96
"""Of each part of a period."""


@dataclass(frozen=True, eq=False)
class Phase:
    """A level of the rate of arrivals.

    Attributes:
        level: over the mean rate.
        weight: share of the requests that arrive at it.
        empty: share of these that find no fluid.
        wait, chance: seconds that the others wait for the fluid before them to be served, and their weights.
    """

    level: float
    weight: float
    empty: float
    wait: Array
    chance: Array

    def masses(self, grid: Grid) -> Array:
        """The law of the wait of those who find fluid."""
        return grid.at(self.wait, self.chance)

    def less(self, seconds: float) -> Phase:
        """The phase where so much of the fluid is none."""
        waits = self.wait > seconds
        share = float(self.chance[waits].sum() / self.chance.sum())
        if share <= 0.0:
            return replace(self, empty=1.0)
        empty = 1.0 - (1.0 - self.empty) * share
        return replace(self, empty=empty, wait=self.wait[waits] - seconds, chance=self.chance[waits])

    @property
    def longest(self) -> float:
        """s; 0 where there is no fluid."""
        return float(self.wait.max()) if self.empty < 1.0 else 0.0


def levels_of(arrivals: Arrivals) -> tuple[Array, Array]:
    """Rates over the mean rate, and the shares of time that they stand."""
    if arrivals.process == "mmpp":
        levels, stands = np.array(arrivals.levels, float), np.array(arrivals.sojourns, float)
    else:
        levels = np.array(arrivals.weights, float)
        stands = np.ones(len(levels))
    stands /= stands.sum()
    return levels / float(levels @ stands), stands


def phases_of(arrivals: Arrivals, capacity: float) -> tuple[Phase, ...]:
    """The phases in which requests arrive, where `capacity` times the mean rate could be served for ever."""
    if arrivals.process == "mmpp":
        return _exponential_phases(arrivals, capacity)
    return _path(arrivals, capacity)


def _exponential_phases(arrivals: Arrivals, capacity: float) -> tuple[Phase, ...]:
    """Each phase ends at rate `1/sojourn` and any of the others follows; the fluid grows by `level/capacity - 1`."""
    levels, stands = levels_of(arrivals)
    growth = levels / capacity - 1.0
    growth = np.where(np.abs(growth) < 1e-6, -1e-6, growth)
    up = growth > 0.0
    size = len(levels)
    weights = levels * stands
    if not up.any() or float(stands @ growth) >= 0.0:
        return tuple(Phase(float(levels[k]), float(weights[k]), 1.0, np.zeros(1), np.ones(1)) for k in range(size))
    leaves = 1.0 / np.array(arrivals.sojourns, float)
    generator = np.repeat(leaves[:, None], size, axis=1) / (size - 1)
    np.fill_diagonal(generator, -leaves)
    exponents, rows = np.linalg.eig((generator / growth).T)
    falling = np.argsort(exponents.real)[: int(up.sum())]
    exponents, rows = exponents[falling], rows[:, falling]
    parts = np.linalg.solve(rows[up], -stands[up].astype(complex))
    tails = -(rows * parts)  # P(fluid > x, phase) = sum over the exponents of tails exp(exponent x)
    longest = -16.0 / float(exponents.real.max())
    edges = longest * np.linspace(0.0, 1.0, 400) ** 2
    middle = 0.5 * (edges[1:] + edges[:-1])
    found = []
    for k in range(size):
        tail = np.clip((tails[k][None, :] * np.exp(np.outer(edges, exponents))).sum(axis=1).real / stands[k], 0.0, 1.0)
        chance = np.maximum(-np.diff(tail), 0.0) + 1e-300
        found.append(Phase(float(levels[k]), float(weights[k]), 1.0 - float(tail[0]), middle, chance))
    return tuple(found)


def _path(arrivals: Arrivals, capacity: float) -> tuple[Phase, ...]:
    """The fluid over a period after one that fills it, in parts."""
    levels, stands = levels_of(arrivals)
    step = arrivals.period / (len(levels) * _STEPS)
    growth = np.repeat(levels / capacity - 1.0, _STEPS) * step
    fluid, path = 0.0, np.zeros(len(growth))
    for _ in range(2):
        for k, more in enumerate(growth):
            before = fluid
            fluid = max(fluid + more, 0.0)
            path[k] = 0.5 * (before + fluid)
    found = []
    for k, level in enumerate(levels):
        here = path[k * _STEPS : (k + 1) * _STEPS]
        waits = here > 0.0
        wait = here[waits] if waits.any() else np.zeros(1)
        empty = 1.0 - float(waits.mean())
        found.append(Phase(float(level), float(level * stands[k]), empty, wait, np.ones(len(wait))))
    return tuple(found)
