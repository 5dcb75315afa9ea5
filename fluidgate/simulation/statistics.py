"""Means over replications with their confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fluidgate.model import Array


@dataclass(frozen=True, repr=False)
class Statistic:
    """A quantity over independent replications.

    Attributes:
        mean: None where the quantity is not defined (nothing was observed).
        std: over replications, ddof 1; None for fewer than two.
        ci95: 95 % confidence interval of the mean, Student t over replications; None for fewer than two.
        values: one a replication, nan where it is not defined.
    """

    mean: float | None
    std: float | None
    ci95: tuple[float, float] | None
    values: tuple[float, ...]

    def __str__(self) -> str:
        if self.mean is None or self.ci95 is None:
            return "-" if self.mean is None else f"{self.mean:.4g}"
        return f"{self.mean:.4g} ±{(self.ci95[1] - self.ci95[0]) / 2:.2g}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __float__(self) -> float:
        """The mean; nan where there is none."""
        return math.nan if self.mean is None else self.mean

    def parts(self) -> dict[str, Statistic]:
        """Statistics that go with it, such as percentiles."""
        return {}

    def columns(self, name: str) -> dict[str, float | None]:
        """Mean and ends of the interval, as columns of a data frame."""
        low, high = self.ci95 or (None, None)
        return {name: self.mean, f"{name}_low": low, f"{name}_high": high}

    def to_dict(self) -> dict[str, object]:
        return {
            "mean": self.mean,
            "std": self.std,
            "ci95": None if self.ci95 is None else list(self.ci95),
        }


def statistic(values: Array | list[float]) -> Statistic:
    """The statistic of one value a replication; replications where it is nan are left out."""
    every = np.asarray(values, dtype=np.float64)
    seen = every[np.isfinite(every)]
    kept = tuple(float(v) for v in every)
    if len(seen) == 0:
        return Statistic(None, None, None, kept)
    mean = float(seen.mean())
    if len(seen) < 2:
        return Statistic(mean, None, None, kept)
    from scipy.special import stdtrit

    std = float(seen.std(ddof=1))
    half = float(stdtrit(len(seen) - 1, 0.975)) * std / math.sqrt(len(seen))
    return Statistic(mean, std, (mean - half, mean + half), kept)


def ratio(values: Array, to: float) -> Array:
    """`values` over `to`; nan where there is no such number."""
    return values / to if to > 0 else np.full_like(values, np.nan)
