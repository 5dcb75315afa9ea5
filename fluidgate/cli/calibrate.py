"""`fluidgate calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluidgate.cli.calibrate_from_log import OF_TABLES, TEXTS, from_log, from_log_options
from fluidgate.cli.calibrate_from_log import OPTIONS as OF_LOGS
from fluidgate.cli.calibrated import hand_over
from fluidgate.cli.given import is_given, only_with
from fluidgate.cli.options import NUMBER, assignments, file_path, json_option, plot_option
from fluidgate.errors import FluidgateError

if TYPE_CHECKING:
    from fluidgate.calibration import Measurements

ONLY_PAPER = ("batch_size", "pooled")
ONLY_LINEAR = ("kv_bytes_per_token", "memory_bandwidth", "kv_tokens", "context")

WORDS = {key: "--" + {"what": "fit"}.get(key, key).replace("_", "-") for key in OF_LOGS}


def profile_path(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a file that no scenario could name as its profile."""
    path = Path(value or "none.toml")
    if path.suffix != ".toml" and not (path.is_relative_to("/dev") or path.is_fifo() or path.is_dir()):
        raise click.BadParameter(f"'{value}': scenarios name profile files by .toml; give such a name")
    return file_path(context, parameter, value)


@click.command(short_help="Fit an iteration-time profile to measured iterations.")
@click.argument("measurements", metavar="[MEASUREMENTS]", required=False)
@click.option("-o", "--output", metavar="FILE", callback=profile_path,
              help="The profile file to write; without it only the tables are shown.")  # fmt: skip
@click.option("--name", metavar="NAME", help="Name of the profile; default: the name of the measurements file.")
@click.option("--gpu", default="", metavar="TEXT",
              help="The GPU, for the profile; that of a shipped profile brings memory and bandwidth.")  # fmt: skip
@click.option("--gpus", type=int, metavar="N", help="GPUs of the tensor-parallel group, for the profile.")
@click.option("--model", default="", metavar="TEXT",
              help="The language model, for the profile; that of a shipped profile brings its bytes.")  # fmt: skip
@click.option("--dtype", default="", metavar="TEXT", help="Type of weights and KV, such as bf16, for the profile.")
@click.option("--engine", default="", metavar="TEXT", help="The inference engine, for the profile.")
@click.option("--engine-version", default="", metavar="TEXT", help="Its version, for the profile.")
@click.option("--measured", default="", metavar="DATE", help="When: a year, 2026-02 or 2026-02-28, for the profile.")
@click.option("--source", default="", metavar="TEXT", help="Who measured, for the profile.")
@click.option("--notes", default="", metavar="TEXT", help="What else a user should know, for the profile.")
@click.option("--map", "columns", multiple=True, metavar="STANDARD=COLUMN", callback=assignments,
              help="The file's name of batch_size, chunk_size, seconds, context, read_before; repeat it.")  # fmt: skip
@click.option("--unit", type=click.Choice(["s", "ms", "us", "ns"]), default="s", show_default=True,
              help="Unit of the times.")  # fmt: skip
@click.option("--where", multiple=True, metavar="COLUMN=VALUE", callback=assignments,
              help="Use only the rows with this value; repeat it for more columns.")  # fmt: skip
@click.option("--law", type=click.Choice(["auto", "table", "linear", "paper"]), default="auto", show_default=True,
              help="table: the measured times themselves, and the linear law beside them; linear: one law over chunk, "
              "decodes, context and tokens read before; paper: alpha, beta and gamma, by batch size where the rows "
              "allow. auto: table where the rows lie on a grid of chunk and batch sizes, linear where they lie "
              "anywhere, paper with one batch size.")  # fmt: skip
@click.option("--kv-bytes-per-token", type=NUMBER, metavar="BYTES",
              help="Of the model, for epsilon and the profile; not with --law paper.")  # fmt: skip
@click.option("--memory-bandwidth", type=NUMBER, metavar="BYTES/S",
              help="Of all GPUs of the group, for epsilon; not with --law paper.")  # fmt: skip
@click.option("--weights-bytes", type=NUMBER, metavar="BYTES", help="Of the model, for the profile.")
@click.option("--memory-bytes", type=NUMBER, metavar="BYTES", help="Of all GPUs of the group, for the profile.")
@click.option("--kv-tokens", type=int, metavar="TOKENS",
              help="That the KV memory holds: rows that need more bend no law; not with --law paper.")  # fmt: skip
