"""`fluidgate calibrate --from-log`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from fluidgate.cli.calibrated import hand_over
from fluidgate.cli.console import notices, progress_bar
from fluidgate.cli.options import NUMBER
from fluidgate.errors import FluidgateError

if TYPE_CHECKING:
    from fluidgate.profiles import Profile

Command = Callable[..., Any]
OPTIONS = ("from_log", "scenario", "table", "profile", "what", "hold_out", "log_unit", "benchmark")
OF_TABLES = ("batch_size", "chunk_size", "seconds", "context", "read_before")
"""Standard names of the columns of measured iterations; the others of `--map` are those of a log."""
TEXTS = ("name", "gpu", "model", "engine", "source", "notes")


def from_log_options(command: Command) -> Command:
    """Options of the calibration from a log."""
    for option in reversed(
        (
            click.option("--from-log", metavar="LOG",
                         help="Fit to what became of the requests of a log, in the place of MEASUREMENTS."),
            click.option("--scenario", metavar="SCENARIO", help="--from-log: how the logged engine was set."),
            click.option("--table", metavar="MEASUREMENTS",
                         help="--from-log: measured iterations, upon which the overhead is fitted."),
            click.option("--profile", metavar="NAME",
                         help="--from-log: a profile, by name or file, upon which the overhead is fitted."),
            click.option("--fit", "what", type=click.Choice(["overhead", "law"]),
                         help="--from-log: the engine's overhead on known times (the scenario's own without --table "
                              "or --profile), or all of the law.  [default: overhead with --table or --profile, "
                              "else law]"),
            click.option("--hold-out", type=NUMBER, metavar="SHARE",
                         help="--from-log: share of the requests, the last, that are predicted and not fitted.  "
                              "[default: 0.5]"),
            click.option("--log-unit", type=click.Choice(["s", "ms", "us", "ns"]),
                         help="--from-log: unit of its times that are numbers.  [default: that of the format]"),
            click.option("--benchmark", type=click.IntRange(min=1), metavar="K",
                         help="--from-log: which one of a report that holds several."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def from_log(
    log: str,
    given: Mapping[str, Any],
    columns: Mapping[str, str],
    output: str | None,
    plot: str | None,
    as_json: bool,
    table_options: Mapping[str, Any],
) -> None:
    """Fit to a log, write the profile and show what was found.

    Args:
        given: the other options of the calibration from a log, and the texts of the profile.
        columns: `--map`, of log and table.
        table_options: how the table is read and fitted: `unit`, `where` and those of `calibrate_batches`.
    """
    from fluidgate.fitting import calibrate_from_log
    from fluidgate.reports.log_calibration import draw_log_calibration, log_calibration_tables
    from fluidgate.workloads import read_trace

    if given.get("scenario") is None:
        raise FluidgateError("--scenario: a log does not say how its engine was set; give a scenario with [engine]")
    known = _known(given, {key: value for key, value in columns.items() if key in OF_TABLES}, table_options)
    trace = read_trace(
        log,
        columns={key: value for key, value in columns.items() if key not in OF_TABLES},
        unit=given.get("log_unit"),
        benchmark=given.get("benchmark"),
        sort=True,
    )
    chosen = {key: value for key in ("what", "hold_out", *TEXTS) if (value := given.get(key)) is not None}
    with notices(), progress_bar("fitting"):
        made = calibrate_from_log(trace, str(given["scenario"]), known=known, **chosen)
    hand_over(made, log_calibration_tables, draw_log_calibration, output=output, plot=plot, as_json=as_json)


def _known(given: Mapping[str, Any], columns: Mapping[str, str], table_options: Mapping[str, Any]) -> Profile | None:
    """The profile upon which the overhead is fitted: of a table, or one by name or file."""
    from fluidgate.calibration import calibrate_batches, read_measurements
    from fluidgate.profiles import find_profile

    table, profile = given.get("table"), given.get("profile")
    if table is not None and profile is not None:
        raise FluidgateError("--table, --profile: both say iteration times; leave one of the two out")
    if profile is not None:
        return find_profile(profile)
    if table is None:
        return None
    options = dict(table_options)
    rows = read_measurements(table, columns, unit=options.pop("unit"), where=options.pop("where"))
    texts = {key: value for key in TEXTS if (value := given.get(key))}
    return calibrate_batches(rows, table=True, **options, **texts).profile
