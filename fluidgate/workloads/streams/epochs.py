"""Epochs of drawn arrivals.

All processes are one: a renewal process at the mean rate, and a clock that turns its seconds into real ones. Where the
rate changes, in phases or by the hour, the clock inverts the integral of the rate. That is exact, as thinning is, and
throws no arrival away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fluidgate.model import Array, Arrivals

Clock = Callable[[Array], Array]
"""Seconds from seconds at the mean rate, both ascending."""

PHASES = 1024
"""Phases drawn at a time."""


def epochs(arrivals: Arrivals, rate: float, gaps: Generator, phases: Generator, size: int) -> Iterator[Array]:
    """Blocks of `size` arrival epochs, s, ascending, without end.

    Args:
        arrivals: the process.
        rate: mean rate in the long run, 1/s.
        gaps, phases: random streams.
    """
    clock = clock_of(arrivals, phases)
    last = 0.0
    for work in renewals(arrivals.gap_shape, gaps, size):
        times = clock(work / rate)
        times[0] = max(times[0], last)
        times = np.maximum.accumulate(times)  # where the rate changes, rounding may set two epochs back by a bit
        last = float(times[-1])
        yield times


def renewals(shape: float, random: Generator, size: int) -> Iterator[Array]:
    """Blocks of epochs of a renewal process with Gamma gaps of mean 1 and the given shape."""
    last = 0.0
    while True:
        gaps = random.standard_exponential(size) if shape == 1.0 else random.standard_gamma(shape, size) / shape
        gaps[0] += last
        block = np.cumsum(gaps)
        last = float(block[-1])
        yield block


def clock_of(arrivals: Arrivals, random: Generator) -> Clock:
    """The clock of a process."""
    if arrivals.process == "mmpp":
        return PhaseClock(np.array(arrivals.levels), np.array(arrivals.sojourns), random)
    if arrivals.process == "daily":
        return periodic_clock(np.array(arrivals.weights), arrivals.period)
    return lambda seconds: seconds


def periodic_clock(weights: Array, period: float) -> Clock:
    """The clock of a rate that is proportional to `weights` in equal parts of a period."""
    level = weights / weights.max()
    level /= level.mean()
    part = period / len(weights)
    edge = part * np.arange(len(weights) + 1)
    done = np.concatenate([[0.0], np.cumsum(level * part)[:-1]])  # seconds at the mean rate by the start of each part
    last = np.flatnonzero(level)[-1]

    def clock(seconds: Array) -> Array:
        cycle, rest = np.divmod(seconds, period)
        k = np.minimum(np.searchsorted(done, rest, side="right") - 1, last)
        within = np.minimum(edge[k] + (rest - done[k]) / level[k], edge[k + 1])
        return np.asarray(cycle * period + within)

    return clock


class PhaseClock:
    """The clock of a rate that stands at a level for an exponential time, then at another.

    The first phase is drawn from the law of the phase at any time, so that the process is stationary.
    """

    def __init__(self, levels: Array, sojourns: Array, random: Generator) -> None:
        relative = levels / levels.max()
        self._level = relative * (sojourns.sum() / (relative @ sojourns))
        self._sojourn = sojourns
        self._random = random
        edges = np.cumsum(sojourns) / sojourns.sum()
        self._phase = min(int(np.searchsorted(edges, random.random(), side="right")), len(sojourns) - 1)
        # Of each phase that lies ahead: its start in seconds and in seconds at the mean rate, and its level.
        self._start, self._done, self._levels = np.zeros(1), np.zeros(1), np.zeros(0)

    def __call__(self, seconds: Array) -> Array:
        self._forget(float(seconds[0]))
        self._extend(float(seconds[-1]))
        k = np.searchsorted(self._done, seconds, side="right") - 1
        return np.asarray(self._start[k] + (seconds - self._done[k]) / self._levels[k])

    def _forget(self, before: float) -> None:
        """Drop the phases that ended before; the last entry of `_start` and `_done` is where the next phase begins."""
        first = max(0, int(np.searchsorted(self._done, before, side="right")) - 1)
        first = min(first, len(self._levels))
        self._start, self._done, self._levels = self._start[first:], self._done[first:], self._levels[first:]

    def _extend(self, beyond: float) -> None:
        """Draw phases until the last begins beyond."""
        starts, dones, levels = [self._start], [self._done], [self._levels]
        while dones[-1][-1] <= beyond:
            phases = self._next_phases()
            lasting = self._sojourn[phases] * self._random.standard_exponential(PHASES)
            level = self._level[phases]
            starts.append(_continued(starts[-1][-1], lasting))
            dones.append(_continued(dones[-1][-1], lasting * level))
            levels.append(level)
        self._start, self._done, self._levels = map(np.concatenate, (starts, dones, levels))

    def _next_phases(self) -> NDArray[np.int64]:
        others = len(self._sojourn) - 1
        steps = 1 + np.minimum((self._random.random(PHASES) * others).astype(np.int64), others - 1)
        phases = (self._phase + np.concatenate([[0], np.cumsum(steps)])) % (others + 1)
        self._phase = int(phases[-1])
        return np.asarray(phases[:-1], np.int64)


def _continued(last: float, steps: Array) -> Array:
    """The sums of `last` and the first steps, one after the other."""
    return np.cumsum(np.concatenate([[last], steps]))[1:]
