"""Laws of times on a grid: masses at 0, h, 2h, ..., convolved, mixed, and read as quantiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluidgate.model import Array
from fluidgate.shown import Brief, rate

POINTS = 8192
"""Of a grid."""


@dataclass(frozen=True, repr=False)
class Grid(Brief):
    """Times 0, h, ..., (POINTS - 1) h; `step` is h, s. What lies beyond is at the last."""

    step: float

    @staticmethod
    def up_to(longest: float) -> Grid:
        return Grid(max(longest, 1e-9) / (POINTS - 1))

    @property
    def times(self) -> Array:
        return np.asarray(self.step * np.arange(POINTS), float)

    def at(self, times: Array, weights: Array | float = 1.0) -> Array:
        """Masses of requests with given times, shared by the two points around so that the mean stays; sum 1."""
        place = np.clip(times / self.step, 0.0, POINTS - 1.0)
        low = np.minimum(place.astype(np.int64), POINTS - 2)
        share, weight = place - low, np.broadcast_to(weights, place.shape)
        total = float(weight.sum())
        found = np.bincount(low, weight * (1.0 - share), POINTS) + np.bincount(low + 1, weight * share, POINTS)
        return np.asarray(found / total)

    def exponential(self, mean: float) -> Array:
        """Masses of the exponential law, its mean kept."""
        if mean < 1e-3 * self.step:
            return self.at(np.array([mean]))
        return self._of_integral(self.times + mean * np.expm1(-np.minimum(self.times / mean, 700.0)))

    def uniform(self, low: float, high: float) -> Array:
        """Masses of the uniform law between two times, its mean kept."""
        if high - low < 1e-3 * self.step:
            return self.at(np.array([0.5 * (low + high)]))
        inside = np.clip(self.times, low, high) - low
        return self._of_integral(inside**2 / (2.0 * (high - low)) + np.maximum(self.times - high, 0.0))

    def _of_integral(self, integral: Array) -> Array:
        """Masses from the integral of the distribution function: its second differences over h."""
        slope = np.diff(integral, prepend=0.0) / self.step
        slope = np.append(slope[1:], 1.0)
        return np.diff(np.minimum(slope, 1.0), prepend=0.0)

    def mean_of(self, weights: Array) -> float:
        """Mean of the times by some weights, s."""
        return float(self.times @ weights / weights.sum())

    def sum_of(self, *masses: Array) -> Array:
        """Masses of the sum of independent times."""
        product = transform(masses[0])
        for each in masses[1:]:
            product = product * transform(each)
        return back(product)


def transform(masses: Array) -> Array:
    """The Fourier transform, by which sums of independent times are products."""
    return np.asarray(np.fft.rfft(masses, 2 * POINTS))


def back(product: Array) -> Array:
    """Masses from a product of transforms; what lies beyond the grid is at its last point."""
    found = np.fft.irfft(product, 2 * POINTS)
    masses = np.maximum(found[:POINTS], 0.0)
    masses[-1] += max(1.0 - float(masses.sum()), 0.0)
    return np.asarray(masses / masses.sum())


@dataclass(frozen=True, eq=False, repr=False)
class Time(Brief):
    """The law of a time, s.

    Attributes:
        grid: its points.
        masses: at these, sum 1; None where the time has no bound, because more arrives than is served.
    """

    grid: Grid
    masses: Array | None

    def headline(self) -> str:
        return f"mean {rate(self.mean)} s, p99 {rate(self.quantile(0.99))} s"

    @property
    def mean(self) -> float:
        """s; inf where it has no bound."""
        return float("inf") if self.masses is None else float(self.masses @ self.grid.times)

    def quantile(self, share: float) -> float:
        """The time within which that share of the requests stays, s; inf where it has no bound.

        Args:
            share: in 0..1.
        """
        if self.masses is None:
            return float("inf")
        below = np.cumsum(self.masses) - 0.5 * self.masses
        k = int(np.searchsorted(below, share))
        if k == 0 or k == POINTS:
            return float(self.grid.step * min(k, POINTS - 1))
        part = (share - below[k - 1]) / max(below[k] - below[k - 1], 1e-300)
        return float(self.grid.step * (k - 1 + part))

    def share_within(self, limit: float) -> float:
        """Share of the requests whose time is at most `limit`, s; 0 where it has no bound."""
        if self.masses is None:
            return 0.0
        below = np.cumsum(self.masses) - 0.5 * self.masses
        return float(np.interp(limit, self.grid.times, below, left=0.0, right=1.0))


UNBOUNDED = Time(Grid(1.0), None)


def mixture(times: list[Time], weights: Array) -> Time:
    """The law of the time of a request that is one of several kinds with given weights, on the coarsest of grids."""
    if any(time.masses is None for time in times):
        return UNBOUNDED
    grid = max((time.grid for time in times), key=lambda each: each.step)
    masses = np.zeros(POINTS)
    for time, weight in zip(times, weights / weights.sum(), strict=True):
        assert time.masses is not None
        own = time.masses if time.grid == grid else grid.at(time.grid.times, time.masses)
        masses += weight * own
    return Time(grid, masses)
