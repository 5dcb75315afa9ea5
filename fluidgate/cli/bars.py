"""Bars of what is done."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text


def bars(*, disable: bool) -> Progress:
    """Bars on standard error, which go when they are done."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        Filled(bar_width=30),
        Count(),
        TimeElapsedColumn(),
        Left(),
        console=Console(stderr=True),
        transient=True,
        disable=disable,
    )


class Filled(BarColumn):
    """The bar; of work that is known by the time it takes, filled by the clock."""

    def render(self, task: Task) -> object:  # type: ignore[override]
        if task.fields.get("seconds") and task.total:
            task.completed = min(task.elapsed or 0.0, 0.99 * task.total)
        return super().render(task)


class Count(ProgressColumn):
    """How much is done of how much, where it is counted."""

    def render(self, task: Task) -> Text:
        if task.total is None or task.fields.get("seconds"):
            return Text("")
        return Text(f"{task.completed:,.0f} of {task.total:,.0f}")


class Left(ProgressColumn):
    """The time left, where it can be told."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.fields.get("seconds"):
            return Text(f"of some {task.total:.0f} s" if task.total else "")
        seconds = task.time_remaining
        if seconds is None:
            return Text("")
        minutes, seconds = divmod(int(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02d}:{seconds:02d} left" if hours else f"{minutes}:{seconds:02d} left")
