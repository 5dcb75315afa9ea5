"""What a probe measured, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from fluidgate.calibration.live_probe import Probed
from fluidgate.calibration.probe import Measurements
from fluidgate.reports.plots import picture, style
from fluidgate.reports.tables import number, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Times = tuple[int, int, Sequence[float]]
"""Decodes, chunk, seconds."""
MOST_NAMED = 12
"""Batch sizes with an entry in a legend."""


def measurement_table(made: Measurements) -> Table:
    """Median and range of the iteration times, ms."""
    settings = made.settings
    title = f"{settings.shape.name}, {number(made.parameters / 1e9, 3)} B parameters, {settings.dtype}, {made.device}"
    rows = table(title, "iteration", "requests B", "decodes", "chunk C", "median", "least", "most", text=1)
    for each in made.measurements:
        case = each.case
        kind = "mixed" if case.chunk_size else "solo"
        rows.add_row(kind, str(case.requests), str(case.decodes), str(case.chunk_size), *_spread(each.seconds))
    return rows


def live_table(made: Probed) -> Table:
    """Median and range of the iteration times of an engine, ms."""
    heads = ("decodes", "chunk C", "read before", "context", "median", "least", "most", "times")
    rows = table(live_title(made), *heads)
    for (decodes, chunk, context, before), same in made.kinds():
        seconds = [row.seconds for row in same]
        rows.add_row(*map(str, (decodes, chunk, before, context)), *_spread(seconds), str(len(seconds)))
    return rows


def live_title(made: Probed) -> str:
    """What was probed, and what that took."""
    front = "" if made.front_end is None else f", front end {1000 * made.front_end:.3g} ms"
    cost = f"{made.requests} requests, {made.prompt_tokens} + {made.output_tokens} tokens, {made.seconds:.0f} s"
    return f"{made.facts.engine or 'engine'}, {made.facts.model}{front} ({cost})"


def measurement_figure(made: Measurements) -> Figure:
    """Iteration times over the chunk, a line a batch size."""
    times = [(each.case.decodes, each.case.chunk_size, each.seconds) for each in made.measurements]
    return _figure(times, f"{made.settings.shape.name} on {made.device}")


def live_figure(made: Probed) -> Figure:
    """The same of an engine; times of all contexts and of all that was read before are together."""
    times = [(kind[0], kind[1], [row.seconds for row in rows]) for kind, rows in made.kinds()]
    return _figure(times, f"{made.facts.engine or 'engine'}, {made.facts.model}")


def _spread(seconds: Sequence[float]) -> Iterator[str]:
    for each in (median(seconds), min(seconds), max(seconds)):
        yield f"{number(1000 * each)} ms"


def _figure(times: Sequence[Times], title: str) -> Figure:
    """Medians as points, from the least to the most as bars."""
    from matplotlib import colormaps

    batches = sorted({decodes for decodes, _, _ in times})
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, max(len(batches), 1)))
    with style():
        figure = picture(figsize=(7.5, 3.8), layout="constrained")
        axes = figure.subplots()
        for decodes, shade in zip(batches, shades, strict=False):
            own = sorted((chunk, list(seconds)) for each, chunk, seconds in times if each == decodes)
            chunks = [chunk for chunk, _ in own]
            middle = np.array([1000 * median(seconds) for _, seconds in own])
            ends = np.array([[1000 * min(seconds), 1000 * max(seconds)] for _, seconds in own])
            bars = np.abs(ends.T - middle)
            axes.errorbar(chunks, middle, yerr=bars, fmt="o-", ms=3.5, lw=1, capsize=2, color=shade, label=str(decodes))
        axes.set_title(f"{title}: iteration time, ms", loc="left")
        axes.set_xlabel("chunk, tokens (0: without a prefill; bars: from least to most)")
        axes.set_ylim(bottom=0)
        if 0 < len(batches) <= MOST_NAMED:
            axes.legend(title="decodes", loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, title_fontsize=8)
        return figure
