"""`fluidgate compare`."""

from __future__ import annotations

from typing import Any

import click

from fluidgate.cli.console import notices, progress_bar, show, warn
from fluidgate.cli.options import executor_of, policies_option, replanning_rule, scenario_argument, simulation_options

DEFAULT = "gate-and-route,index-and-pool,capped-gate-and-route,sli-aware,fi-wsp,gi-wsp,gf-wsp,fg-sp"


@click.command(short_help="Simulate several policies on the same arrivals, side by side.")
@scenario_argument
@policies_option(
    "Names that `fluidgate policies` lists, files (.toml), or PATH.py:NAME for your own; NAME+replan if its plan "
    "follows the load; the first is the reference.",
    default=DEFAULT,
)
@simulation_options
def compare(
    scenario: str,
    policies: tuple[str, ...],
    as_json: bool,
    plot: str | None,
    gpus: int | None,
    **options: Any,
) -> None:
    """Simulate policies on SCENARIO with common random numbers, and compare what they earn."""
    from fluidgate.model import Scenario
    from fluidgate.simulation import compare as run

    loaded = Scenario.load(scenario)
    options["replanning"] = replanning_rule(options)
    options["executor"] = executor_of(options)
    with notices(), progress_bar("simulating") as progress:
        result = run(loaded, policies, gpus=gpus, progress=progress, **options)
    warn(result.warnings)
    if plot is not None:
        from fluidgate.reports.plots import draw_comparison

        draw_comparison(result, plot)
    if as_json:
        click.echo(result.to_json())
        return
    from fluidgate.reports.requests import request_comparison_tables
    from fluidgate.reports.tables import comparison_tables
    from fluidgate.simulation.iteration.results import RequestResult

    show(
        *(
            request_comparison_tables(result)
            if isinstance(result.policies[0], RequestResult)
            else comparison_tables(result)
        )
    )
