"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fluidgate.execution import Executor
    from fluidgate.replanning import Replanning

Command = Callable[..., Any]

scenario_argument = click.argument("scenario", metavar="SCENARIO")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
PICTURES = (".png", ".svg", ".pdf")


def picture_path(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a picture that could not be written before the work for it begins."""
    if value is None:
        return None
    path = Path(value)
    if path.suffix.lower() not in PICTURES:
        raise click.BadParameter(f"'{value}' must end in one of {', '.join(PICTURES)}")
    if not path.parent.is_dir():
        raise click.BadParameter(f"the folder of '{value}' does not exist; make it first")
    return value


def file_path(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a file that could not be written before the work for it begins."""
    if value is not None and not Path(value).parent.is_dir():
        raise click.BadParameter(f"the folder of '{value}' does not exist; make it first")
    if value is not None and Path(value).is_dir():
        raise click.BadParameter(f"'{value}' is a folder; name a file")
    return value


def assignments(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
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


def trace_options(command: Command) -> Command:
    """How trace files are read, in `workload` and `replay`."""
    for option in reversed(
        (
            click.option("--map", "columns", multiple=True, metavar="STANDARD=COLUMN", callback=assignments,
                         help="The files' name for arrival_time, prompt_tokens, output_tokens, class, first_token, "
                              "last_token, ttft, latency, scheduled or failed; repeat it for each."),
            click.option("--unit", type=click.Choice(["s", "ms", "us", "ns"]),
                         help="Unit of times that are numbers.  [default: that of the format]"),
            click.option("--benchmark", type=click.IntRange(min=1), metavar="K",
                         help="Which one of a report that holds several."),
            click.option("--class-column", metavar="NAME", help="Column of the traces that names a request's class."),
            click.option("--skip-empty", is_flag=True,
                         help="Leave out requests without prompt or output tokens, and aborted ones."),
            click.option("--sort", is_flag=True, help="Sort the requests by arrival."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


plot_option = click.option(
    "--plot",
    metavar="FILE",
    callback=picture_path,
    help="Also draw a picture; the suffix says the kind (.png, .svg, .pdf).",
)
gpus_option = click.option(
    "--gpus", type=int, metavar="N", help="Number of GPUs; default: the scenario's [cluster] gpus."
)
ABOVE_0 = click.FloatRange(min=0.0, min_open=True)


def user_options(command: Command) -> Command:
    """A closed loop, in `simulate`, `compare` and `replay`."""
    for option in reversed(
        (
            click.option("--users", type=click.IntRange(min=1), metavar="N",
                         help="Closed loop: so many clients, each sending its next request when its last has ended."),
            click.option("--think", type=click.FloatRange(min=0.0), metavar="S",
                         help="Time from an answer to the user's next request, s.  [default: 0]"),
            click.option("--think-law", type=click.Choice(["fixed", "exponential"]),
                         help="Law of that time.  [default: fixed]"),
        )
    ):  # fmt: skip
        command = option(command)
    return command


RULE = {"replan_every": "period", "look_every": "look", "estimate_over": "window", "replan_moved": "moved"}
"""Options of the rule for replanning, and what they set."""


def replanning_options(command: Command) -> Command:
    """The rule by which the plans of `NAME+replan` follow the load."""
    for option in reversed(
        (
            click.option("--replan-every", type=ABOVE_0, metavar="S",
                         help="NAME+replan: solve the plan again at this age, s.  [default: 30]"),
            click.option("--look-every", type=ABOVE_0, metavar="S",
                         help="NAME+replan: look at the estimates as often, s.  [default: 3]"),
            click.option("--estimate-over", type=ABOVE_0, metavar="S",
                         help="NAME+replan: time constant of the estimates, s.  [default: 30]"),
            click.option("--replan-moved", type=click.FloatRange(min=0.0), metavar="SHARE",
                         help="NAME+replan: solve earlier if an estimate has moved so far.  [default: 0.1]"),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def replanning_rule(options: dict[str, Any]) -> Replanning | None:
    """Takes the rule out of a command's options; None where none of it is given."""
    given = {name: value for key, name in RULE.items() if (value := options.pop(key)) is not None}
    if not given:
        return None
    from fluidgate.replanning import Replanning

    return Replanning(**given)


def executor_options(command: Command) -> Command:
    """Where simulations run, and where their results are kept."""
    for option in reversed(
        (
            click.option("--executor", default="local", show_default=True, metavar="local|ray|ray://HOST:PORT",
                         help="Where simulations run: processes of this machine, or a Ray cluster."),
            click.option("--workers", type=click.IntRange(min=1), metavar="W",
                         help="local: worker processes.  [default: one a core]"),
            click.option("--keep", metavar="DIR",
                         help="Keep each simulation's result in this folder; what is there is not run again."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def executor_of(options: dict[str, Any]) -> Executor | None:
    """Takes `--executor` and `--keep` out of a command's options; None where only `--workers` counts.

    Raises:
        FluidgateError: as `fluidgate.execution.executor_named`.
    """
    name, keep = options.pop("executor"), options.pop("keep")
    if name == "local" and keep is None:
        return None
    from fluidgate.execution import executor_named

    return executor_named(name, workers=options["workers"], keep=keep)


def simulation_options(command: Command) -> Command:
    """The options of `simulate` and `compare`."""
    for option in reversed(
        (
            gpus_option,
            click.option("--horizon", type=float, default=10_000.0, show_default=True, metavar="S",
                         help="Simulated time from an empty cluster, s."),
            click.option("--warmup", type=float, metavar="S",
                         help="Statistics are taken after this time, s.  [default: a tenth of the horizon]"),
            click.option("--replications", type=int, default=5, show_default=True, metavar="K",
                         help="Independent replications."),
            click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers."),
            executor_options,
            click.option("--fidelity", type=click.Choice(["markov", "iteration"]),
                         help="Which model of the cluster is simulated.  [default: iteration where the scenario has "
                              "[engine], [lengths], [targets], a law over the batch or a closed loop, else markov]"),
            user_options,
            replanning_options,
            json_option,
            plot_option,
        )
    ):  # fmt: skip
        command = option(command)
    return command
