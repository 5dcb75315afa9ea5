"""Whether the model's two assumptions hold: a line in the chunk size, and times flat in the batch size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fluidgate.calibration.estimate import Estimate
from fluidgate.calibration.measurements import Measurements
from fluidgate.calibration.regression import FTest, f_test, least_squares
from fluidgate.model import Array
from fluidgate.shown import Brief


@dataclass(frozen=True, repr=False)
class Slope(Brief):
    """How an iteration time changes with the batch size.

    Attributes:
        slope: s per decode.
        p: of the t test that the slope is 0 (two-sided); None without degrees of freedom.
        change: what the slope adds from the least batch size to the greatest, relative to the mean time.
    """

    slope: Estimate
    p: float | None
    change: float

    def to_dict(self) -> dict[str, Any]:
        return {**self.slope.to_dict(), "t": self.slope.t, "p": self.p, "change": self.change}


@dataclass(frozen=True, repr=False)
class Flatness(Brief):
    """Solo and mixed iteration time against the batch size; None where there is one batch size only."""

    solo: Slope | None
    mixed: Slope | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "solo": None if self.solo is None else self.solo.to_dict(),
            "mixed": None if self.mixed is None else self.mixed.to_dict(),
        }


def curvature(rows: Measurements, min_chunk: int) -> FTest | None:
    """The F test of a term in C² beside a line in C, over the pairs' means.

    Each batch size has its own line; the quadratic coefficient is common. None without degrees of freedom.
    """
    pairs = rows.pairs
    pairs = pairs.select(pairs.chunk_size >= max(1, min_chunk))
    if not len(pairs.seconds):
        return None
    of_batch = (pairs.batch_size[:, None] == np.unique(pairs.batch_size)[None, :]).astype(float)
    chunk = pairs.chunk_size[:, None].astype(float)
    lines = np.hstack([of_batch, of_batch * chunk])
    straight = least_squares(lines, pairs.seconds)
    curved = least_squares(np.hstack([lines, chunk**2]), pairs.seconds)
    return f_test(straight.rss, curved.rss, straight.degrees - curved.degrees, curved.degrees)


def flatness(rows: Measurements, min_chunk: int) -> Flatness:
    """The slopes over the batch size, by rows: of the solo time, and of the mixed time beside its line in C."""
    solo, mixed = rows.select(rows.solo), rows.select(rows.chunk_size >= max(1, min_chunk))
    return Flatness(
        solo=_slope(solo, np.ones((len(solo), 1))),
        mixed=_slope(mixed, np.column_stack([np.ones(len(mixed)), mixed.chunk_size])),
    )


def _slope(rows: Measurements, beside: Array) -> Slope | None:
    from scipy.special import stdtr

    if len(np.unique(rows.batch_size)) < 2:
        return None
    fit = least_squares(np.column_stack([beside, rows.batch_size]), rows.seconds)
    slope = fit.estimate(beside.shape[1])
    p = None
    if slope.std_error is not None:
        p = 0.0 if slope.t is None else float(2.0 * stdtr(fit.degrees, -abs(slope.t)))
    span = float(rows.batch_size.max() - rows.batch_size.min())
    return Slope(slope, p, slope.value * span / float(rows.seconds.mean()))
