"""What was given to a command, looked over as a whole before it works."""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fluidgate.cli.completion import Known, Paths
from fluidgate.errors import FluidgateError

WRITTEN = ("html", "log", "output", "plot", "qq")
"""Parameters that name a file to write."""


def looked_over(command: click.Command) -> click.Command:
    """The command, which refuses empty values, and to write over a file that it reads."""
    works = command.callback
    assert works is not None

    @wraps(works)
    def run(*args: Any, **kwargs: Any) -> Any:
        context = click.get_current_context()
        _refuse_empty(context)
        _refuse_loss(context)
        _refuse_shared_input(context)
        return works(*args, **kwargs)

    command.callback = run
    return command


def is_given(context: click.Context, name: str) -> bool:
    """Whether a parameter stands on the command line, an option with another value than it has without."""
    each = _parameter(context, name)
    same = isinstance(each, click.Option) and context.params.get(name) == each.get_default(context)
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE and not same


def only_with(context: click.Context, other: str, *names: str) -> None:
    """Refuse parameters that mean nothing without another one.

    Raises:
        FluidgateError: naming both.
    """
    if context.params.get(other) not in (None, False, ()):
        return
    for name in names:
        if is_given(context, name):
            raise FluidgateError(
                f"{_spelled(context, name)}: only with {_spelled(context, other)}; give it, or leave the first out"
            )


def _spelled(context: click.Context, name: str) -> str:
    """A parameter as it is typed."""
    each = _parameter(context, name)
    return each.opts[-1] if isinstance(each, click.Option) else each.make_metavar(context).strip("[].")


def _parameter(context: click.Context, name: str) -> click.Parameter:
    return next(each for each in context.command.params if each.name == name)


def _refuse_empty(context: click.Context) -> None:
    for each in context.command.params:
        name = each.name or ""
        if not isinstance(each, click.Option) or not is_given(context, name) or name not in context.params:
            continue
        value = context.params[name]
        nothing = not value.strip() if isinstance(value, str) else value == () and each.multiple
        if nothing:
            what = each.metavar or "a value"
            raise FluidgateError(f"{each.opts[-1]}: must not be empty; give {what}, or leave it out")


def _refuse_loss(context: click.Context) -> None:
    """Refuse to write over what is read, and two files into one."""
    read = {path.resolve(): name for name in _read(context) for path in _files(context, name)}
    for name in WRITTEN:
        value = context.params.get(name)
        if not isinstance(value, str) or Path(value).is_char_device():
            continue
        path = Path(value).resolve()
        if path in read:
            raise FluidgateError(
                f"{_spelled(context, name)}: '{value}' is read, as {_spelled(context, read[path])}, and would be "
                "written over; name another file"
            )
        read[path] = name


def _refuse_shared_input(context: click.Context) -> None:
    """Refuse two files on standard input, which holds one."""
    several = [name for name in _read(context) for text in _texts(context, name) if text.rpartition("=")[2] == "-"]
    if len(several) > 1:
        first, second = (_spelled(context, name) for name in several[:2])
        raise FluidgateError(f"{second}: '-' is standard input, which {first} is read from; name a file")


def _read(context: click.Context) -> Iterator[str]:
    """Parameters that name files to read."""
    for each in context.command.params:
        named = isinstance(each, click.Argument) or isinstance(each.type, Paths | Known)
        if named and each.name in context.params and each.name not in WRITTEN:
            yield each.name


def _texts(context: click.Context, name: str) -> Iterator[str]:
    value = context.params[name]
    yield from (text for text in (value if isinstance(value, tuple | list) else (value,)) if isinstance(text, str))


def _files(context: click.Context, name: str) -> Iterator[Path]:
    """Files that a parameter names: `FILE`, `CLASS=FILE` or `FILE.py:NAME`."""
    for text in _texts(context, name):
        for each in {text, text.partition("=")[2], text.partition(":")[0]} - {""}:
            try:
                if Path(each).is_file():
                    yield Path(each)
            except (OSError, ValueError):
                continue
