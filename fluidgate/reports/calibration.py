"""A calibration as tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from fluidgate.calibration.calibration import Calibration, low_or_high, place
from fluidgate.calibration.checks import Slope
from fluidgate.calibration.estimate import Estimate
from fluidgate.calibration.fit import Fit
from fluidgate.reports.plots import picture, save, style
from fluidgate.reports.tables import number, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def calibration_tables(calibration: Calibration) -> Iterator[Table]:
    """The coefficients of each fit, and the checks of the model's assumptions."""
    rows = calibration.measurements
    fits = table(
        f"Calibration '{calibration.profile.name}': {len(rows):,} rows, {len(rows.pairs.seconds)} pairs of sizes "
        "(± half of the 95 % interval)",
        "batch size B", "chunk size C", "alpha, s", "beta, s/token", "R²", "gamma, tokens/s", "knee b0, tokens",
        text=2,
    )  # fmt: skip
    for each in calibration.fits:
        fits.add_row(
            _range(each.batch_sizes),
            _range(each.chunk_sizes),
            _with_interval(each.alpha),
            _with_interval(each.beta),
            number(each.r_squared, 6),
            _with_interval(each.gamma),
            number(None if each.knee is None else each.knee.b0),
        )
    yield fits

    checks = table("Checks", "of", "found", "p", text=2)
    largest, test = calibration.largest_deviation, calibration.curvature
    checks.add_row(
        "a line in the chunk size",
        f"largest deviation: {low_or_high(largest.relative)} at {place(largest)}",
        _p(None if test is None else test.p),
    )
    for below in calibration.below_min_chunk:
        checks.add_row("below the fitted chunks", f"the line lies {low_or_high(below.relative)} at {place(below)}", "-")
    checks.add_row("solo time flat over batch sizes", *_slope(calibration.flatness.solo))
    checks.add_row("mixed time flat over batch sizes", *_slope(calibration.flatness.mixed))
    yield checks


def calibration_figure(calibration: Calibration) -> Figure:
    """Measured times and fitted lines over the chunk size, and how far the lines lie from the measurements."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    fits = calibration.fits
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(fits)))
    with style():
        figure = picture(figsize=(10, 3.8), layout="constrained")
        times, residuals = figure.subplots(1, 2)
        for each, shade in zip(fits, shades, strict=True):
            _draw_times(times, each, shade)
            _draw_residuals(residuals, each, shade)
        times.set_title(f"{calibration.profile.name}: iteration time, ms", loc="left")
        times.set_ylim(bottom=0)
        residuals.set_title("line over measured time, less 1, %", loc="left")
        residuals.axhline(0, color="black", lw=1, ls=":")
        for axes in (times, residuals):
            axes.set_xlabel("chunk size C, tokens (hollow: below the fitted range)")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        times.set_xlabel("chunk size C, tokens (squares at 0: solo)")
        if len(fits) <= 10:
            times.legend(loc="upper left", fontsize=8, title="batch size B", title_fontsize=8)
        return figure


def draw_calibration(calibration: Calibration, path: str | Path) -> None:
    """The same as a file."""
    save(calibration_figure(calibration), path)


def _draw_times(axes: Axes, fit: Fit, shade: object) -> None:
    chunks, seconds = fit.pairs.chunk_size, fit.pairs.seconds
    fitted, solo = chunks >= fit.min_chunk, chunks == 0
    small = ~fitted & ~solo
    axes.plot(chunks[fitted], 1e3 * seconds[fitted], "o", ms=4, color=shade)
    axes.plot(chunks[small], 1e3 * seconds[small], "o", ms=4, color=shade, mfc="none")
    axes.plot(chunks[solo], 1e3 * seconds[solo], "s", ms=4, color=shade, clip_on=False)
    least, greatest = fit.chunk_sizes
    ends = np.array([least, greatest])
    axes.plot(ends, 1e3 * (fit.alpha.value + fit.beta.value * ends), lw=1.2, color=shade, label=_range(fit.batch_sizes))
    if small.any():
        ends = np.array([chunks[small].min(), least])
        axes.plot(ends, 1e3 * (fit.alpha.value + fit.beta.value * ends), lw=1, ls="--", color=shade)
    if fit.knee is not None:
        decodes = float(np.mean(fit.pairs.batch_size))
        grid = np.linspace(0, greatest, 200)
        axes.plot(grid, [1e3 * fit.knee.seconds(c + decodes) for c in grid], lw=1, ls=":", color=shade)


def _draw_residuals(axes: Axes, fit: Fit, shade: object) -> None:
    for fitted in (True, False):
        found = list(fit.deviations(fitted=fitted))
        axes.plot(
            [d.chunk_size for d in found],
            [100 * d.relative for d in found],
            "o",
            ms=4,
            color=shade,
            mfc=shade if fitted else "none",
        )


def _range(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _with_interval(value: Estimate) -> str:
    if value.ci95 is None:
        return number(value.value)
    return f"{number(value.value)} ±{number((value.ci95[1] - value.ci95[0]) / 2, 2)}"


def _slope(slope: Slope | None) -> tuple[str, str]:
    if slope is None:
        return "one batch size only", "-"
    t = "" if slope.slope.t is None else f" (t = {slope.slope.t:.3g})"
    return f"{1e3 * slope.slope.value:+.3g} ms a decode, {100 * slope.change:+.3g} % over the range{t}", _p(slope.p)


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
