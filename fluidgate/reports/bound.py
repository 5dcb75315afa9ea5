"""The bound of what any policy earns, and policies beside it, as tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from fluidgate.optimum import Bound, MeasuredBound
from fluidgate.reports.earned import Limit, earned_figure
from fluidgate.reports.tables import number, table, with_interval
from fluidgate.shown import several

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATTICES = {
    "fluid": "none: the fluid program's is the least",
    "totals": "in the system, {groups}",
    "stages by group": "before and after the end of the prefill, of each of {groups}",
    "stages": "before and after the end of the prefill, {groups}",
}


def bound_tables(found: Bound, measured: MeasuredBound | None = None) -> Iterator[Table]:
    """The bound, and beside it the policies that were simulated."""
    gpus = f"{found.gpus} GPU{'s' * (found.gpus > 1)}"
    whole = table(f"Bound of '{found.scenario.name}' on {gpus}, per GPU", "", "")
    whole.add_row("no policy earns more than", f"{number(found.revenue_rate, 6)} /s")
    whole.add_row("fluid optimum R*", f"{number(found.fluid_rate, 6)} /s")
    if found.unavoidable is not None:
        whole.add_row("of R* that no policy can earn", f"{100 * found.unavoidable:.2f} %")
    groups = "; ".join(" + ".join(group) for group in found.groups)
    whole.add_row("requests counted", LATTICES[found.lattice].format(groups=groups))
    whole.add_row("states solved", f"{found.states:,}")
    yield whole
    if measured is None:
        return
    run = measured.results[0].run
    made = table(
        f"What policies earn of it ({run.replications} x {run.horizon:g} s, ± 95 % confidence)",
        "policy", "revenue /s", "gap to R*", "of it unavoidable", "earns at least, of what any policy can",
    )  # fmt: skip
    for result in sorted(measured.results, key=lambda r: -(r.revenue_rate.mean or 0.0)):
        mean, explained, least = result.revenue_rate.mean, measured.explained(result), measured.at_least(result)
        gap = None if mean is None or found.fluid_rate <= 0 else 100 * (1 - mean / found.fluid_rate)
        made.add_row(
            result.policy,
            with_interval(result.revenue_rate, 5),
            "-" if gap is None else f"{gap:.2f} %",
            "-" if explained is None else f"{100 * explained:.0f} %",
            "-" if least is None else f"{100 * least:.2f} %",
        )
    yield made


def bound_figure(found: Bound, measured: MeasuredBound | None = None) -> Figure:
    """R*, the bound and what policies earn, and shaded what of R* none can."""
    limits = (Limit("fluid optimum R*", found.fluid_rate), Limit("no policy earns more", found.revenue_rate))
    return earned_figure(
        f"{found.scenario.name}, {several(found.gpus, 'GPU')}",
        limits,
        (found.revenue_rate, found.fluid_rate),
        () if measured is None else measured.results,
    )


def measured_bound_figure(found: MeasuredBound) -> Figure:
    """The same with the policies that were simulated."""
    return bound_figure(found.bound, found)
