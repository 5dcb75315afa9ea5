"""`fluidgate plan`."""

from __future__ import annotations

import click

from fluidgate.cli.console import show, warn
from fluidgate.cli.options import gpus_option, json_option, plot_option, scenario_argument


@click.command(short_help="The best steady state, and what each constraint costs.")
@scenario_argument
@gpus_option
@json_option
@plot_option
def plan(scenario: str, gpus: int | None, as_json: bool, plot: str | None) -> None:
    """Solve the fluid program of SCENARIO and show its optimal steady state, per GPU.

    With --gpus, or [cluster] gpus in the scenario, the split of the GPUs into a mixed and a solo group comes with it.
    """
    from fluidgate.model import Scenario
    from fluidgate.planning import check_gpus
    from fluidgate.planning import plan as solve

    loaded = Scenario.load(scenario)
    if gpus is not None:
        check_gpus(gpus)
    solved = solve(loaded, gpus=gpus if gpus is not None else loaded.cluster_gpus)
    warn(solved.warnings)
    if plot is not None:
        from fluidgate.reports.plots import draw_plan

        draw_plan(solved, plot)
    if as_json:
        click.echo(solved.to_json())
    else:
        from fluidgate.reports.tables import plan_tables

        show(*plan_tables(solved))
