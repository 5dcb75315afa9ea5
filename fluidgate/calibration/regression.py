"""Ordinary least squares with standard errors, and the F test between nested fits.

Fitted by numpy's `lstsq`: `scipy.stats.linregress` knows one regressor only, and flatness and linearity need two
or more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fluidgate.calibration.estimate import Estimate, estimate
from fluidgate.model import Array
from fluidgate.shown import Brief

ROUNDING = 1e-13
"""Residuals below this share of the response are rounding, and count as none."""


@dataclass(frozen=True)
class Regression:
    """A least-squares fit of `points` responses by coefficients, an array of shape (coefficients,).

    Attributes:
        covariance: of the coefficients, shape (coefficients, coefficients); None without degrees of freedom.
        rss: residual sum of squares.
        tss: sum of squares about the mean response.
        degrees: points less the rank of the design.
    """

    coefficients: Array
    covariance: Array | None
    rss: float
    tss: float
    degrees: int

    @property
    def r_squared(self) -> float | None:
        """Share of the variance that the fit explains; None where the response does not vary."""
        return 1.0 - self.rss / self.tss if self.tss > 0 else None

    def estimate(self, index: int) -> Estimate:
        variance = None if self.covariance is None else float(self.covariance[index, index])
        return estimate(float(self.coefficients[index]), variance, self.degrees)


@dataclass(frozen=True, repr=False)
class FTest(Brief):
    """Whether a larger fit is better than chance allows.

    `f` is None where the larger fit leaves no residual, `p` too where the smaller one leaves none either.
    """

    f: float | None
    p: float | None
    degrees: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def least_squares(design: Array, response: Array) -> Regression:
    """The ordinary least-squares fit; `design` has shape (points, coefficients)."""
    size = np.abs(design).max(axis=0)
    scale = np.where(size > 0, size, 1.0)
    scaled = design / scale
    solution, _, rank, _ = np.linalg.lstsq(scaled, response, rcond=None)
    rss = float(np.sum((response - scaled @ solution) ** 2))
    if rss <= ROUNDING**2 * float(response @ response):
        rss = 0.0
    degrees = len(response) - int(rank)
    covariance = None
    if degrees > 0:
        covariance = rss / degrees * np.linalg.pinv(scaled.T @ scaled) / np.outer(scale, scale)
    tss = float(np.sum((response - response.mean()) ** 2))
    return Regression(solution / scale, covariance, rss, tss, degrees)


def f_test(smaller: float, larger: float, more: int, degrees: int) -> FTest | None:
    """The F test of residual sums `smaller` and `larger` (of the smaller and the larger fit).

    Args:
        more: coefficients that the larger fit has more.
        degrees: degrees of freedom of the larger fit.

    Returns:
        None without degrees of freedom.
    """
    from scipy.special import fdtrc

    if degrees < 1 or more < 1:
        return None
    if larger == 0:
        return FTest(None, 0.0 if smaller > 0 else None, (more, degrees))
    f = max(0.0, (smaller - larger) / more / (larger / degrees))
    return FTest(f, float(fdtrc(more, degrees, f)), (more, degrees))
