"""The command line as a whole: its commands, and how errors and interrupts leave it."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path

import click

from fluidgate import __version__
from fluidgate.cli.bound import bound
from fluidgate.cli.calibrate import calibrate
from fluidgate.cli.click_words import message_of
from fluidgate.cli.compare import compare
from fluidgate.cli.completion import completed, completion
from fluidgate.cli.console import BAD_INPUT, plugin_warnings, unit_warnings
from fluidgate.cli.engine import engine
from fluidgate.cli.examples import examples
from fluidgate.cli.frontier import frontier
from fluidgate.cli.given import looked_over
from fluidgate.cli.optimum import optimum
from fluidgate.cli.paper import paper
from fluidgate.cli.plan import plan
from fluidgate.cli.policies import policies
from fluidgate.cli.probe import probe
from fluidgate.cli.profiles import profiles
from fluidgate.cli.replay import replay
from fluidgate.cli.schema import schema
from fluidgate.cli.serve import serve
from fluidgate.cli.simulate import simulate
from fluidgate.cli.size import size
from fluidgate.cli.tune import tune
from fluidgate.cli.warm import warm
from fluidgate.cli.watch import watch
from fluidgate.cli.workload import workload
from fluidgate.errors import FluidgateError, one_line
from fluidgate.wording import to_command_line

INTERRUPTED = 130


class Interrupted(Exception):
    """Ctrl-C, past click's own answer to it."""


class App(click.Group):
    """The group of commands; an interrupt leaves it as `Interrupted`."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            with to_command_line():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted from None


@click.group(cls=App, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fluidgate")
@click.pass_context
def app(context: click.Context) -> None:
    """Plan, simulate and control LLM inference clusters with heterogeneous workloads.

    Start with a scenario file (see `fluidgate schema`, or make one from traces with `fluidgate workload`), then
    `fluidgate plan SCENARIO` and `fluidgate compare SCENARIO`.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    size,
    plan,
    simulate,
    compare,
    replay,
    tune,
    optimum,
    bound,
    frontier,
    policies,
    profiles,
    workload,
    calibrate,
    probe,
    engine,
    serve,
    watch,
    warm,
    examples,
    schema,
    paper,
    completion,
):
    app.add_command(looked_over(completed(command)))


def main(arguments: list[str] | None = None) -> None:
    """Run the command; bad input ends in one line on standard error and exit status 2."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with plugin_warnings(), unit_warnings():
            app.main(args=arguments, prog_name="fluidgate", standalone_mode=False)
        sys.stdout.flush()
    except FluidgateError as error:
        _leave(str(error))
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "fluidgate"
        _leave(f"{message_of(error, sys.argv[1:] if arguments is None else arguments)} (see `{where} --help`)")
    except MemoryError:
        _leave("out of memory; simulate fewer GPUs or a smaller batch_size")
    except (Interrupted, KeyboardInterrupt, click.Abort):
        click.echo("fluidgate: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _drop_output()
        where = "standard output" if error.filename is None else error.filename
        _leave(f"{where}: {error.strerror or error}; make room, or give another place")


def _open_closed_streams() -> None:
    """Streams that the shell has closed (`>&-`) take what is written, and keep nothing."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def _drop_output() -> None:
    """What standard output holds back is not tried again as Python ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(message: str) -> None:
    click.echo(f"fluidgate: {one_line(message)}", err=True)
    sys.exit(BAD_INPUT)
