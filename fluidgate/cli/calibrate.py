"""`fluidgate calibrate`."""

from __future__ import annotations

import click

from fluidgate.cli.console import show, warn
from fluidgate.cli.options import json_option, plot_option


def _assignments(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` options as a dictionary."""
    found = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not (equals and key.strip() and value.strip()):
            raise click.BadParameter(f"'{text}' must be {parameter.metavar}")
        if key.strip() in found:
            raise click.BadParameter(f"'{key.strip()}' is given twice")
        found[key.strip()] = value.strip()
    return found


@click.command(short_help="Fit an iteration-time profile to measured iterations.")
@click.argument("measurements", metavar="MEASUREMENTS")
@click.option("-o", "--output", metavar="FILE", help="The profile file to write; without it only the tables are shown.")
@click.option("--name", metavar="NAME", help="Name of the profile; default: the name of the measurements file.")
@click.option("--gpu", default="", metavar="TEXT", help="The GPU or tensor-parallel group, for the profile.")
@click.option("--model", default="", metavar="TEXT", help="The language model, for the profile.")
@click.option("--engine", default="", metavar="TEXT", help="The inference engine and its version, for the profile.")
@click.option("--source", default="", metavar="TEXT", help="Who measured, and when, for the profile.")
@click.option("--notes", default="", metavar="TEXT", help="What else a user should know, for the profile.")
@click.option("--map", "columns", multiple=True, metavar="STANDARD=COLUMN", callback=_assignments,
              help="The file's name for batch_size, chunk_size or seconds; repeat it for each.")  # fmt: skip
@click.option("--unit", type=click.Choice(["s", "ms"]), default="s", show_default=True, help="Unit of the times.")
@click.option("--where", multiple=True, metavar="COLUMN=VALUE", callback=_assignments,
              help="Use only the rows with this value; repeat it for more columns.")  # fmt: skip
@click.option("--min-chunk", type=int, default=256, show_default=True, metavar="C",
              help="Least chunk size that the line is fitted to, tokens; smaller ones are compared.")  # fmt: skip
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
    as_json: bool,
    plot: str | None,
    **options: object,
) -> None:
    """Fit alpha, beta and gamma to the iteration times in MEASUREMENTS, and write them as a profile.

    MEASUREMENTS is a CSV file with the columns batch_size (decodes in the batch), chunk_size (prompt tokens in the
    iteration; 0: none) and seconds. Rows of the same two sizes are repeats. With enough rows at several batch sizes
    the profile holds a law over the batch size.
    """
    from fluidgate.calibration import calibrate as fit
    from fluidgate.calibration import read_measurements
    from fluidgate.profiles import write_profile

    rows = read_measurements(measurements, columns, unit=unit, where=where)  # type: ignore[arg-type]
    made = fit(rows, **options)  # type: ignore[arg-type]
    warn(made.warnings)
    if output is not None:
        write_profile(made.profile, output)
    if plot is not None:
        from fluidgate.reports.calibration import draw_calibration

        draw_calibration(made, plot)
    if as_json:
        click.echo(made.to_json())
        return
    from fluidgate.reports.calibration import calibration_tables

    show(*calibration_tables(made))
    if output is not None:
        click.echo(f'Profile written to {output}; a scenario takes it as [gpu] profile = "{output}"')
