"""An estimated number with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from fluidgate.shown import Brief, rate


@dataclass(frozen=True, repr=False)
class Estimate(Brief):
    """A value, its standard error and its 95 % confidence interval (Student t).

    The last two are None where the data leave no degree of freedom to tell them.
    """

    value: float
    std_error: float | None
    ci95: tuple[float, float] | None

    def headline(self) -> str:
        half = "" if self.ci95 is None else f" ±{(self.ci95[1] - self.ci95[0]) / 2:.2g}"
        return f"{rate(self.value)}{half}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def t(self) -> float | None:
        """The value over its standard error; None where that is unknown or 0."""
        return self.value / self.std_error if self.std_error else None


def estimate(value: float, variance: float | None, degrees: int) -> Estimate:
    """The estimate with a variance that was itself estimated with `degrees` degrees of freedom."""
    from scipy.special import stdtrit

    if variance is None or degrees < 1:
        return Estimate(value, None, None)
    std_error = math.sqrt(variance)
    half = float(stdtrit(degrees, 0.975)) * std_error
    return Estimate(value, std_error, (value - half, value + half))


def mean_of(values: list[float]) -> Estimate:
    """The mean of independent values."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Estimate(mean, None, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return estimate(mean, variance / len(values), len(values) - 1)
