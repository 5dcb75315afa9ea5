"""`fluidgate frontier`."""

from __future__ import annotations

import click

from fluidgate.cli.console import show, warn
from fluidgate.cli.options import NUMBER, file_path, gpus_option, json_option, plot_option, scenario_argument


@click.command(short_help="What a service level costs: the best revenue against one limit.")
@scenario_argument
@click.option("--indicator", required=True, metavar="NAME",
              help="The limit to vary: max_prefill_gap, max_solo_gap or max_tpot.")  # fmt: skip
@click.option("--from", "low", type=NUMBER, metavar="A", help="First limit.  [default: the least that can be met]")
@click.option("--to", "high", type=NUMBER, metavar="B", help="Last limit.  [default: the least that costs nothing]")
@click.option("--points", type=int, default=25, show_default=True, metavar="N", help="Limits, evenly spaced.")
@gpus_option
@click.option("-o", "--output", metavar="FILE", callback=file_path,
              help="Also write the points as CSV.")  # fmt: skip
@json_option
@plot_option
def frontier(
    scenario: str,
    indicator: str,
    low: float | None,
    high: float | None,
    points: int,
    gpus: int | None,
    output: str | None,
    as_json: bool,
    plot: str | None,
) -> None:
    """Plan SCENARIO under one limit after another: the Pareto frontier of revenue and service, per GPU.

    Each point has the limit's shadow price, and the slope of the frontier just below and above it as a check.
    """
    from fluidgate.model import Scenario
    from fluidgate.planning import check_gpus
    from fluidgate.planning import frontier as trace
    from fluidgate.toml_file import write_whole

    loaded = Scenario.load(scenario)
    if gpus is not None:
        check_gpus(gpus)
    found = trace(loaded, indicator, low=low, high=high, points=points, gpus=gpus)
    warn(found.warnings)
    if output is not None:
        write_whole(output, found.to_csv())
    if plot is not None:
        from fluidgate.reports.sweeps import draw_frontier

        draw_frontier(found, plot)
    if as_json:
        click.echo(found.to_json())
    else:
        from fluidgate.reports.sweeps import frontier_tables

        show(*frontier_tables(found))
