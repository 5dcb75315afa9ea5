"""What policies earn beside the most that any can, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fluidgate.reports.plots import picture, style
from fluidgate.simulation import SimulationResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Ends = tuple[float, float] | None


class Limit(NamedTuple):
    """What nobody exceeds: its name, its place, and the ends between which it surely is."""

    name: str
    revenue: float
    ends: Ends = None


def earned_figure(
    title: str, limits: Sequence[Limit], out_of_reach: tuple[float, float], results: Sequence[SimulationResult] = ()
) -> Figure:
    """Revenues as points, the highest on top, limits above the policies, shaded what no policy can earn.

    Args:
        limits: the greatest first.
        out_of_reach: from the least that is to the greatest.
        results: of simulations; those that earn nothing measured are left out.
    """
    known = sorted(
        ((each.policy, each.revenue_rate.mean, each.revenue_rate.ci95) for each in results if each.revenue_rate.mean),
        key=lambda row: -row[1],
    )
    rows = [*((each.name, each.revenue, each.ends, "black") for each in limits), *((*row, "C0") for row in known)]
    with style():
        figure: Figure = picture(figsize=(7.5, 1.2 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, (_, revenue, ends, color) in enumerate(rows):
            low, high = ends or (revenue, revenue)
            axes.errorbar(
                [revenue], [place], xerr=[[max(revenue - low, 0.0)], [max(high - revenue, 0.0)]],
                fmt="o", ms=5, capsize=3 if ends else 0, color=color,
            )  # fmt: skip
        least, greatest = out_of_reach
        if greatest > least:
            axes.axvspan(least, greatest, color="0.85", lw=0, zorder=0, label="no policy can earn it")
            axes.legend(loc="upper right", bbox_to_anchor=(1.0, 1.0), bbox_transform=figure.transFigure, fontsize=8)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.set_xlabel(f"revenue, /s per GPU{' (bars: 95 % confidence)' if known else ''}")
        axes.set_title(title, loc="left")
        return figure
