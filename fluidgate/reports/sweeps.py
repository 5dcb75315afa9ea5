"""Pictures and tables of what loops over plans, and of length laws: Figures 8 to 12 of [LDHZ]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from fluidgate.errors import FluidgateError
from fluidgate.model import Array
from fluidgate.planning.frontier import Frontier
from fluidgate.planning.sensitivity import HeatMap, Sweep
from fluidgate.reports import looks
from fluidgate.reports.plots import picture, plain_ticks, save, style
from fluidgate.reports.tables import number, table
from fluidgate.workloads.length_laws import LengthLaws

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIMIT_LABELS = {
    "max_prefill_gap": "largest prefill gap, eta_1",
    "max_solo_gap": "largest solo gap, eta_2",
    "max_tpot": "largest average TPOT, eta_3, s",
}
_CURVE_POINTS = 300
_DOTS = 4000
"""Most dots of a scatter for one category; beyond, a sample with a fixed seed."""


def frontier_tables(found: Frontier) -> Iterator[Table]:
    """The ends of the frontier, then its points."""
    whole = table(f"Frontier of '{found.scenario}' against {found.indicator}, per GPU", "", "")
    whole.add_row("least limit that can be met", number(found.least_limit, 6))
    whole.add_row("least limit that costs nothing", number(found.free_limit, 6))
    whole.add_row("objective without the limit", f"{number(found.unlimited_objective, 6)} /s")
    confirmed = int(found.price_confirmed.sum())
    whole.add_row("prices between their two differences", f"{confirmed} of {len(found.limit)}")
    yield whole

    penalised = not np.array_equal(found.objective, found.revenue_rate)
    points = table(
        "Points: what one more unit of the limit earns, per second",
        "limit", "objective /s", *(["revenue /s"] if penalised else []), "shadow price", "slope below", "slope above",
        text=0,
    )  # fmt: skip
    for k in range(len(found.limit)):
        earned = [found.objective[k], *([found.revenue_rate[k]] if penalised else [])]
        prices = (found.shadow_price[k], found.price_below[k], found.price_above[k])
        points.add_row(
            number(float(found.limit[k]), 6),
            *(number(float(value), 6) for value in earned),
            *("-" if np.isnan(price) else number(float(price), 5) for price in prices),
        )
    yield points


def draw_frontier(found: Frontier, path: str | Path) -> None:
    """The frontier, and below it its slope: the shadow price (Figure 8)."""
    save(frontier_figure([found]), path)


def frontier_figure(frontiers: Sequence[Frontier]) -> Figure:
    """Frontiers side by side, each above its shadow price."""
    with style():
        figure = picture(figsize=(2 + 4.2 * len(frontiers), 5.5), layout="constrained")
        panels = figure.subplots(2, len(frontiers), sharex="col", height_ratios=[3, 2], squeeze=False)
        for (upper, lower), found in zip(panels.T, frontiers, strict=True):
            upper.plot(found.limit, found.objective, color="C0", marker=".", ms=4, label="objective")
            if not np.array_equal(found.objective, found.revenue_rate):
                upper.plot(found.limit, found.revenue_rate, color="C1", marker=".", ms=4, label="revenue")
            upper.axhline(found.unlimited_objective, color="black", lw=1, ls=":", label="without the limit")
            upper.set_title(f"{found.scenario}: {found.indicator}", loc="left")
            lower.step(found.limit, found.shadow_price, where="mid", color="C0", label="shadow price (dual)")
            lower.plot(found.limit, found.price_below, "<", ms=4, color="C2", mfc="none", label="slope below")
            lower.plot(found.limit, found.price_above, ">", ms=4, color="C3", mfc="none", label="slope above")
            lower.set_ylim(bottom=0)
            lower.set_xlabel(LIMIT_LABELS[found.indicator])
        panels[0, 0].set_ylabel("per second and GPU")
        panels[1, 0].set_ylabel("price per unit of the limit")
        panels[0, -1].legend(loc="lower right")
        panels[1, -1].legend()
    return figure


def one_frontier_figure(found: Frontier) -> Figure:
    """A frontier above its shadow price."""
    return frontier_figure([found])


def one_sweep_figure(found: Sweep) -> Figure:
    """The objective above the average TPOT, along one field."""
    return sweep_figure([found])


def heat_map_table(found: HeatMap) -> Table:
    """The objective: a row for each value of the second field, a column for each of the first."""
    heads = [f"{found.field_x} {_value(value)}" for value in found.values_x]
    made = table(f"Objective /s of '{found.scenario}'", found.field_y, *heads)
    for value, row in zip(found.values_y, found.objective, strict=True):
        made.add_row(_value(value), *("no plan" if np.isnan(each) else number(float(each), 6) for each in row))
    return made


def sweep_table(found: Sweep) -> Table:
    """A row for each value."""
    limits = [name for name in found.shadow_prices if name.startswith("max_")]
    made = table(
        f"'{found.scenario}' along {found.field}" + (" (factors)" if found.scale else ""),
        found.field, "objective /s", "revenue /s", "TPOT, ms", "mixed fraction", "mixed slot", "solo slot", *limits,
    )  # fmt: skip
    for k, value in enumerate(found.values):
        if found.reasons[k] is not None:
            made.add_row(_value(value), "no plan", *["-"] * (5 + len(limits)))
            continue
        prices = [found.shadow_prices[name][k] for name in ("mixed_capacity", "solo_capacity", *limits)]
        made.add_row(
            _value(value),
            number(float(found.objective[k]), 6),
            number(float(found.revenue_rate[k]), 6),
            number(1000 * float(found.tpot[k])),
            number(float(found.mixed_fraction[k])),
            *("-" if np.isnan(price) else number(float(price), 5) for price in prices),
        )
    made.caption = "mixed slot, solo slot and limits: shadow prices"
    made.caption_justify = "left"
    return made


def draw_sweeps(
    found: Sweep | Sequence[Sweep],
    path: str | Path,
    *,
    labels: Sequence[str] | None = None,
    log: Sequence[str] = (),
) -> None:
    """Write `sweep_figure` to a file."""
    save(sweep_figure(found, labels=labels, log=log), path)


def sweep_figure(
    found: Sweep | Sequence[Sweep],
    *,
    labels: Sequence[str] | None = None,
    log: Sequence[str] = (),
) -> Figure:
    """The objective and the average TPOT along each field, a column of panels each (Figure 9).

    Args:
        found: sweeps; gaps in the lines are values without a plan.
        labels: what to write below each column instead of the field's path.
        log: paths of the fields to draw on a logarithmic axis.
    """
    sweeps = [found] if isinstance(found, Sweep) else list(found)
    names = [s.field + (", factor" if s.scale else "") for s in sweeps] if labels is None else labels
    with style():
        figure = picture(figsize=(1.2 + 2.8 * len(sweeps), 5), layout="constrained")
        figure.set_layout_engine("constrained", wspace=0.06)  # the last number of an axis beside the first of the next
        panels = figure.subplots(2, len(sweeps), sharex="col", sharey="row", squeeze=False)
        for (upper, lower), each, name in zip(panels.T, sweeps, names, strict=True):
            places = _places(upper, each.values, each.field in log)
            upper.plot(places, each.objective, color="C0", marker=".", ms=4)
            lower.plot(places, 1000 * each.tpot, color="C1", marker=".", ms=4)
            lower.set_xlabel(name)
        panels[0][0].set_ylabel("objective, per second and GPU")
        panels[1][0].set_ylabel("average TPOT, ms")
        figure.suptitle(sweeps[0].scenario, x=0.01, ha="left")
    return figure


def draw_heat_map(
    found: HeatMap,
    path: str | Path,
    *,
    label_x: str | None = None,
    label_y: str | None = None,
    log: Sequence[str] = (),
) -> None:
    """Write `heat_map_figure` to a file."""
    save(heat_map_figure(found, label_x=label_x, label_y=label_y, log=log), path)


def heat_map_figure(
    found: HeatMap,
    *,
    label_x: str | None = None,
    label_y: str | None = None,
    log: Sequence[str] = (),
) -> Figure:
    """The objective over two fields, with contours (Figure 10); white where there is no plan."""
    with style():
        figure = picture(figsize=(5.6, 4.4), layout="constrained")
        heat_map_panel(figure.subplots(), found, label_x=label_x, label_y=label_y, log=log)
    return figure


def heat_map_panel(
    axes: Axes, found: HeatMap, *, label_x: str | None = None, label_y: str | None = None, log: Sequence[str] = ()
) -> None:
    """One heat map with its colour bar."""
    axes.grid(False)
    x = _places(axes, found.values_x, found.field_x in log)
    y = _places(axes, found.values_y, found.field_y in log, vertical=True)
    drawn = axes.pcolormesh(x, y, found.objective, shading="nearest", cmap="viridis", rasterized=True)
    plans = found.objective[np.isfinite(found.objective)]
    if min(found.objective.shape) > 1 and plans.size and np.ptp(plans) > 0:
        lines = axes.contour(x, y, found.objective, colors="white", linewidths=0.7)
        axes.clabel(lines, fontsize=7)
    axes.figure.colorbar(drawn, ax=axes, label="objective, per second and GPU")
    axes.set_xlabel(label_x or found.field_x)
    axes.set_ylabel(label_y or found.field_y)
    axes.set_title(found.scenario, loc="left")


def law_table(laws: LengthLaws) -> Table:
    """A row for each category (Tables 1 and 2)."""
    made = table(
        f"Output lengths of {laws.source}, {laws.unit}",
        "category", "count", "mean prompt", "mean output", "CV", "KL, nats", "KS", "AIC, log-normal", "AIC, gamma",
        "best",
    )  # fmt: skip
    for law in laws.categories:
        aic = {fit.law: fit.aic - law.exponential.aic for fit in law.fits}
        made.add_row(
            law.name,
            f"{law.count:,}",
            number(law.mean_prompt),
            number(law.mean_output),
            number(law.cv, 3),
            number(law.kl, 3),
            number(law.ks, 3),
            *("-" if name not in aic else f"{aic[name]:+,.0f}" for name in ("lognormal", "gamma")),
            law.best.law,
        )
    made.caption = (
        "KL and KS: distance from the exponential fit; AIC: less that of the exponential fit (negative is better)"
    )
    made.caption_justify = "left"
    return made


def draw_length_laws(laws: LengthLaws, path: str | Path) -> None:
    """Write `length_law_figure` to a file."""
    save(length_law_figure(laws), path)


def length_law_figure(laws: LengthLaws) -> Figure:
    """The survival of each category's output lengths on a logarithmic scale: an exponential is straight (Figure 12)."""
    columns = min(4, len(laws.categories))
    rows = -(-len(laws.categories) // columns)
    fitted = {law: looks.line(k + 1) for k, law in enumerate(("exponential", "lognormal", "gamma"))}
    with style():
        figure = picture(figsize=(1 + 2.7 * columns, 0.6 + 2.4 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, law in zip(panels, laws.categories, strict=False):
            ordered = np.sort(law.output)
            share = 1.0 - np.arange(law.count) / law.count
            axes.step(ordered, share, where="pre", color="C0", lw=1.2, label="measured")
            lengths = np.linspace(min(ordered[0], 0.01 * ordered[-1]), ordered[-1], _CURVE_POINTS)
            for fit in law.fits:
                axes.plot(lengths, fit.survival(lengths), lw=1.2, label=fit.law, **fitted[fit.law])
            axes.set_yscale("log")
            plain_ticks(axes.yaxis)
            axes.set_ylim(0.5 / law.count, 1.3)
            axes.set_title(f"{law.name} (KL {law.kl:.3f})", loc="left")
        for axes in panels[len(laws.categories) :]:
            axes.axis("off")
        for axes in panels[-columns:]:
            axes.set_xlabel(f"output, {_unit(laws)}")
        for row in range(rows):
            panels[row * columns].set_ylabel("share that is longer")
        panels[0].legend(fontsize=7)
        figure.suptitle(laws.source, x=0.01, ha="left")
    return figure


def draw_length_scatter(laws: LengthLaws, categories: Sequence[str], path: str | Path) -> None:
    """Write `length_scatter_figure` to a file."""
    save(length_scatter_figure(laws, categories), path)


def length_scatter_figure(laws: LengthLaws, categories: Sequence[str]) -> Figure:
    """Prompt against output length of some categories, on logarithmic axes (Figure 11).

    Raises:
        FluidgateError: no such category, or the file can't be written.
    """
    if not categories:
        raise FluidgateError("no categories to draw; give at least one")
    chosen = [laws[name] for name in categories]
    random = np.random.default_rng(0)
    with style():
        figure = picture(figsize=(5.6, 4.4), layout="constrained")
        axes = figure.subplots()
        for law in chosen:
            some = random.permutation(law.count)[:_DOTS]
            axes.plot(law.prompt[some], law.output[some], ".", ms=2.5, alpha=0.5, label=law.name)
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_yscale("log")
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"prompt, {_unit(laws)}")
        axes.set_ylabel(f"output, {_unit(laws)}")
        axes.set_title(laws.source, loc="left")
        axes.legend(markerscale=3)
    return figure


def _unit(laws: LengthLaws) -> str:
    return "length" if laws.unit == "as given" else laws.unit


def _value(value: Any) -> str:
    return number(float(value), 6) if isinstance(value, int | float) else str(value)


def _places(axes: Axes, values: Sequence[Any], log: bool, *, vertical: bool = False) -> Array:
    """Where to draw values: numbers at themselves, others side by side under their names."""
    axis = axes.yaxis if vertical else axes.xaxis
    if all(isinstance(value, int | float) for value in values):
        if log:
            (axes.set_yscale if vertical else axes.set_xscale)("log")
            plain_ticks(axis)
        return np.array(values, dtype=float)
    axis.set_ticks(range(len(values)), [str(value) for value in values])
    return np.arange(len(values), dtype=float)
