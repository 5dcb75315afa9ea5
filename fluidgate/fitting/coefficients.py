"""What is fitted: the overhead upon times that are known, or all coefficients of a law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fluidgate.fitting.regression import Prior
from fluidgate.model import Array, IterationTime
from fluidgate.simulation.iteration.what_ran import TERMS


class Coefficients(Protocol):
    """What is fitted.

    Attributes:
        names: keys of a profile file.
        columns: by how much each of `TERMS` moves with each, shape (terms, coefficients).
        scales: whether they are all of an iteration's time, so that a factor on them is one on it.
    """

    @property
    def scales(self) -> bool: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def columns(self) -> Array: ...

    def start(self) -> Array:
        """What the first replay has; shape (coefficients,)."""

    def prior(self, start: Array) -> Prior:
        """What is taken for likely around a start that is of about the right size."""

    def iteration(self, values: Array) -> IterationTime:
        """The iteration time with these values."""


@dataclass(frozen=True)
class Overhead:
    """`overhead + overhead_per_decode * decodes` upon an iteration time; what it has already is fitted anew.

    Attributes:
        known: the iteration time.
        per_decode: whether the second is fitted, or 0.
    """

    known: IterationTime
    per_decode: bool = True
    scales: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return ("overhead", "overhead_per_decode")[: 1 + self.per_decode]

    @property
    def columns(self) -> Array:
        found = np.zeros((len(TERMS), 2))
        found[[TERMS.index("mixed iterations"), TERMS.index("solo iterations")], 0] = 1.0
        found[[TERMS.index("decodes beside them"), TERMS.index("solo decodes")], 1] = 1.0
        return found[:, : len(self.names)]

    def start(self) -> Array:
        return np.array([self.known.overhead, self.known.overhead_per_decode])[: len(self.names)]

    def prior(self, start: Array) -> Prior:
        return Prior(np.zeros((0, len(start))), np.zeros(0), np.zeros(0))

    def iteration(self, values: Array) -> IterationTime:
        given = dict(zip(self.names, (significant(value) for value in values), strict=True))
        return self.known.changed(**{"overhead_per_decode": 0.0, **given})


@dataclass(frozen=True)
class WholeLaw:
    """All terms of a law that is linear in chunk, decodes and context; `TERMS` in their order."""

    first: IterationTime
    scales: bool = True
    names: tuple[str, ...] = ("alpha", "beta", "delta", "epsilon", "zeta", "solo_alpha", "solo_delta", "solo_epsilon")

    @property
    def columns(self) -> Array:
        return np.eye(len(TERMS))

    def start(self) -> Array:
        first = self.first
        mixed = [max(first.alpha, 0.0) + first.overhead, first.beta, first.delta + first.overhead_per_decode]
        if first.gamma is not None:
            solo = [1.0 / first.gamma + first.overhead, first.overhead_per_decode, 0.0]
        else:
            alone = first.alone
            solo = [alone[0] + first.overhead, alone[1] + first.overhead_per_decode, alone[2]]
        return np.array([*mixed, first.epsilon, first.zeta, *solo])

    def prior(self, start: Array) -> Prior:
        """Each within about its own size of the start; terms with a chunk and without one within half of it alike."""
        alpha, beta = start[0], start[1]
        of_size = {"delta": DELTA_PER_ALPHA * alpha, "epsilon": EPSILON_PER_BETA * beta, "zeta": ZETA_PER_BETA * beta}
        of_size |= {"solo_delta": of_size["delta"], "solo_epsilon": of_size["epsilon"]}
        likely = np.maximum(start, [of_size.get(name, 0.0) for name in self.names])
        rows, means, sds = list(np.eye(len(start))), list(start), list(np.maximum(likely, LEAST_BETA * 1e-3 * start[0]))
        for one, other in TIES:
            i, j = self.names.index(one), self.names.index(other)
            both = np.zeros(len(start))
            both[i], both[j] = 1.0, -1.0
            rows.append(both)
            means.append(0.0)
            sds.append(TIED * max(likely[i], likely[j], 1e-15))
        return Prior(np.array(rows), np.array(means), np.array(sds))

    def iteration(self, values: Array) -> IterationTime:
        given = dict(zip(self.names, (significant(value) for value in values), strict=True))
        return IterationTime(**{**given, "beta": max(given["beta"], LEAST_BETA)})


def significant(value: float) -> float:
    """To 6 digits, as a file holds it, so that a replay is that of the file."""
    return float(f"{value:.6g}")


LIKELY = {
    "alpha": 0.01,
    "beta": 1e-4,
    "delta": 5e-5,
    "epsilon": 1e-7,
    "zeta": 4e-9,
    "solo_alpha": 0.01,
    "solo_delta": 5e-5,
    "solo_epsilon": 1e-7,
}
"""Where the fit of a whole law begins if nothing is known: an 8B model on a card of 1 TB/s, to be scaled."""
LEAST_BETA = 1e-9
"""s a token; a slope must be above 0."""
TIES = (("alpha", "solo_alpha"), ("delta", "solo_delta"), ("epsilon", "solo_epsilon"))
TIED = 0.5
DELTA_PER_ALPHA = 5e-3
EPSILON_PER_BETA = 1e-3
"""About what a decode adds to an iteration, and a token of its context to what one of a prompt does."""
ZETA_PER_BETA = 5e-5
"""Attention of a pair of tokens over all else of one, 4 layers hidden over 2 parameters, is 2e-5 to 5e-5."""
