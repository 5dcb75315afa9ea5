"""An iteration time that depends on its batch, fitted to measurements over many batch sizes.

Fitted by weighted least squares: relative errors are what is made small. Iteration times span a factor of ten and more
over a table, their noise grows with them, and what a run takes is wrong by the relative error of the iterations that it
consists of. Absolute errors would be those of the largest chunks alone, and leave the far more frequent iterations
without a chunk to chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.calibration.estimate import Estimate
from fluidgate.calibration.measurements import Measurements, Tokens
from fluidgate.calibration.regression import least_squares
from fluidgate.model import Array
from fluidgate.toml_file import fail

SMALL_CHUNK = 256
"""Where the region of small chunks ends, tokens."""

NONE_AT_ALL = Estimate(0.0, None, None)


@dataclass(frozen=True)
class Points:
    """The distinct triples of batch size, chunk size and context, each with the mean of its repeats; shape (points,).

    Attributes:
        batch_size: decodes.
        chunk_size: prompt tokens, 0 where the iteration is solo.
        context: tokens of context of each decode.
        seconds: mean iteration time, s.
    """

    batch_size: Tokens
    chunk_size: Tokens
    context: Array
    seconds: Array

    @staticmethod
    def of(rows: Measurements) -> Points:
        triples = np.column_stack([rows.batch_size, rows.chunk_size, rows.context])
        distinct, place, repeats = np.unique(triples, axis=0, return_inverse=True, return_counts=True)
        seconds = np.bincount(place.ravel(), weights=rows.seconds) / repeats
        return Points(distinct[:, 0].astype(np.int64), distinct[:, 1].astype(np.int64), distinct[:, 2], seconds)

    def select(self, kept: NDArray[np.bool_]) -> Points:
        return Points(self.batch_size[kept], self.chunk_size[kept], self.context[kept], self.seconds[kept])


@dataclass(frozen=True)
class Region:
    """How far the law lies from the measurements in one part of the table.

    Attributes:
        name: of the part.
        points: how many.
        mean: relative error, law over measurement less 1, averaged.
        largest: the one of the greatest size.
        batch_size, chunk_size: where that is.
    """

    name: str
    points: int
    mean: float
    largest: float
    batch_size: int
    chunk_size: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "region": self.name,
            "points": self.points,
            "mean": self.mean,
            "largest": self.largest,
            "batch_size": self.batch_size,
            "chunk_size": self.chunk_size,
        }


@dataclass(frozen=True)
class BatchFit:
    """`alpha + beta C + delta B + epsilon context` on mixed iterations; intercept and slope apart on solo ones.

    Attributes:
        alpha, beta, delta: s, s per prompt token, s per decode.
        solo_alpha, solo_delta: s, s per decode; None where no solo iterations were measured.
        epsilon: s per token of context; given, not fitted.
        points: what was measured.
        min_chunk: the least chunk size that was fitted, tokens.
    """

    alpha: Estimate
    beta: Estimate
    delta: Estimate
    solo_alpha: Estimate | None
    solo_delta: Estimate | None
    epsilon: float
    points: Points
    min_chunk: int

    @property
    def law(self) -> Array:
        """Seconds by the law at each point."""
        points = self.points
        mixed = self.alpha.value + self.beta.value * points.chunk_size + self.delta.value * points.batch_size
        if self.solo_alpha is not None and self.solo_delta is not None:
            solo = self.solo_alpha.value + self.solo_delta.value * points.batch_size
            mixed = np.where(points.chunk_size == 0, solo, mixed)
        return np.asarray(mixed + self.epsilon * points.context * points.batch_size)

    @property
    def relative(self) -> Array:
        """The law over the measured time, less 1, at each point."""
        return np.asarray(self.law / self.points.seconds - 1.0)

    def regions(self) -> Iterator[Region]:
        """The parts of the table that hold any point."""
        chunk = self.points.chunk_size
        parts = {
            "solo (C = 0)": chunk == 0,
            f"small chunks (C < {SMALL_CHUNK})": (chunk > 0) & (chunk < SMALL_CHUNK),
            f"chunks (C >= {SMALL_CHUNK})": chunk >= SMALL_CHUNK,
        }
        for name, part in parts.items():
            if part.any():
                errors = self.relative[part]
                worst = int(np.abs(errors).argmax())
                here = self.points.select(part)
                yield Region(
                    name,
                    int(part.sum()),
                    float(errors.mean()),
                    float(errors[worst]),
                    int(here.batch_size[worst]),
                    int(here.chunk_size[worst]),
                )


def fit_batches(rows: Measurements, epsilon: float, min_chunk: int = 1) -> BatchFit:
    """The fit to rows over several batch sizes and chunk sizes; repeats count as one point.

    Args:
        epsilon: s per token of context; its share in each row is taken out first.
        min_chunk: the least chunk size that is fitted, tokens.

    Raises:
        FluidgateError: the rows do not tell the coefficients, or epsilon is more than they hold.
    """
    points = Points.of(rows)
    mixed = points.select(points.chunk_size >= max(1, min_chunk))
    for what, values in {"chunk size": mixed.chunk_size, "batch size": mixed.batch_size}.items():
        if len(np.unique(values)) < 2:
            fail(rows.source, [f"a slope in the {what} needs two of them in mixed rows; measure more of them"])
    alpha, beta, delta = _fitted(mixed, epsilon, [mixed.chunk_size, mixed.batch_size])
    if beta.value <= 0.0:
        reason = f"the mixed time does not grow with the chunk size ({beta.value:.3g} s/token)"
        fail(rows.source, [f"beta: {reason}; measure larger chunks, or check the columns"])
    solo = points.select(points.chunk_size == 0)
    solo_alpha, solo_delta = None, None
    if len(np.unique(solo.batch_size)) > 1:
        solo_alpha, solo_delta = _fitted(solo, epsilon, [solo.batch_size])
    elif len(solo.batch_size):  # one batch size: the slope of the mixed ones
        rest = solo.seconds - (epsilon * solo.context + delta.value) * solo.batch_size
        solo_alpha, solo_delta = Estimate(float(rest.mean()), None, None), delta
    fitted = BatchFit(alpha, beta, delta, solo_alpha, solo_delta, epsilon, points, min_chunk)
    smallest = (alpha.value + beta.value, (alpha if solo_alpha is None else solo_alpha).value)
    if min(smallest) <= 0.0:
        reason = f"the law gives {1e3 * min(smallest):.3g} ms for the smallest iteration"
        fail(rows.source, [f"{reason}; check the columns and --context, or fit other chunks with --min-chunk"])
    return fitted


def _fitted(points: Points, epsilon: float, regressors: list[Tokens]) -> list[Estimate]:
    """Intercept and slopes by least squares of the relative errors; the last slope, of the decodes, at least 0."""
    rest = points.seconds - epsilon * points.context * points.batch_size
    design = np.column_stack([np.ones(len(rest)), *regressors]) / points.seconds[:, None]
    found = least_squares(design, rest / points.seconds)
    slope = found.estimate(len(regressors))
    if slope.value >= 0.0:
        return [found.estimate(k) for k in range(len(regressors) + 1)]
    without = least_squares(design[:, :-1], rest / points.seconds)
    return [*(without.estimate(k) for k in range(len(regressors))), NONE_AT_ALL]
