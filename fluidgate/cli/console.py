"""What goes to standard error while a command works: progress, notices and warnings."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from fluidgate.errors import UnitWarning

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

WIDE = 200
"""Columns of a page that is no terminal."""

BAD_INPUT = 2
"""Exit status."""
PLAIN = logging.Formatter("fluidgate: %(message)s")
FORMATS = ("table", "csv", "markdown", "latex", "json")
FORMAT = "fluidgate.format"
"""Where a command keeps the form of its output."""


def output_format() -> str:
    """The form in which the command prints its tables."""
    context = click.get_current_context(silent=True)
    return "table" if context is None else str(context.meta.get(FORMAT, "table"))


def warn(sentences: Iterable[str]) -> None:
    """Print each distinct warning once, on standard error, or where a server's log goes."""
    for warning in dict.fromkeys(sentences):
        if _logs:
            _logs[-1].warning("%s", warning)
        else:
            click.echo(f"fluidgate: warning: {warning}", err=True)


@contextmanager
def notices(form: logging.Formatter = PLAIN, level: str = "INFO") -> Iterator[None]:
    """Show the library's notices on standard error; a compilation as a bar."""
    logger = logging.getLogger("fluidgate")
    handler = Notices(sys.stderr)
    handler.setFormatter(form)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.compiled()


class Notices(logging.StreamHandler[TextIO]):
    """Lines on standard error; on a terminal a compilation is a bar that goes when it is done."""

    _bar: ExitStack | None = None

    def emit(self, record: logging.LogRecord) -> None:
        compiling = getattr(record, "compiling", None)
        if _bars and compiling is None:
            _bars[-1].console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
        elif compiling is None or not bars_are_seen():
            super().emit(record)
        elif compiling:
            self._compiling(compiling, getattr(record, "expected", 0))
        else:
            self.compiled()

    def _compiling(self, what: str, seconds: int) -> None:
        self.compiled()
        self._bar = ExitStack()
        bars = self._bar.enter_context(shared_bars())
        task = bars.add_task(f"compiling {what}", total=seconds or None, seconds=True)
        self._bar.callback(bars.remove_task, task)

    def compiled(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def bars_are_seen() -> bool:
    """Whether standard error is a terminal that can draw over a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


_logs: list[logging.Logger] = []
"""Where warnings go while a server runs."""


@contextmanager
def warnings_to(logger: logging.Logger) -> Iterator[None]:
    """Let `warn` log, so that all lines of a server have one form."""
    _logs.append(logger)
    try:
        yield
    finally:
        _logs.remove(logger)


_bars: list[Progress] = []
"""The bars on standard error, the same for all who draw there at a time."""


@contextmanager
def shared_bars() -> Iterator[Progress]:
    """The bars on standard error; silent when that is not a terminal."""
    if _bars:
        yield _bars[-1]
        return
    from fluidgate.cli.bars import bars

    with bars(disable=not bars_are_seen()) as made:
        _bars.append(made)
        try:
            yield made
        finally:
            _bars.remove(made)


class _Warns(logging.Handler):
    """Tells each message once, as `warn` does."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if (message := record.getMessage()) not in self._told:
            self._told.add(message)
            warn([message])


@contextmanager
def plugin_warnings() -> Iterator[None]:
    """Print what is wrong with other packages' policies, profiles and readers as warnings, each once."""
    logger, handler = logging.getLogger("fluidgate.plugins"), _Warns()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


@contextmanager
def unit_warnings() -> Iterator[None]:
    """Print doubts of units as warnings, each once."""
    told: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", UnitWarning)
        others = warnings.showwarning

        def show_one(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, UnitWarning):
                if _logs:
                    warn([f"{category.__name__}: {message}"])
                else:
                    others(message, category, *where, **more)
            elif str(message) not in told:
                told.add(str(message))
                warn([str(message)])

        warnings.showwarning = show_one
        yield


@contextmanager
def progress_bar(task: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with how much is done, of how much, and the time left; without a total, until it is told, a pulse."""
    with shared_bars() as bars:
        bar = bars.add_task(task, total=None)

        def update(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)

        try:
            yield update
        finally:
            bars.remove_task(bar)


def output() -> Console:
    """Standard output: as wide as the terminal or COLUMNS says, else as tables need."""
    from rich.console import Console

    told = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if told else WIDE, markup=False, emoji=False, highlight=False)


def show(*tables: Table) -> None:
    """Print tables to standard output in the form of `--format`; on a terminal each under its title."""
    from fluidgate.reports.formats import WRITERS

    write = WRITERS.get(output_format())
    if write is not None:
        click.echo(write(tables), nl=False)
        return
    from fluidgate.reports.fitting import fitted, needed

    console = output()
    width = console.width
    for table in tables:
        console.print(table.title, style="bold")
        for piece in fitted(table, width):
            piece.title = None
            console.width = max(width, needed(piece))
            console.print(piece)
        console.width = width
        console.print()


def told(text: str) -> None:
    """What to do next: below the tables on a terminal, on standard error where the output is for a program."""
    click.echo(text, err=output_format() != "table")
