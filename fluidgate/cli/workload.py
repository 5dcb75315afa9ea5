"""`fluidgate workload`."""

from __future__ import annotations

import json

import click

from fluidgate.cli.console import show, warn
from fluidgate.cli.options import json_option, picture_path, trace_options


@click.command(short_help="Make a scenario file from request traces.")
@click.argument("traces", metavar="TRACE...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", help="The scenario file to write; without it only the table is shown.")
@click.option("--gpus", type=int, required=True, metavar="N", help="GPUs that share the load.")
@click.option("--profile", default="a100-40gb/qwen-8b", show_default=True, metavar="NAME",
              help="Iteration-time profile: a name of `fluidgate profiles`, or a profile file.")  # fmt: skip
@click.option("--scale", type=float, default=1.0, show_default=True, help="Multiplies the traces' arrival rates.")
@click.option("--batch-size", type=int, default=16, show_default=True, metavar="B", help="Most requests in a batch.")
@click.option("--chunk-size", type=int, default=256, show_default=True, metavar="C",
              help="Prompt tokens read in one iteration.")  # fmt: skip
@click.option("--patience-rate", type=float, default=0.1, show_default=True, metavar="THETA",
              help="Abandonment while waiting, 1/s; traces do not show it.")  # fmt: skip
@click.option("--classes", "clusters", type=int, metavar="K", help="Form K classes by length instead of one a file.")
@trace_options
@click.option("--name", metavar="NAME", help="Name of the scenario; default: from the files' names.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the clusters.")
@click.option("--qq", metavar="FILE", callback=picture_path,
              help="Draw lengths and gaps against the exponential law (.png, .svg, .pdf).")  # fmt: skip
@json_option
def workload(traces: tuple[str, ...], output: str | None, qq: str | None, as_json: bool, **options: object) -> None:
    """Read TRACE files and write a scenario: rates, mean lengths, and how far they are from exponential.

    Each is FILE or CLASS=FILE, perhaps packed (.gz, .zip). Known by their columns are CSV
    (arrival_time,prompt_tokens,output_tokens[,class]) and the traces of Azure, Mooncake, Qwen-Bailian, BurstGPT, Vidur,
    Splitwise, ServeGen, BLIS, LLMServingSim, vLLM, guidellm and aiperf; others are read with --map and --unit. Files
    that follow each other in time are parts of one class.
    """
    from fluidgate.workloads import workload as build

    made = build(list(traces), **options)  # type: ignore[arg-type]
    warn(made.warnings)
    if output is not None:
        made.write(output)
    if qq is not None:
        from fluidgate.reports.plots import draw_quantiles

        draw_quantiles(made, qq)
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=2))
        return
    from fluidgate.reports.tables import workload_tables

    show(*workload_tables(made))
    if output is not None:
        click.echo(f"Scenario written to {output}; next: fluidgate plan {output}")
