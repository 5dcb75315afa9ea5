"""`fluidgate replay`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from fluidgate.cli.console import notices, progress_bar, show, warn
from fluidgate.cli.given import is_given
from fluidgate.cli.options import (
    ABOVE_0,
    NUMBER,
    each_once,
    executor_of,
    executor_options,
    gpus_option,
    json_option,
    plot_option,
    policies_option,
    replanning_options,
    replanning_rule,
    scenario_argument,
    trace_options,
    user_options,
)
from fluidgate.errors import FluidgateError

READING = ("class_column", "columns", "unit", "benchmark", "skip_empty", "sort")
"""Options of how traces are read."""
SAMPLES = 601  # points of the paths that a picture shows


@click.command(short_help="Run policies on the requests of traces, iteration by iteration.")
@scenario_argument
@click.argument("traces", metavar="TRACE...", nargs=-1, callback=each_once, required=True)
@policies_option(
    "Names that `fluidgate policies` lists, files (.toml), or PATH.py:NAME for your own; NAME+replan if its plan "
    "follows the load; the first is the reference.",
    required=True,
)
@gpus_option
@click.option("--rate-scale", type=NUMBER, default=1.0, show_default=True, metavar="F",
              help="Multiplies the traces' arrival rates.")  # fmt: skip
@click.option("--sessions-rate", type=ABOVE_0, metavar="R",
              help="Starts of sessions a second over the whole cluster, where traces do not say when.")  # fmt: skip
@click.option("--match-load", is_flag=True, help="Scale the rates to those of the scenario's classes instead.")
@click.option("--times", type=click.Choice(["once", "repeat", "resample"]), default="once", show_default=True,
              help="Play the traces once, without end, or in stretches drawn at random.")  # fmt: skip
@click.option("--stretch", type=NUMBER, default=60.0, show_default=True, metavar="S",
              help="Length of those stretches, s of the trace's own time.")  # fmt: skip
@click.option("--lengths", type=click.Choice(["trace", "drawn"]), default="trace", show_default=True,
              help="Each request's own lengths, or drawn by the scenario's [lengths].")  # fmt: skip
@click.option("--horizon", type=NUMBER, metavar="S",
              help="End of the run, s.  [default: when the last request has left]")  # fmt: skip
@click.option("--requests", type=int, metavar="K", help="The most requests that are played, turns of sessions counted.")
@click.option("--warmup", type=NUMBER, default=0.0, show_default=True, metavar="S",
              help="Statistics are taken after this time, s.")  # fmt: skip
@click.option("--replications", type=int, default=1, show_default=True, metavar="K",
              help="Independent replications of what is drawn (--times resample, --lengths drawn).")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@executor_options
@user_options
@trace_options
@replanning_options
@click.option("--log", metavar="FILE", help="Also write a row a request that ended (.csv; .parquet with pyarrow).")
@plot_option
@json_option
def replay(
    scenario: str,
    traces: tuple[str, ...],
    policies: tuple[str, ...],
    log: str | None,
    plot: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run policies on the requests of TRACE files (each FILE or CLASS=FILE), side by side, iteration by iteration.

    The requests arrive as the traces say, with their own lengths, at a cluster of SCENARIO's GPUs; or, with --users,
    each when one of the users is free. Of a session the first one comes so, and each further turn when the last answer
    has ended and its think time is over. Where SCENARIO has no [[classes]], one is made of the traces. Formats as in
    `fluidgate workload`. The picture shows occupancies and queues over time against the plan, and latencies.
    """
    from fluidgate.simulation.iteration.replay import replay as run
    from fluidgate.simulation.iteration.trace_scenario import scenario_of_traces

    if is_given(click.get_current_context(), "stretch") and options["times"] != "resample":
        raise FluidgateError("--stretch: only with --times resample; give it, or leave this out")
    reading = {key: options[key] for key in READING}
    loops = options["users"] is not None
    loaded, read = scenario_of_traces(
        scenario,
        traces,
        gpus=options["gpus"],
        rate_scale=options["rate_scale"],
        sessions_rate=options["sessions_rate"],
        closed=loops,
        **reading,
    )
    options["replanning"] = replanning_rule(options)
    options["executor"] = executor_of(options)
    with ExitStack() as contexts:
        contexts.enter_context(notices())
        progress = contexts.enter_context(progress_bar("replaying"))
        if log is not None:
            from fluidgate.reports.request_log import RequestLog

            options["take_log"] = contexts.enter_context(RequestLog(Path(log), loaded.class_names)).add
        result = run(loaded, read, policies, samples=SAMPLES if plot else 0, progress=progress, **options)
    warn(result.warnings)
    if plot is not None:
        from fluidgate.reports.replay_plot import draw_replay

        draw_replay(result, plot)
    if as_json:
        click.echo(result.to_json())
    else:
        from fluidgate.reports.requests import replay_tables

        show(*replay_tables(result))
