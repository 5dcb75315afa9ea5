"""`fluidgate calibrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fluidgate.cli.console import show, warn
from fluidgate.cli.options import assignments, json_option, plot_option
from fluidgate.errors import FluidgateError

if TYPE_CHECKING:
    from fluidgate.calibration import Measurements

ONLY_PAPER = ("batch_size", "pooled")
ONLY_LINEAR = ("kv_bytes_per_token", "memory_bandwidth", "context")


@click.command(short_help="Fit an iteration-time profile to measured iterations.")
@click.argument("measurements", metavar="MEASUREMENTS")
@click.option("-o", "--output", metavar="FILE", help="The profile file to write; without it only the tables are shown.")
@click.option("--name", metavar="NAME", help="Name of the profile; default: the name of the measurements file.")
@click.option("--gpu", default="", metavar="TEXT", help="The GPU or tensor-parallel group, for the profile.")
@click.option("--model", default="", metavar="TEXT", help="The language model, for the profile.")
@click.option("--engine", default="", metavar="TEXT", help="The inference engine and its version, for the profile.")
@click.option("--source", default="", metavar="TEXT", help="Who measured, and when, for the profile.")
@click.option("--notes", default="", metavar="TEXT", help="What else a user should know, for the profile.")
@click.option("--map", "columns", multiple=True, metavar="STANDARD=COLUMN", callback=assignments,
              help="The file's name for batch_size, chunk_size, seconds or context; repeat it for each.")  # fmt: skip
@click.option("--unit", type=click.Choice(["s", "ms", "us", "ns"]), default="s", show_default=True,
              help="Unit of the times.")  # fmt: skip
@click.option("--where", multiple=True, metavar="COLUMN=VALUE", callback=assignments,
              help="Use only the rows with this value; repeat it for more columns.")  # fmt: skip
@click.option("--law", type=click.Choice(["paper", "linear", "table"]), default="paper", show_default=True,
              help="paper: alpha, beta and gamma, by batch size where the rows allow; linear: one law over chunk, "
              "decodes and context; table: the measured times themselves, and that law beside them.")  # fmt: skip
@click.option("--kv-bytes-per-token", type=float, metavar="BYTES",
              help="Of the model, for epsilon; only with --law linear or table.")  # fmt: skip
@click.option("--memory-bandwidth", type=float, metavar="BYTES/S",
              help="Of the GPU, for epsilon; only with --law linear or table.")  # fmt: skip
@click.option("--context", type=float, metavar="TOKENS",
              help="Context of each decode in the rows, where no column says it; not with --law paper.")  # fmt: skip
@click.option("--min-chunk", type=int, metavar="C",
              help="Least chunk size that is fitted, tokens; smaller ones are compared.  "
              "[default: 256; 1 with the other laws]")  # fmt: skip
@click.option("--batch-size", type=int, metavar="B", help="Use only the rows of this batch size.")
@click.option("--pooled", is_flag=True, help="One fit to all batch sizes, even where each allows its own.")
@json_option
@plot_option
def calibrate(
    measurements: str,
    output: str | None,
    columns: dict[str, str],
    unit: str,
    where: dict[str, str],
    law: str,
    as_json: bool,
    plot: str | None,
    **options: object,
) -> None:
    """Fit the iteration times in MEASUREMENTS, and write the law as a profile.

    MEASUREMENTS is a CSV file with the columns batch_size (decodes in the batch), chunk_size (prompt tokens in the
    iteration; 0: none) and seconds. Rows of the same sizes are repeats. By default alpha, beta and gamma are fitted;
    with enough rows at several batch sizes the profile holds a law over the batch size.

    With --law linear the profile holds alpha + beta chunk + delta decodes + epsilon context, where epsilon is
    --kv-bytes-per-token over --memory-bandwidth, and an intercept and a slope of its own without a chunk. With --law
    table the measured times take the place of all but epsilon, bilinear between chunk and batch sizes.
    """
    from fluidgate.calibration import read_measurements
    from fluidgate.profiles import write_profile

    given = {key: value for key, value in options.items() if value is not None and value is not False}
    misplaced = [key for key in (ONLY_LINEAR if law == "paper" else ONLY_PAPER) if key in given]
    if misplaced:
        other = "linear" if law == "paper" else "paper"
        raise FluidgateError(f"--{misplaced[0].replace('_', '-')}: only with --law {other}; leave one of the two out")
    rows = read_measurements(measurements, columns, unit=unit, where=where)  # type: ignore[arg-type]
    made, tables, draw = _paper(rows, given) if law == "paper" else _linear(rows, {**given, "table": law == "table"})
    warn(made.warnings)
    if output is not None:
        write_profile(made.profile, output)
    if plot is not None:
        draw(made, plot)
    if as_json:
        click.echo(made.to_json())
        return
    show(*tables(made))
    if output is not None:
        click.echo(f'Profile written to {output}; a scenario takes it as [gpu] profile = "{output}"')


def _paper(rows: Measurements, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The calibration, and how it is shown and drawn."""
    from fluidgate.calibration import calibrate as fit
    from fluidgate.reports.calibration import calibration_tables, draw_calibration

    return fit(rows, **options), calibration_tables, draw_calibration


def _linear(rows: Measurements, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    from fluidgate.calibration import calibrate_batches
    from fluidgate.reports.batch_calibration import batch_calibration_tables, draw_batch_calibration

    return calibrate_batches(rows, **options), batch_calibration_tables, draw_batch_calibration
