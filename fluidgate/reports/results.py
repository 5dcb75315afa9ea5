"""How results show themselves in a notebook: which tables and which picture each has, as the commands print them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tables = Iterable[Table] | Table

MOST_ROWS = 40
"""Of a table in a notebook."""
LINE = "1px solid color-mix(in srgb, currentColor 30%, transparent)"
CELL = "padding:.1em .6em;white-space:nowrap;"

SPLIT: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "MeasuredBound": lambda found: (found.bound, found),
    "Yardstick": lambda found: (found.optimum, found),
}
"""What is handed to the tables of a result that are not its own alone."""

TABLES = {
    "BasePolicy": "tables.policy_tables",
    "BatchCalibration": "batch_calibration.batch_calibration_tables",
    "Bound": "bound.bound_tables",
    "Calibration": "calibration.calibration_tables",
    "Comparison": "tables.comparison_tables",
    "Frontier": "sweeps.frontier_tables",
    "HeatMap": "sweeps.heat_map_table",
    "LogCalibration": "log_calibration.log_calibration_tables",
    "MeasuredBound": "bound.bound_tables",
    "MeasuredHits": "tables.memory_table",
    "Measurements": "probe.measurement_table",
    "Optimum": "optimum.optimum_tables",
    "Plan": "tables.plan_tables",
    "PolicyList": "tables.listed_policies",
    "Prediction": "latency.latency_table",
    "Probed": "probe.live_table",
    "Profile": "profile.profile_tables",
    "ProfileList": "tables.profile_table",
    "ReplayComparison": "requests.replay_tables",
    "RequestComparison": "requests.request_comparison_tables",
    "RequestResult": "requests.request_tables",
    "Scenario": "scenario.scenario_tables",
    "SimulationResult": "tables.simulation_tables",
    "Sizing": "sizing.sizing_tables",
    "Sweep": "sweeps.sweep_table",
    "Trajectory": "tables.trajectory_table",
    "Tuning": "tuning.tuning_tables",
    "Workload": "tables.workload_tables",
    "Yardstick": "optimum.optimum_tables",
}

FIGURES = {
    "BatchCalibration": "batch_calibration.batch_calibration_figure",
    "Bound": "bound.bound_figure",
    "Calibration": "calibration.calibration_figure",
    "Comparison": "plots.comparison_figure",
    "Frontier": "sweeps.one_frontier_figure",
    "HeatMap": "sweeps.heat_map_figure",
    "LogCalibration": "log_calibration.log_calibration_figure",
    "MeasuredBound": "bound.measured_bound_figure",
    "Measurements": "probe.measurement_figure",
    "Optimum": "optimum.optimum_figure",
    "Plan": "plots.plan_figure",
    "Prediction": "latency.latency_figure",
    "Probed": "probe.live_figure",
    "Profile": "profile.profile_figure",
    "ReplayComparison": "replay_plot.replay_figure",
    "Scenario": "scenario.scenario_figure",
    "SimulationResult": "plots.simulation_figure",
    "Sizing": "sizing.sizing_figure",
    "Sweep": "sweeps.one_sweep_figure",
    "Trajectory": "plots.trajectory_figure",
    "Tuning": "tuning.tuning_figure",
    "Workload": "plots.quantile_figure",
    "Yardstick": "optimum.yardstick_figure",
}


def tables_of(found: Any) -> list[Table]:
    """The tables that a command prints of a result."""
    name, make = _maker(found, TABLES)
    made: Tables = make(*SPLIT[name](found)) if name in SPLIT else make(found)
    return [made] if isinstance(made, Table) else list(made)


def figure_of(found: Any) -> Figure:
    """The picture of a result.

    Raises:
        FluidgateError: the result has nothing to draw.
    """
    _, make = _maker(found, FIGURES)
    figure: Figure = make(found)
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a picture; the suffix says the kind.

    Raises:
        FluidgateError: the file can't be written.
    """
    from fluidgate.reports.plots import save as write

    write(figure, os.fspath(path))


def latex_of(found: Any) -> str:
    """Its tables as LaTeX."""
    from fluidgate.reports.formats import as_latex

    return as_latex(tables_of(found))


def html_of(found: Any) -> str:
    """Its tables, then its warnings, in the colours of the page that they come to stand on."""
    parts = [_table(made) for made in tables_of(found)]
    warnings = tuple(getattr(found, "warnings", ()))
    if warnings:
        items = "".join(f"<li>{escape(each)}</li>" for each in warnings)
        parts.append(f'<ul style="margin:.3em 0;max-width:60em">{items}</ul>')
    return f'<div style="overflow-x:auto">{"".join(parts)}</div>'


def _maker(found: Any, catalogue: dict[str, str]) -> tuple[str, Callable[..., Any]]:
    name = next(kind for kind in _kinds(found) if kind in catalogue)
    module, _, function = catalogue[name].partition(".")
    return name, getattr(import_module(f"fluidgate.reports.{module}"), function)


def _kinds(found: Any) -> Iterator[str]:
    """Names of its classes, the nearest first."""
    for kind in type(found).__mro__:
        if kind.__name__ == "Comparison" and hasattr(found.policies[0], "overall"):
            yield "RequestComparison"
        yield kind.__name__


def _table(made: Table) -> str:
    right = [column.justify == "right" for column in made.columns]
    rows = list(zip(*(list(column.cells) for column in made.columns), strict=True))
    parts = [
        f'<div style="font-weight:bold;padding:.2em 0">{escape(str(made.title or ""))}</div>',
        '<table style="border-collapse:collapse;margin:.2em 0 .8em;font-variant-numeric:tabular-nums">',
    ]
    if made.show_header:
        heads = _row("th", [str(column.header) for column in made.columns], right, f"border-bottom:{LINE};")
        parts.append(f"<thead>{heads}</thead>")
    parts.append("<tbody>")
    parts += [_row("td", list(map(str, row)), right) for row in rows[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        left = f"{len(rows) - MOST_ROWS:,} rows more: to_dataframe() has all"
        parts.append(f'<tr><td colspan="{len(right)}" style="{CELL}text-align:left">{left}</td></tr>')
    caption = f'<div style="margin:-.6em 0 .8em">{escape(str(made.caption))}</div>' if made.caption else ""
    return "".join((*parts, "</tbody></table>", caption))


def _row(tag: str, texts: list[str], right: list[bool], look: str = "") -> str:
    cells = (
        f'<{tag} style="{CELL}{look}text-align:{"right" if numeric else "left"}">{escape(text)}</{tag}>'
        for text, numeric in zip(texts, right, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"
