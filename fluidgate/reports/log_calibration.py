"""A calibration from a log as tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from fluidgate.fitting import LogCalibration
from fluidgate.fitting.doubts import is_far
from fluidgate.reports.plots import picture, save, style
from fluidgate.reports.tables import table
from fluidgate.simulation.iteration.logged import Agreement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = {
    "overhead": "s an iteration",
    "overhead_per_decode": "s a decode",
    "alpha": "s",
    "beta": "s per prompt token",
    "delta": "s per decode",
    "epsilon": "s per token of context",
    "zeta": "s per pair of tokens",
    "solo_alpha": "s",
    "solo_delta": "s per decode",
    "solo_epsilon": "s per token of context",
    "front_end": "s",
}

WIDE = 30.0
"""Ratio of the largest time to the least from which on a picture is logarithmic."""


def log_calibration_tables(made: LogCalibration) -> Iterator[Table]:
    """The coefficients, what the log does not tell of them, and how far the replay lies from it."""
    held = int((~made.chosen).sum())
    title = (
        f"Calibration '{made.profile.name}': {made.what} from {int(made.chosen.sum()):,} requests, {held:,} held out"
    )
    found = table(f"{title} (± half of the 95 % interval)", "coefficient", "value", "unit", "by the log")
    found.columns[2].justify = "left"
    for each in made.coefficients:
        share = f"{100 * max(min(each.resolution, 1.0), 0.0):.0f} %"
        found.add_row(each.name, f"{each.value:.4g} ±{each.half:.2g}", UNITS[each.name], share)
    yield found
    if made.not_identified:
        unsure = table("What the log does not identify", "coefficient", "why")
        unsure.columns[1].justify = "left"
        for sentence in made.not_identified:
            unsure.add_row(*sentence.split(": ", 1))
        yield unsure

    parts = {"fitted": made.fitted, "held out": made.held_out, "all": made.everything}
    parts = {name: rows for name, rows in parts.items() if rows}
    clock = "engine" if made.run.clock == "engine" else "client"
    shown = table(
        f"The replay over the log, less 1, by the {clock}'s clock (*: beyond 5 %, or 10 % in the tail)",
        "of", "statistic", "measured", "simulated", *parts,
        text=2,
    )  # fmt: skip
    by_part = {name: {(row.quantity, row.statistic): row for row in rows} for name, rows in parts.items()}
    for row in made.everything:
        cells = [_difference(by_part[name].get((row.quantity, row.statistic))) for name in parts]
        shown.add_row(row.quantity, row.statistic, f"{row.measured:.4g}", f"{row.simulated:.4g}", *cells)
    yield shown


def _difference(row: Agreement | None) -> str:
    return "" if row is None else f"{100 * row.relative:+.1f} %{'*' if is_far(row) else ' '}"


def log_calibration_figure(made: LogCalibration) -> Figure:
    """Measured against simulated, request by request: TTFT, TPOT and latency."""
    from matplotlib.ticker import NullFormatter

    several = made.run.output > 1
    with style():
        figure = picture(figsize=(10, 3.6), layout="constrained")
        measured, simulated = made.run.times, made.fit.replay.simulated.times
        for axes, quantity in zip(figure.subplots(1, 3), measured, strict=True):
            chosen = made.chosen[several] if quantity == "TPOT" else made.chosen
            for part, label, mark in ((chosen, "fitted", "o"), (~chosen, "held out", "^")):
                if part.any():
                    axes.plot(measured[quantity][part], simulated[quantity][part], mark, ms=3, alpha=0.6, label=label)
            both = np.concatenate([measured[quantity], simulated[quantity]])
            ends = [float(max(both.min(), 1e-6)), float(max(both.max(), 1e-5))]
            axes.plot(ends, ends, "-", lw=0.8, color="0.5")
            if ends[1] > WIDE * ends[0]:
                for set_scale, axis in ((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis)):
                    set_scale("log")
                    axis.set_major_formatter(lambda value, _: f"{value:g}")
                    axis.set_minor_formatter(NullFormatter())
            axes.set_title(f"{quantity}, s", loc="left")
            axes.set_xlabel("measured")
        figure.axes[0].set_ylabel("simulated")
        figure.axes[0].legend(loc="lower right")
        return figure


def draw_log_calibration(made: LogCalibration, path: str | Path) -> None:
    """The same as a file."""
    save(log_calibration_figure(made), path)
