"""Predicted times as a table and as a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from fluidgate.errors import FluidgateError
from fluidgate.reports import looks
from fluidgate.reports.plots import picture, style
from fluidgate.reports.tables import number, table
from fluidgate.shown import several
from fluidgate.tails import MEASURES, QUANTILES, Measure, Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RAREST = 1e-3
"""Share of the requests that a picture goes down to."""
POINTS = 50
MOST_NAMED = 12
"""Classes with lines of their own."""

TARGETS: tuple[Measure, ...] = ("ttft", "tpot")
"""In the order of a class's pair of them."""
NAMES = {"ttft": ("TTFT, s", 1.0), "tpot": ("TPOT, ms", 1e3), "latency": ("latency, s", 1.0)}


def latency_table(prediction: Prediction, scenario: str | None = None) -> Table:
    """TTFT, TPOT and latency of each class and of all, and the share within the targets where there are any."""
    scenario = prediction.scenario if scenario is None else scenario
    title = f"Times of '{scenario}' on {several(prediction.engines, 'GPU')}, predicted ({prediction.batching} batching)"
    rows = prediction.to_dict()["latency"]
    targets = any(row["goodput"] is not None for row in rows)
    found = table(title, "class", "time", "mean", *QUANTILES, *(["within targets"] if targets else []), text=2)
    for row in rows if len(rows) > 2 else rows[:1]:
        for measure in MEASURES:
            name, unit = NAMES[measure]
            time = row[measure] or {}
            values = [time.get(key) for key in ("mean", *QUANTILES)]
            numbers = ["no end" if time and v is None else number(None if v is None else unit * v) for v in values]
            share = row["goodput"]
            within = f"{100 * share:.2f} %" if share is not None and measure == MEASURES[0] else ""
            found.add_row(row["name"], name, *numbers, *([within] if targets else []))
    return found


def latency_figure(prediction: Prediction) -> Figure:
    """The share of the requests that wait longer, by class and of all: TTFT, TPOT and latency; and the targets.

    Raises:
        FluidgateError: more arrives than can be served, so that there are no such times.
    """
    if not prediction.stable:
        raise FluidgateError(
            f"plot: more arrives than {several(prediction.engines, 'engine')} can serve, so that times have no end; "
            "predict more engines, or a lower load"
        )
    with style():
        figure: Figure = picture(figsize=(11, 3.6), layout="constrained")
        panels = figure.subplots(1, len(MEASURES), sharey=True)
        for axes, measure in zip(panels, MEASURES, strict=True):
            _tails(axes, prediction, measure)
        panels[0].set_ylabel("share of the requests that take longer")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)
        who = f"{prediction.scenario}, {several(prediction.engines, 'GPU')}, {prediction.batching} batching"
        figure.suptitle(f"{who}: predicted", x=0.01, ha="left")
        return figure


def _tails(axes: Axes, prediction: Prediction, measure: Measure) -> None:
    name, unit = NAMES[measure]
    kinds: list[tuple[str, int | None]] = [(each.name, k) for k, each in enumerate(prediction.classes)]
    kinds = [("all", None), *kinds] if 1 < len(kinds) <= MOST_NAMED else kinds if len(kinds) == 1 else [("all", None)]
    times = {name: prediction.time(measure, cls) for name, cls in kinds}
    shares = np.concatenate([1.0 - np.geomspace(RAREST, 0.1, POINTS), np.geomspace(0.9, RAREST, POINTS)])
    for k, (label, time) in enumerate(times.items()):
        look = {"color": "0.7", "lw": 3.0} if label == "all" and len(times) > 1 else {"lw": 1.4, **looks.line(k)}
        axes.plot([unit * time.quantile(1.0 - share) for share in shares], shares, label=label, **look)
    axes.set_yscale("log")
    axes.set_ylim(RAREST, 1.0)
    axes.set_xlim(left=0.0)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.set_title(name, loc="left")
    if measure in TARGETS:
        limits = sorted({pair[TARGETS.index(measure)] for pair in prediction.targets} - {math.inf})
        for limit in limits:
            axes.axvline(unit * limit, color="0.3", lw=0.8, ls="--", label="target" if limit == limits[0] else None)
