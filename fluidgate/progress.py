"""How far a long run is: told to a function, or shown where somebody looks on, in a notebook or a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Protocol

Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""

QUIET = 0.5
"""Seconds after which a notebook is shown a bar."""
OFTEN = 0.1
"""Seconds from one picture of it to the next, at least."""


class Bar(Protocol):
    """What shows how far a run is, and what holds it up."""

    def tell(self, done: int, total: int) -> None: ...
    def say(self, message: str) -> None: ...
    def close(self) -> None: ...


@contextmanager
def reported(progress: Progress | bool | None, task: str) -> Iterator[Progress | None]:
    """What to tell how far a run is.

    Args:
        progress: a function, which is told; True for a bar, and a line when code is compiled; False for none; None for
            a bar in a notebook, and none elsewhere.
        task: what is done, in a few words.
    """
    notebook = in_notebook()
    if callable(progress) or progress is False or (progress is None and not notebook):
        yield progress if callable(progress) else None
        return
    bar: Bar = NotebookBar(task) if notebook else TerminalBar(task)
    with _notices(bar):
        try:
            yield bar.tell
        finally:
            bar.close()


def in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class NotebookBar:
    """A bar in the output of a cell, gone when the run ends."""

    def __init__(self, task: str) -> None:
        self._task, self._message = task, ""
        self._done, self._total = 0, 0
        self._began = self._drawn = time.monotonic()
        self._handle: Any = None

    def tell(self, done: int, total: int) -> None:
        self._done, self._total, self._message = done, total, ""
        now = time.monotonic()
        if now - self._began > QUIET and now - self._drawn > OFTEN:
            self._draw(self.html())

    def say(self, message: str) -> None:
        self._message = message
        self._draw(self.html())

    def close(self) -> None:
        if self._handle is not None:
            self._draw("")

    def html(self) -> str:
        """The bar, its numbers, and the seconds that are left at this pace."""
        value = f' value="{self._done}" max="{self._total}"' if self._total and not self._message else ""
        words = [self._message or self._task]
        if self._total and not self._message:
            words.append(f"{self._done:,} of {self._total:,}")
            if self._done:
                left = (time.monotonic() - self._began) * (self._total - self._done) / self._done
                words.append(f"{left:.0f} s left")
        return f"<progress{value}></progress> {escape(', '.join(words))}"

    def _draw(self, html: str) -> None:
        from IPython.display import display

        self._drawn = time.monotonic()
        content = {"text/html": html, "text/plain": ""}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class TerminalBar:
    """A bar on standard error, gone when the run ends."""

    def __init__(self, task: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._task = task
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._id = self._bar.add_task(task, total=None)
        self._bar.start()

    def tell(self, done: int, total: int) -> None:
        self._bar.update(self._id, completed=done, total=total, description=self._task)

    def say(self, message: str) -> None:
        self._bar.update(self._id, description=message)

    def close(self) -> None:
        self._bar.stop()


class _Said(logging.Handler):
    def __init__(self, bar: Bar) -> None:
        super().__init__(logging.INFO)
        self._bar = bar

    def emit(self, record: logging.LogRecord) -> None:
        self._bar.say(record.getMessage())


@contextmanager
def _notices(bar: Bar) -> Iterator[None]:
    """Let the bar say what the library does, such as a compilation."""
    logger, handler = logging.getLogger("fluidgate"), _Said(bar)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