@click.option("--context", type=NUMBER, metavar="TOKENS",
              help="Context of each decode in the rows, where no column says it; not with --law paper.")  # fmt: skip
@click.option("--min-chunk", type=int, metavar="C",
              help="Least chunk size that is fitted, tokens; smaller ones are compared.  "
              "[default: 256; 1 with the other laws]")  # fmt: skip
@click.option("--batch-size", type=int, metavar="B", help="Use only the rows of this batch size.")
@click.option("--pooled", is_flag=True, help="One fit to all batch sizes, even where each allows its own.")
@from_log_options
@json_option
@plot_option
def calibrate(
    measurements: str | None,
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
    iteration; 0: none) and seconds, perhaps context (tokens of each decode) and read_before (tokens of its prompt that
    were read before the chunk). Rows of the same sizes are repeats.

    The profile holds the measured times as a table over those of the four that the rows have, linear between them. With
    --law linear it holds alpha + beta chunk + delta decodes + epsilon context + zeta read, and a law of its own without
    a chunk. Where the rows have one context epsilon is --kv-bytes-per-token over --memory-bandwidth. With --law paper
    it holds alpha, beta and gamma, or with enough rows at several batch sizes a law over the batch size.

    With --from-log there are no MEASUREMENTS: the requests of a log are replayed as --scenario says, and the engine's
    overhead on a --table or --profile, or all of the law, is fitted to how long they took.
    """
    from fluidgate.calibration import law_for, read_measurements

    given = {key: value for key, value in options.items() if value is not None and value is not False}
    of_log = {key: given.pop(key) for key in OF_LOGS if key in given}
    if "from_log" in of_log:
        if measurements is not None:
            raise FluidgateError("MEASUREMENTS: not with --from-log; give measured iterations as --table MEASUREMENTS")
        _check_from_log(click.get_current_context(), columns, given)
        texts = {key: value for key in TEXTS if (value := given.pop(key, None))}
        reading = {"unit": unit, "where": where, **given}
        from_log(str(of_log["from_log"]), {**of_log, **texts}, columns, output, plot, as_json, reading)
        return
    if of_log:
        raise FluidgateError(f"{WORDS[next(iter(of_log))]}: only with --from-log LOG; leave it out, or give the log")
    if measurements is None:
        raise FluidgateError("MEASUREMENTS: missing; give measured iterations, or --from-log LOG")
    rows = read_measurements(measurements, columns, unit=unit, where=where)  # type: ignore[arg-type]
    if law == "auto":
        law = "paper" if any(key in given for key in ONLY_PAPER) else law_for(rows)
    misplaced = [key for key in (ONLY_LINEAR if law == "paper" else ONLY_PAPER) if key in given]
    if misplaced:
        other = "linear" if law == "paper" else "paper"
        raise FluidgateError(f"--{misplaced[0].replace('_', '-')}: only with --law {other}; leave one of the two out")
    made, tables, draw = _paper(rows, given) if law == "paper" else _linear(rows, {**given, "table": law == "table"})
    hand_over(made, tables, draw, output=output, plot=plot, as_json=as_json)


def _check_from_log(context: click.Context, columns: dict[str, str], given: dict[str, object]) -> None:
    """Refuse options of measured iterations that a calibration from a log does not read.

    Raises:
        FluidgateError: naming the option.
    """
    for name in ("law", *ONLY_PAPER):
        if is_given(context, name):
            raise FluidgateError(f"--{name.replace('_', '-')}: not with --from-log; leave it out")
    only_with(context, "table", "unit", "where", *(name for name in given if name not in TEXTS))
    for column in OF_TABLES if context.params["table"] is None else ():
        if column in columns:
            raise FluidgateError(f"--map {column}: a column of --table, which is not given; give it, or leave this out")


def _paper(rows: Measurements, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The calibration, and how it is shown and drawn."""
    from fluidgate.calibration import calibrate as fit
    from fluidgate.reports.calibration import calibration_tables, draw_calibration

    return fit(rows, **options), calibration_tables, draw_calibration


def _linear(rows: Measurements, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    from fluidgate.calibration import calibrate_batches
    from fluidgate.reports.batch_calibration import batch_calibration_tables, draw_batch_calibration

    return calibrate_batches(rows, **options), batch_calibration_tables, draw_batch_calibration
