"""Average time per output token, as a limit's function and as a penalty."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class AverageTpot:
    """Left side of (47), `f(X) = (tau (B-1) X + (B/gamma)(1-X)) / (B - X)`, s, of the mixed fraction `X`.

    For `B` = 1 no decode ever runs beside a prefill and `f = 1/gamma`.
    """

    batch: int
    tau: float
    gamma: float

    def __call__(self, fraction: float) -> float:
        if self.batch == 1:
            return 1.0 / self.gamma
        slots = self.batch - fraction
        return (self.tau * (self.batch - 1) * fraction + self.batch / self.gamma * (1.0 - fraction)) / slots

    @property
    def bend(self) -> float:
        """`B (B-1) (tau - 1/gamma)`: `f' = bend / (B-X)^2`."""
        return self.batch * (self.batch - 1) * (self.tau - 1.0 / self.gamma)

    def slope(self, fraction: float) -> float:
        """`f'(X)`, s."""
        return self.bend / (self.batch - fraction) ** 2 if self.bend else 0.0


@dataclass(frozen=True)
class Tangent:
    """A line that touches the concave `V(X)`, the best objective at `sum x = X`, at `fraction`."""

    fraction: float
    value: float
    slope: float

    def at(self, fraction: float) -> float:
        return self.value + self.slope * (fraction - self.fraction)

    def crossing(self, right: Tangent) -> float:
        """Where this tangent meets one that touches further right, between the two points."""
        bend = self.slope - right.slope
        if bend <= 0:
            return self.fraction
        meeting = self.fraction + (right.at(self.fraction) - self.value) / bend
        return min(max(meeting, self.fraction), right.fraction)

    def chord(self, right: Tangent) -> Tangent:
        """The line through both points."""
        slope = (right.value - self.value) / (right.fraction - self.fraction)
        return Tangent(self.fraction, self.value, slope)


@dataclass(frozen=True)
class _Penalised:
    """`V(X) - weight f(X)` on straight pieces of `V`."""

    tpot: AverageTpot
    weight: float

    def best_on(self, line: Tangent, left: float, right: float) -> tuple[float, float]:
        """The largest `line - weight f` over `left..right`, and where it is reached."""
        places = [left, right]
        bend = self.weight * self.tpot.bend
        if bend > 0 and line.slope > 0:
            stationary = self.tpot.batch - math.sqrt(bend / line.slope)
            if left < stationary < right:
                places.append(stationary)
        return max((line.at(x) - self.weight * self.tpot(x), x) for x in places)


def best_mixed_fraction(touch: Callable[[float], Tangent], tpot: AverageTpot, weight: float) -> float:
    """The mixed fraction that maximises `V(X) - weight f(X)`: the penalty (48), exactly and globally.

    `V` is concave and piecewise linear. Tangents bracket its breakpoints (Eisner and Severance 1976); a
    bracket is left when its upper bound, the lower of its two tangents less the penalty, cannot beat the best
    point. On a straight piece the best point is the stationary one (`kappa > 1`) or an end (`kappa < 1`).

    Args:
        touch: `touch(s)` is the tangent of `V` of slope `s`.
        tpot: the ratio `f`.
        weight: `eta_3'`, objective per second.
    """
    penalised = _Penalised(tpot, weight)
    slopes = [weight * tpot.slope(0.0), weight * tpot.slope(1.0)]
    left, right = touch(max(slopes)), touch(min(slopes))
    best = max(penalised.best_on(end, end.fraction, end.fraction) for end in (left, right))
    tolerance = 1e-13 * max(abs(left.value), abs(right.value), weight * tpot.tau, weight / tpot.gamma)
    brackets = [(left, right)]
    while brackets:
        left, right = brackets.pop()
        if right.fraction - left.fraction <= 1e-13:
            continue
        crossing = left.crossing(right)
        bound = max(
            penalised.best_on(left, left.fraction, crossing),
            penalised.best_on(right, crossing, right.fraction),
        )
        if bound[0] <= best[0] + tolerance:
            continue
        chord = left.chord(right)
        middle = touch(chord.slope)
        if middle.value <= chord.at(middle.fraction) + tolerance:
            best = max(best, penalised.best_on(chord, left.fraction, right.fraction))
        else:
            brackets += [(left, middle), (middle, right)]
    return best[1]
