"""`fluidgate plan`."""

from __future__ import annotations

import json
from typing import Any

import click

from fluidgate.cli.console import show, warn
from fluidgate.cli.options import ABOVE_0, gpus_option, json_option, plot_option, scenario_argument


@click.command(short_help="The best steady state, and what each constraint costs.")
@scenario_argument
@gpus_option
@click.option("--trace", "traces", multiple=True, metavar="[CLASS=]FILE",
              help="Measure the hit rates of prefix caching on this trace; repeat it for each.")  # fmt: skip
@click.option("--sessions-rate", type=ABOVE_0, metavar="R",
              help="Starts of sessions a second over the whole cluster, where traces do not say when.")  # fmt: skip
@json_option
@plot_option
def plan(
    scenario: str,
    gpus: int | None,
    traces: tuple[str, ...],
    sessions_rate: float | None,
    as_json: bool,
    plot: str | None,
) -> None:
    """Solve the fluid program of SCENARIO and show its optimal steady state, per GPU.

    With --gpus, or [cluster] gpus in the scenario, the split of the GPUs into a mixed and a solo group comes with it.
    With --trace the plan is that at the hit rates which the memory it leaves gives, and a table says what more memory
    would bring.
    """
    from fluidgate.model import Scenario
    from fluidgate.planning import check_gpus
    from fluidgate.planning import plan as solve

    loaded = Scenario.load(scenario)
    if gpus is not None:
        check_gpus(gpus)
    measured = None
    if traces:
        from fluidgate.workloads.measured_hits import measured_hits
        from fluidgate.workloads.streams import read_class_traces

        read = read_class_traces(loaded, traces)
        measured = measured_hits(
            loaded, read, gpus=gpus if gpus is not None else loaded.cluster_gpus, sessions_rate=sessions_rate
        )
        solved = measured.found.plan
    else:
        solved = solve(loaded, gpus=gpus if gpus is not None else loaded.cluster_gpus)
    warn(solved.warnings)
    if plot is not None:
        from fluidgate.reports.plots import draw_plan

        draw_plan(solved, plot)
    if as_json:
        click.echo(solved.to_json() if measured is None else _with(solved.to_dict(), measured.to_dict()))
    else:
        from fluidgate.reports.tables import memory_table, plan_tables

        show(*plan_tables(solved), *([memory_table(measured)] if measured is not None else []))


def _with(plan: dict[str, Any], cache: dict[str, Any]) -> str:
    """The JSON object of a plan, with what was measured of the cache."""
    return json.dumps(plan | {"cache": cache}, indent=2, allow_nan=False)
