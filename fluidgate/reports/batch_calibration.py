"""A calibration over batch sizes as tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from fluidgate.calibration import BatchCalibration
from fluidgate.calibration.batch_fit import Points
from fluidgate.calibration.calibration import low_or_high
from fluidgate.calibration.estimate import Estimate
from fluidgate.reports.plots import picture, save, style
from fluidgate.reports.tables import number, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = {
    "alpha": "s",
    "beta": "s per prompt token",
    "delta": "s per decode",
    "solo_alpha": "s",
    "solo_delta": "s per decode",
    "epsilon": "s per token of context",
    "solo_epsilon": "s per token of context",
    "zeta": "s per token of the chunk and token read before",
}
TOLD_APART = ("epsilon", "solo_epsilon", "zeta")
"""Coefficients that not all rows tell."""


def batch_calibration_tables(calibration: BatchCalibration) -> Iterator[Table]:
    """The coefficients, and how far the law lies from the rows, by region."""
    rows, points = calibration.measurements, calibration.fit.points
    found = table(
        f"Calibration '{calibration.profile.name}': {len(rows):,} rows, {len(points.seconds)} points "
        "(± half of the 95 % interval)",
        "coefficient", "value", "unit",
    )  # fmt: skip
    found.columns[2].justify = "left"
    for key, value in calibration.coefficients.items():
        given = " (given)" if key in TOLD_APART and key not in calibration.fit.fitted else ""
        found.add_row(key, _with_interval(value), UNITS[key] + given)
    yield found

    errors = table(
        "The law over the measured time, less 1", "region", "points", "mean", "largest", "at B", "at C", text=1
    )
    for region in calibration.fit.regions():
        errors.add_row(
            region.name,
            str(region.points),
            f"{100 * region.mean:+.2f} %",
            low_or_high(region.largest),
            str(region.batch_size),
            str(region.chunk_size),
        )
    yield errors


def batch_calibration_figure(calibration: BatchCalibration) -> Figure:
    """Measured times and the law over the chunk size for each batch size, and the relative errors."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    points, law, relative = calibration.fit.points, calibration.fit.law, calibration.fit.relative
    sizes = np.unique(points.batch_size)
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(sizes)))
    with style():
        figure = picture(figsize=(10, 3.8), layout="constrained")
        times, errors = figure.subplots(1, 2)
        shown, where = _shown(points)
        for size, shade in zip(sizes, shades, strict=True):
            of_size = points.batch_size == size
            here = of_size & shown
            chunks = points.chunk_size[here]
            times.plot(chunks, 1e3 * points.seconds[here], "o", ms=4, color=shade)
            mixed = chunks > 0
            times.plot(chunks[mixed], 1e3 * law[here][mixed], lw=1.2, color=shade, label=str(size))
            times.plot(chunks[~mixed], 1e3 * law[here][~mixed], "_", ms=10, color=shade)
            errors.plot(points.chunk_size[of_size], 100 * relative[of_size], "o", ms=4, color=shade)
        times.set_title(f"{calibration.profile.name}: iteration time, ms{where}", loc="left")
        times.set_ylim(bottom=0)
        times.set_xlabel("chunk size C, tokens (dots: measured; lines, and dashes at 0: the law)")
        errors.set_title("law over measured time, less 1, %", loc="left")
        errors.set_xlabel("chunk size C, tokens")
        errors.axhline(0, color="black", lw=1, ls=":")
        for axes in (times, errors):
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if len(sizes) <= 10:
            times.legend(loc="upper left", fontsize=8, title="batch size B", title_fontsize=8)
        return figure


def draw_batch_calibration(calibration: BatchCalibration, path: str | Path) -> None:
    """The same as a file."""
    save(batch_calibration_figure(calibration), path)


def _shown(points: Points) -> tuple[NDArray[np.bool_], str]:
    """The points at one context and the fewest tokens read before, where they have several; and which these are."""
    if not (points.tells_context or points.tells_read_before):
        return np.ones(len(points), dtype=bool), ""
    contexts, counts = np.unique(points.context[points.batch_size > 0], return_counts=True)
    context, least = contexts[counts.argmax()], points.read_before.min()
    at_context = (points.context == context) | (points.batch_size == 0)
    return at_context & (points.read_before == least), f"\nat a context of {context:,.6g} tokens a decode"


def _with_interval(value: Estimate) -> str:
    if value.ci95 is None:
        return number(value.value)
    return f"{number(value.value)} ±{number((value.ci95[1] - value.ci95[0]) / 2, 2)}"
