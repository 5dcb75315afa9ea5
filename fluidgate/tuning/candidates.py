"""Which values of the parameters are tried: points that fill a box, and a smaller box around the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats.qmc import Sobol

from fluidgate.policies import Parameter

DIGITS = 4
"""Decimals that a tried value keeps, relative to the parameter's range."""


@dataclass(frozen=True)
class Box:
    """A part of the parameters' ranges, the sides in the order of the parameters."""

    parameters: tuple[Parameter, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def whole(cls, parameters: Sequence[Parameter]) -> Box:
        """All values that the parameters may have."""
        return cls(tuple(parameters), tuple(p.low for p in parameters), tuple(p.high for p in parameters))

    @property
    def points(self) -> int:
        """How many points fill it: 8 for one parameter, 16 for two ..."""
        return int(2 ** (len(self.parameters) + 2))

    def fill(self, seed: int) -> list[dict[str, float]]:
        """Scrambled Sobol points, rounded; whole parameters to whole numbers."""
        unit = Sobol(len(self.parameters), scramble=True, seed=seed).random(self.points)
        low, high = np.array(self.low), np.array(self.high)
        return [self._rounded(point) for point in low + unit * (high - low)]

    def around(self, centre: dict[str, float]) -> Box:
        """A box around a point whose sides are as long as two points of this one are apart."""
        reach = self.points ** (-1 / len(self.parameters))
        low, high = [], []
        for p, a, b in zip(self.parameters, self.low, self.high, strict=True):
            half = reach * (b - a)
            low.append(max(p.low, centre[p.name] - half))
            high.append(min(p.high, centre[p.name] + half))
        return Box(self.parameters, tuple(low), tuple(high))

    def _rounded(self, point: Sequence[float]) -> dict[str, float]:
        values = {}
        for p, value in zip(self.parameters, point, strict=True):
            step = 1.0 if p.whole else 10.0 ** (round(np.log10(p.high - p.low)) - DIGITS)
            rounded = round(float(np.clip(np.rint(value / step) * step, p.low, p.high)), 12)
            values[p.name] = rounded
        return values
