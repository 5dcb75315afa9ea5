"""Whether rows of the same sizes are repeats of one measurement, or of several GPUs, models or contexts in one file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluidgate.calibration.measurements import Measurements
from fluidgate.calibration.regression import f_test
from fluidgate.model import Array
from fluidgate.toml_file import fail

NOTICEABLE = math.log(1.1)
"""Log of the ratio that the values of a column must make somewhere before they are told apart."""

SIGNIFICANT = 0.001
"""Of the F test that a column's values make a difference, the same factor at all sizes."""

NEVER_NOISE = math.log(1.5)
"""Log of the ratio of slowest to fastest, at half of the sizes, that repeats of one measurement never have."""

EXPLAINED = 0.75
"""Share of such a scatter that a column must explain, where the rows are too few for a test."""

REPEAT = "repeat"
"""The column that numbers repeats, as probes write it: a machine that drifts is no other machine."""

Groups = NDArray[np.intp]


@dataclass(frozen=True)
class Difference:
    """What the values of a column make of the times, beside the sizes.

    Attributes:
        column: its name.
        values: the distinct ones, in the order of the rows.
        factor: log of the largest ratio that they make at any sizes.
        explained: share of the scatter within the sizes.
        p: of the F test; 1 without degrees of freedom.
    """

    column: str
    values: list[str]
    factor: float
    explained: float
    p: float


def refuse_unlike_repeats(rows: Measurements, *, by_context: bool = False) -> None:
    """Refuse rows of the same sizes whose times differ by more than noise.

    Times are compared by their logarithms. A column tells rows apart where its values make a difference of 10 %
    somewhere, and one that chance makes once in a thousand. Where none does, scatter is noise up to a factor of 1.5 at
    half of the sizes.

    Args:
        by_context: whether rows must have the same context, and as much read before, too to be repeats.

    Raises:
        FluidgateError: naming the column that tells them apart, if one does, and the mend.
    """
    read = [rows.context, rows.read_before] if by_context else []
    sizes = np.column_stack([rows.batch_size, rows.chunk_size, *read])
    _, place, repeats = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    several = (repeats > 1)[place.ravel()]
    if not several.any():
        return
    rows = rows.select(several)
    groups = np.unique(place.ravel()[several], return_inverse=True)[1]
    times = np.log(rows.seconds)
    scatter = _range_within(times, groups)
    if scatter.max() <= NOTICEABLE:
        return
    never_noise = float(np.median(scatter)) > NEVER_NOISE
    telling = [
        each
        for each in _differences(rows, _centred(times, groups), groups)
        if each.factor > NOTICEABLE and (each.p < SIGNIFICANT or (never_noise and each.explained >= EXPLAINED))
    ]
    if not telling and not never_noise:
        return
    worst = int(np.flatnonzero(groups == scatter.argmax())[0])
    where = f"C = {rows.chunk_size[worst]} (B = {rows.batch_size[worst]})"
    reason = f"rows of the same sizes differ by up to a factor of {math.exp(scatter.max()):.2g}, at {where}"
    if not telling:
        mend = "measure them again, or say in a column what is different and choose by it with --where COLUMN=VALUE"
        fail(rows.source, [f"{reason}, which is no noise, and no column tells them apart; {mend}"])
    best = max(telling, key=lambda each: (round(each.explained, 3), -len(each.values)))
    named = [value for value in best.values if value]
    values = ", ".join(named[:6]) + (", ..." if len(named) > 6 else "")
    mend = f"choose one with --where {best.column}={named[0]}"
    fail(rows.source, [f"{best.column}: {reason}, and it tells them apart (its values are {values}); {mend}"])


def _differences(rows: Measurements, centred: Array, groups: Groups) -> Iterator[Difference]:
    """For each further column that has several values, and not about one a row; but for the number of the repeat."""
    whole = float(centred @ centred)
    for column, texts in rows.others.items():
        values = list(dict.fromkeys(texts.tolist()))
        if column == REPEAT or not 2 <= len(values) <= max(2, len(rows) // 2):
            continue
        design = _centred((texts[:, None] == np.array(values, dtype=object)[None, :]).astype(float), groups)
        solution, _, rank, _ = np.linalg.lstsq(design, centred, rcond=None)
        fitted = design @ solution
        rest = float(np.sum((centred - fitted) ** 2))
        test = f_test(whole, rest, int(rank), len(rows) - int(groups.max()) - 1 - int(rank))
        p = 1.0 if test is None or test.p is None else test.p
        yield Difference(column, values, float(_range_within(fitted, groups).max()), 1.0 - rest / whole, p)


def _centred(values: Array, groups: Groups) -> Array:
    """The values less the mean of their group; shape (rows,) or (rows, columns)."""
    sums = np.zeros((int(groups.max()) + 1, *values.shape[1:]))
    np.add.at(sums, groups, values)
    counts = np.bincount(groups).reshape(-1, *(1,) * (values.ndim - 1))
    return np.asarray(values - (sums / counts)[groups])


def _range_within(values: Array, groups: Groups) -> Array:
    """Largest less least value of each group."""
    high = np.full(int(groups.max()) + 1, -np.inf)
    low = -high
    np.maximum.at(high, groups, values)
    np.minimum.at(low, groups, values)
    return np.asarray(high - low)
