"""The arrivals of a replication, drawn a block at a time: the same for every policy.

Each is a gap and a mark, in this order off one stream of random numbers.
"""

from __future__ import annotations

from typing import Any, Protocol

from numpy.random import SFC64, Generator, SeedSequence

from fluidgate.compiled import kept
from fluidgate.compiled.random import exponential, stream, uniform


class Arrivals(Protocol):
    """Draws the arrivals of a replication."""

    def fill(self, block: Any) -> None:
        """Draw as many as the block has room for; dtype ARRIVAL_DRAW."""


class PoissonArrivals:
    """Exponential gaps."""

    def __init__(self, rate: float, seed: SeedSequence) -> None:
        """
        Args:
            rate: of the whole cluster, 1/s.
        """
        self._rate = rate
        self._state = stream(seed)

    def fill(self, block: Any) -> None:
        _fill_poisson(self._state, self._rate, block["gap"], block["mark"])


class GammaArrivals:
    """Gaps of a Gamma distribution."""

    def __init__(self, rate: float, shape: float, seed: SeedSequence) -> None:
        self._rate, self._shape = rate, shape
        self._generator = Generator(SFC64(seed))

    def fill(self, block: Any) -> None:
        _fill_gamma(self._generator, self._rate, self._shape, block["gap"], block["mark"])


def arrivals_of(rate: float, gap_shape: float, seed: SeedSequence) -> Arrivals:
    """Arrivals at `rate` a second whose gaps have a Gamma distribution of that shape; of shape 1, exponential ones."""
    return PoissonArrivals(rate, seed) if gap_shape == 1.0 else GammaArrivals(rate, gap_shape, seed)


def fill_poisson(state, rate, gaps, marks):
    for k in range(gaps.size):
        gaps[k] = exponential(state) / rate
        marks[k] = uniform(state)


def fill_gamma(generator, rate, shape, gaps, marks):
    for k in range(gaps.size):
        gaps[k] = generator.standard_gamma(shape) / (shape * rate)
        marks[k] = generator.random()


_fill_poisson = kept(fill_poisson)
_fill_gamma = kept(fill_gamma, allocates=True)
