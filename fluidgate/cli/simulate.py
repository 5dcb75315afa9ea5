"""`fluidgate simulate`."""

from __future__ import annotations

from typing import Any

import click

from fluidgate.cli.console import notices, progress_bar, show, warn
from fluidgate.cli.options import executor_of, one_policy, replanning_rule, scenario_argument, simulation_options

SAMPLES = 401  # points of the path that a picture shows


@click.command(short_help="Simulate a policy: revenue, occupancies, latencies.")
@scenario_argument
@click.option("--policy", required=True, metavar="NAME", callback=one_policy,
              help="A name that `fluidgate policies` lists, a policy file (.toml), or PATH.py:NAME for your own; "
                   "NAME+replan if its plan follows the load.")  # fmt: skip
@simulation_options
def simulate(
    scenario: str,
    policy: str,
    as_json: bool,
    plot: str | None,
    gpus: int | None,
    **options: Any,
) -> None:
    """Simulate a policy on SCENARIO, GPU by GPU, from an empty cluster.

    The picture lays the simulated path over the fluid one where the policy has one.
    """
    from fluidgate.model import Scenario
    from fluidgate.simulation import simulate as run

    loaded = Scenario.load(scenario)
    options["replanning"] = replanning_rule(options)
    options["executor"] = executor_of(options)
    with notices(), progress_bar(f"simulating {policy}") as progress:
        result = run(loaded, policy, gpus=gpus, samples=SAMPLES if plot else 0, progress=progress, **options)
    warn(result.warnings)
    if plot is not None:
        from fluidgate.reports.plots import draw_simulation

        draw_simulation(result, plot)
    if as_json:
        click.echo(result.to_json())
        return
    from fluidgate.reports.requests import request_tables
    from fluidgate.reports.tables import simulation_tables
    from fluidgate.simulation.iteration.results import RequestResult

    show(*(request_tables(result) if isinstance(result, RequestResult) else simulation_tables(result)))
