"""What goes to standard error while a command works: progress, notices and warnings."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def warn(warnings: Iterable[str]) -> None:
    """Print each distinct warning once, on standard error."""
    for warning in dict.fromkeys(warnings):
        click.echo(f"fluidgate: warning: {warning}", err=True)


@contextmanager
def notices(form: str = "%(message)s") -> Iterator[None]:
    """Show the library's notices (such as a compilation) on standard error, in the form of a `logging.Formatter`."""
    logger = logging.getLogger("fluidgate")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"fluidgate: {form}", "%Y-%m-%dT%H:%M:%S%z"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def progress_bar(task: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error; silent when that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        bar_id = bar.add_task(task, total=None)

        def update(done: int, total: int) -> None:
            bar.update(bar_id, completed=done, total=total)

        yield update


def output() -> Console:
    """Standard output; as wide as tables need when it is not a terminal."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 200
    return Console(width=wide, markup=False, emoji=False, highlight=False)


def show(*tables: Table) -> None:
    """Print tables to standard output, each under its title."""
    console = output()
    for table in tables:
        console.print(table.title, style="bold")
        table.title = None
        console.print(table)
        console.print()
