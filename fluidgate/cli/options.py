"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.types import FloatParamType

from fluidgate.cli.console import FORMAT, FORMATS
from fluidgate.extras import require

if TYPE_CHECKING:
    from fluidgate.execution import Executor
    from fluidgate.replanning import Replanning

Command = Callable[..., Any]

scenario_argument = click.argument("scenario", metavar="SCENARIO")


def _format(context: click.Context, parameter: click.Parameter, value: str) -> None:
    context.meta[FORMAT] = value


def _json(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """Whether the output is JSON, by either option."""
    chosen = context.meta[FORMAT]
    if value and chosen not in ("table", "json"):
        raise click.BadParameter(f"not with --format {chosen}; leave one of the two out")
    if value:
        context.meta[FORMAT] = "json"
    return value or chosen == "json"


def json_option(command: Command) -> Command:
    """How the output is printed: `as_json`, and for `show` the other forms."""
    for option in (
        click.option("--json", "as_json", is_flag=True, callback=_json, help="The same as --format json."),
        click.option("--format", type=click.Choice(FORMATS), default="table", show_default=True, is_eager=True,
                     expose_value=False, callback=_format, help="How tables are printed; json: all there is, as one "
                     "object and nothing else."),
    ):  # fmt: skip
        command = option(command)
    return command


log_level_option = click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True,
    callback=lambda context, parameter, value: value.upper(), help="The least of what is told on standard error.",
)  # fmt: skip
log_format_option = click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="How that is told; json: an object a line, for collectors of logs.",
)  # fmt: skip
PICTURES = (".png", ".svg", ".pdf")


def picture_path(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a picture that could not be written, or drawn, before the work for it begins."""
    if not value:
        return value
    require("matplotlib")
    path = Path(value)
    if path.suffix.lower() not in PICTURES:
        raise click.BadParameter(f"'{value}' must end in one of {', '.join(PICTURES)}")
    if not path.parent.is_dir():
        raise click.BadParameter(f"the folder of '{value}' does not exist; make it first")
    return value


def file_path(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a file that could not be written before the work for it begins."""
    if value and not Path(value).parent.is_dir():
        raise click.BadParameter(f"'{value}': no folder '{Path(value).parent}'; make it first")
    if value and Path(value).is_dir():
        raise click.BadParameter(f"'{value}' is a folder; name a file")
    return value


def page_path(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The same of a page with pictures."""
    if value is not None:
        require("matplotlib")
    return file_path(context, parameter, value)


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


def each_once(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a trace that is given twice for one class."""
    for value in values:
        if values.count(value) > 1:
            raise click.BadParameter(f"'{value}' is given twice; name each trace once")
    return values


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


class Respelt(click.Option):
    """An option with former names, which are taken and not shown."""

    def __init__(self, *arguments: Any, former: tuple[str, ...], **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._former = former

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        shown = self.opts
        self.opts = [*shown, *self._former]
        super().add_to_parser(parser, ctx)
        self.opts = shown


def listed(kind: type[str] | type[int]) -> Any:
    """Values of an option that is repeated, or given once with commas."""

    def split(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Any, ...]:
        texts = [text.strip() for value in values for text in value.split(",") if text.strip()]
        try:
            return tuple(kind(text) for text in texts)
        except ValueError:
            raise click.BadParameter(f"must be whole numbers, but is '{','.join(values)}'") from None

    return split


def policies_option(help: str, *, default: str | None = None, required: bool = False) -> Callable[[Command], Command]:
    """`--policy A,B`, which may be repeated: the names in the order in which they are given, as `policies`."""

    def names(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
        found: tuple[str, ...] = listed(str)(context, parameter, values)
        if values and not found:
            raise click.BadParameter("names no policy; name at least one, e.g. gate-and-route,fi-wsp")
        return found

    return click.option(
        "--policy", "policies", cls=Respelt, former=("--policies",), multiple=True, required=required,
        default=None if default is None else (default,), show_default=default is not None, metavar="A,B,...",
        callback=names, help=help,
    )  # fmt: skip


def one_policy(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a list where one policy is taken, and an empty name."""
    if value is not None and not value.strip():
        raise click.BadParameter("names no policy; `fluidgate policies` lists them")
    if value is not None and "," in value and not Path(value.partition(":")[0]).exists():
        raise click.BadParameter(
            f"'{value}' names several, and `{context.command.name}` takes one; for several: fluidgate compare"
        )
    return value


plot_option = click.option(
    "--plot",
    metavar="FILE",
    callback=picture_path,
    help="Also draw a picture; the suffix says the kind (.png, .svg, .pdf).",
)
gpus_option = click.option(
    "--gpus", type=int, metavar="N", help="Number of GPUs; default: the scenario's [cluster] gpus."
)


class Finite(FloatParamType):
    """A number; not nan, and not without end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return finite(super().convert(value, param, ctx), self, param, ctx)


class Within(click.FloatRange):
    """A number within a range; not nan, and not without end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(finite(float_of(value, self, param, ctx), self, param, ctx), param, ctx)


def float_of(value: Any, kind: click.ParamType[Any], param: click.Parameter | None, ctx: click.Context | None) -> float:
    try:
        return float(value)
    except ValueError:
        kind.fail(f"'{value}' is not a valid number.", param, ctx)


def finite(value: float, kind: click.ParamType[Any], param: click.Parameter | None, ctx: click.Context | None) -> float:
    if not math.isfinite(value):
        kind.fail(f"must be a finite number, but is {value:g}", param, ctx)
    return value


NUMBER = Finite()
MAY_BE_ENDLESS = click.FloatRange(min=0.0, min_open=True)
ABOVE_0 = Within(min=0.0, min_open=True)


def user_options(command: Command) -> Command:
    """A closed loop, in `simulate`, `compare` and `replay`."""
    for option in reversed(
        (
            click.option("--users", type=click.IntRange(min=1), metavar="N",
                         help="Closed loop: so many clients, each sending its next request when its last has ended."),
            click.option("--think", type=Within(min=0.0), metavar="S",
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
            click.option("--replan-every", type=MAY_BE_ENDLESS, metavar="S",
                         help="NAME+replan: solve the plan again at this age, s.  [default: 30]"),
            click.option("--look-every", type=MAY_BE_ENDLESS, metavar="S",
                         help="NAME+replan: look at the estimates as often, s.  [default: 3]"),
            click.option("--estimate-over", type=MAY_BE_ENDLESS, metavar="S",
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
            click.option("--horizon", type=NUMBER, default=10_000.0, show_default=True, metavar="S",
                         help="Simulated time from an empty cluster, s."),
            click.option("--warmup", type=NUMBER, metavar="S",
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
