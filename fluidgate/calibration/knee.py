"""The knee form of the iteration time, [LDHZ] (1): flat up to `b0` tokens, then a line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fluidgate.calibration.regression import FTest, f_test, least_squares
from fluidgate.model import Array
from fluidgate.shown import Brief

SIGNIFICANT = 0.01


@dataclass(frozen=True, repr=False)
class Knee(Brief):
    """`tau(b) = c + a max(0, b - b0)`, where `b` counts the tokens of the iteration (chunk + decodes).

    Attributes:
        c: iteration time below the knee, s.
        a: slope above it, s/token.
        b0: the knee, tokens.
        r_squared: share of the variance that the form explains.
        test: F test against the line `c + a b`. It is approximate, for `b0` does not enter linearly.
    """

    c: float
    a: float
    b0: float
    r_squared: float
    test: FTest

    def seconds(self, tokens: float) -> float:
        """The iteration time with that many tokens, s."""
        return self.c + self.a * max(0.0, tokens - self.b0)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def find_knee(tokens: Array, seconds: Array) -> Knee | None:
    """The best knee form, where it is better than the line at the 1 % level; else None.

    The residual sum of squares is not convex in `b0`. So every split of the points into flat and rising ones is
    tried: with each side fitted alone, the two meet at `b0` if that lies within the split, else at a point. This is
    exact (Hudson, "Fitting segmented curves whose join points have to be estimated", JASA 61, 1966), where a
    general optimiser may stop in a local minimum. At least two different numbers of tokens lie on either side.

    Args:
        tokens: shape (points,).
        seconds: shape (points,), s.
    """
    order = np.argsort(tokens, kind="stable")
    b, tau = tokens[order].astype(float), seconds[order]
    distinct = np.unique(b)
    if len(distinct) < 4:
        return None
    line = least_squares(np.column_stack([np.ones_like(b), b]), tau)
    best = min((_at(b, tau, b0) for b0 in _candidates(b, tau, distinct)), key=lambda fit: fit[0])
    rss, c, a, b0 = best
    test = f_test(line.rss, rss, 1, len(b) - 3)
    if test is None or test.p is None or test.p >= SIGNIFICANT or a <= 0 or line.tss == 0:
        return None
    return Knee(c=c, a=a, b0=b0, r_squared=1.0 - rss / line.tss, test=test)


def _candidates(b: Array, tau: Array, distinct: Array) -> list[float]:
    """Where the knee of the best fit can lie: at a point, or where the two sides' own fits meet between points."""
    found = [float(point) for point in distinct[1:-2]]
    for before, after in pairwise(distinct[1:-1]):
        right = b >= after
        level = tau[~right].mean()
        alpha, slope = least_squares(np.column_stack([np.ones(right.sum()), b[right]]), tau[right]).coefficients
        if slope > 0 and before <= (level - alpha) / slope <= after:
            found.append(float((level - alpha) / slope))
    return found


def _at(b: Array, tau: Array, b0: float) -> tuple[float, float, float, float]:
    """Residual sum of squares, `c`, `a` and `b0` of the best form with that knee."""
    fit = least_squares(np.column_stack([np.ones_like(b), np.maximum(0.0, b - b0)]), tau)
    return fit.rss, float(fit.coefficients[0]), float(fit.coefficients[1]), b0
