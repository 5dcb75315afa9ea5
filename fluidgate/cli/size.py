"""`fluidgate size`."""

from __future__ import annotations

import sys
from typing import Any

import click

from fluidgate.cli.command_line import command_line
from fluidgate.cli.console import notices, progress_bar, show, warn
from fluidgate.cli.given import only_with
from fluidgate.cli.options import (
    ABOVE_0,
    NUMBER,
    each_once,
    executor_of,
    executor_options,
    json_option,
    listed,
    page_path,
    plot_option,
    policies_option,
    scenario_argument,
    trace_options,
)

NONE_MET = 3
"""Exit status where no choice keeps the targets."""


@click.command(short_help="How many GPUs: the fewest that keep the targets.")
@scenario_argument
@click.option("--trace", "traces", multiple=True, metavar="[CLASS=]FILE", callback=each_once,
              help="Requests that are the load, played once as they are; repeat it for each file.")  # fmt: skip
@click.option("--sessions-rate", type=ABOVE_0, metavar="R",
              help="Starts of sessions a second over the whole cluster, where traces do not say when.")  # fmt: skip
@click.option("--target", "targets", multiple=True, metavar="KEY=VALUE", callback=listed(str),
              help="A target of all requests, on top of the scenario's: ttft_p99=1.0, tpot_p95=0.04, "
                   "latency_mean=20, goodput=0.99, served=0.999; repeat it for each.")  # fmt: skip
@click.option("--profile", "profiles", multiple=True, metavar="P[,Q...]", callback=listed(str),
              help="GPUs to try: a profile's name or file; repeat it for each.  [default: the scenario's]")  # fmt: skip
@click.option("--batch-size", "batch_sizes", multiple=True, metavar="B[,B...]", callback=listed(int),
              help="Batch sizes to try.  [default: the scenario's]")  # fmt: skip
@click.option("--chunk-size", "chunk_sizes", multiple=True, metavar="C[,C...]", callback=listed(int),
              help="Chunk sizes to try, tokens.  [default: the scenario's]")  # fmt: skip
@policies_option("Policies to try.  [default: index-and-pool]")
@click.option("--gpu-hour", type=NUMBER, metavar="PRICE", help="Price of an hour of a GPU.  [default: that of [cost]]")
@click.option("--spare", type=int, default=0, show_default=True, metavar="K",
              help="Engines that may be gone, the targets still kept.")  # fmt: skip
@click.option("--max-gpus", type=int, metavar="N", help="The most GPUs there are.")
@click.option("--mixed", is_flag=True,
              help="Also GPUs of several types together, each class split among them by fixed shares.")  # fmt: skip
@click.option("--rate-scale", type=NUMBER, default=1.0, show_default=True, metavar="F",
              help="Multiplies the rates of arrival, or the users: a peak factor.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@executor_options
@trace_options
@json_option
@plot_option
@click.option("--html", metavar="FILE", callback=page_path, help="Also write a report, one page that opens anywhere.")
@click.option("--save", "folder", metavar="DIR",
              help="Also write what runs the cheapest: vllm lines, gateway, containers, a check.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace files in the folder of --save.")
def size(
    scenario: str, as_json: bool, plot: str | None, html: str | None, folder: str | None, force: bool, **options: Any
) -> None:
    """The fewest GPUs that keep the targets of SCENARIO, of each kind and setting that is given, cheapest first.

    The targets stand in [targets] and [[classes]]; what may be tried in [[options]], or in the options here, each with
    each. The program in token rates says how few there can be, simulation by iterations how few there must be. Exit
    status 3 if nothing keeps the targets.
    """
    from fluidgate.sizing import size as run

    only_with(click.get_current_context(), "folder", "force")
    if folder is not None:
        from fluidgate.deployment import check_folder

        check_folder(folder, force=force)
    options["executor"] = executor_of(options)
    with notices(), progress_bar("simulating fleets") as progress:
        found = run(scenario, progress=progress, **options)
    warn(found.warnings)
    if plot is not None:
        from fluidgate.reports.sizing import draw_sizing

        draw_sizing(found, plot)
    if as_json:
        click.echo(found.to_json())
    else:
        from fluidgate.reports.sizing import sizing_tables

        show(*sizing_tables(found))
    command = command_line(click.get_current_context())
    if html is not None:
        from fluidgate.reports.sizing_page import write_sizing_page

        write_sizing_page(found, html, command=command)
    if folder is not None and found.best is None:
        warn(["no choice keeps the targets, so nothing is saved; give other choices"])
    elif folder is not None:
        from fluidgate.deployment import save

        save(found, folder, force=force, command=command)
        click.echo(f"fluidgate: saved in {folder}; its README.md says what to do", err=True)
    if found.best is None:
        sys.exit(NONE_MET)
