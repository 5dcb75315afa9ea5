"""Predicted times as a table."""

from __future__ import annotations

from rich.table import Table

from fluidgate.reports.tables import number, table
from fluidgate.shown import several
from fluidgate.tails import MEASURES, QUANTILES, Prediction

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
