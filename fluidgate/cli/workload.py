"""`fluidgate workload`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from fluidgate.batching import Batching
from fluidgate.cli.console import progress_bar, show, told, warn
from fluidgate.cli.given import only_with
from fluidgate.cli.options import ABOVE_0, NUMBER, each_once, file_path, json_option, picture_path, trace_options


@click.command(short_help="Make a scenario file from request traces.")
@click.argument("traces", metavar="TRACE...", nargs=-1, callback=each_once)
@click.option("-o", "--output", metavar="FILE", callback=file_path,
              help="The scenario file to write; without it only the table is shown.")  # fmt: skip
@click.option("--gpus", type=int, metavar="N", help="GPUs that share the load.  [required, with a TRACE]")
@click.option("--profile", default="a100-40gb/qwen-8b", show_default=True, metavar="NAME",
              help="Iteration-time profile: a name of `fluidgate profiles`, or a profile file.")  # fmt: skip
@click.option("--scale", type=NUMBER, default=1.0, show_default=True, help="Multiplies the traces' arrival rates.")
@click.option("--sessions-rate", type=ABOVE_0, metavar="R",
              help="Starts of sessions a second, where traces do not say when.  [default: 1]")  # fmt: skip
@click.option("--batch-size", type=int, metavar="B", help="Most requests in a batch.  [default: the log's, or 16]")
@click.option("--chunk-size", type=int, metavar="C",
              help="Prompt tokens read in one iteration.  [default: the log's, or 256]")  # fmt: skip
@click.option("--engine-log", metavar="FILE",
              help="What `vllm serve` printed, for [gpu] and [engine]; without a TRACE they are shown.")  # fmt: skip
@click.option("--batching", type=click.Choice([str(name) for name in Batching]),
              help="How engines form a batch (vLLM: token-budget).  [default: the policy's way]")  # fmt: skip
@click.option("--patience-rate", type=NUMBER, default=0.1, show_default=True, metavar="THETA",
              help="Abandonment while waiting, 1/s; traces do not show it.")  # fmt: skip
@click.option("--classes", "clusters", type=int, metavar="K", help="Form K classes by length instead of one a file.")
@trace_options
@click.option("--name", metavar="NAME", help="Name of the scenario; default: from the files' names.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the clusters.")
@click.option("--qq", metavar="FILE", callback=picture_path,
              help="Draw lengths and gaps against the exponential law (.png, .svg, .pdf).")  # fmt: skip
@click.option("--plot", metavar="FILE", callback=picture_path,
              help="Draw what is found of the prompts against the memory of a GPU (.png, .svg, .pdf).")  # fmt: skip
@click.option("--formats", is_flag=True, help="List the formats of traces that are known, and do nothing else.")
@json_option
def workload(
    traces: tuple[str, ...],
    output: str | None,
    engine_log: str | None,
    qq: str | None,
    plot: str | None,
    formats: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Read TRACE files and write a scenario: rates, mean lengths, and how far they are from exponential.

    Each is FILE or CLASS=FILE, perhaps packed (.gz, .zip). Known by their columns are CSV
    (arrival_time,prompt_tokens,output_tokens[,class]) and the traces of Azure, Mooncake, Qwen-Bailian, BurstGPT, Vidur,
    Splitwise, ServeGen, BLIS, LLMServingSim, vLLM, guidellm, aiperf and inference-perf, and sessions of agents;
    --formats lists them all; others are read with --map and --unit. Files that follow each other in time are parts of
    one class. Where files say them, what prompts share, turns of sessions and think times are shown too.
    """
    if formats:
        _show_formats(as_json)
        return
    from fluidgate.workloads import workload as build

    if not traces and engine_log is not None:
        _refuse_unread(click.get_current_context())
        _show_engine(engine_log, as_json)
        return
    if not traces:
        raise click.UsageError("Missing argument 'TRACE...'.")
    if options["gpus"] is None:
        raise click.UsageError("Missing option '--gpus'.")
    with progress_bar("reading"):
        made = build(list(traces), engine_log=engine_log, **options)
    warn(made.warnings)
    if output is not None:
        made.write(output)
    if qq is not None:
        from fluidgate.reports.plots import draw_quantiles

        draw_quantiles(made, qq)
    if plot is not None:
        from fluidgate.reports.plots import draw_memory
        from fluidgate.workloads.measured_hits import curves_of

        draw_memory(curves_of(made), made.scenario.engine.kv_tokens, plot)
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=2))
        return
    from fluidgate.reports.tables import workload_tables

    show(*workload_tables(made))
    if output is not None:
        told(f"Scenario written to {output}; next: fluidgate plan {output}")


def _show_formats(as_json: bool) -> None:
    from fluidgate.workloads.formats.known import known_formats

    known = known_formats()
    if as_json:
        click.echo(json.dumps({"schema": 1, "formats": [asdict(each) for each in known]}, indent=2))
        return
    from fluidgate.reports.tables import format_table

    show(format_table(known))


def _refuse_unread(context: click.Context) -> None:
    """Options that go with a trace, where the log of an engine stands alone.

    Raises:
        FluidgateError: naming the option.
    """
    only_with(context, "traces", *(name for name in context.params if name not in ("engine_log", "as_json")))


def _show_engine(path: str, as_json: bool) -> None:
    """The tables of a scenario that a log of vLLM states."""
    from fluidgate.workloads.engine_log import read_engine_log

    log = read_engine_log(path)
    if as_json:
        click.echo(json.dumps(log.to_dict(), indent=2))
    else:
        click.echo(log.to_toml())
    warn(f"{log.source}: {key} is not in it" for key in log.settings.unsaid)
