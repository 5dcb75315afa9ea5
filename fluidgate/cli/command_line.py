"""The line that started a command, for what it leaves behind."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

from fluidgate.cli.console import FORMAT


def command_line(context: click.Context) -> str:
    """The command with what was given to it, its arguments first, quoted for a shell."""
    given = [
        each
        for each in context.command.params
        if context.get_parameter_source(each.name or "") is ParameterSource.COMMANDLINE
    ]
    given.sort(key=lambda each: isinstance(each, click.Option))
    words = (word for each in given for word in _words(each, _value(context, each)))
    return shlex.join(("fluidgate", context.command.name or "", *words))


def _value(context: click.Context, parameter: click.Parameter) -> Any:
    """What was given; --format is not told to the command, but to whoever prints."""
    if parameter.expose_value:
        return context.params[parameter.name or ""]
    return context.meta[FORMAT]


def _words(parameter: click.Parameter, value: Any) -> Iterator[str]:
    values = value if isinstance(value, tuple | list) else (value,)
    if isinstance(value, dict):
        values = [f"{key}={text}" for key, text in value.items()]
    for each in values:
        if not isinstance(parameter, click.Option):
            yield str(each)
        elif parameter.is_flag:
            yield parameter.opts[-1] if each else parameter.secondary_opts[-1]
        else:
            yield from (parameter.opts[-1], str(each))
