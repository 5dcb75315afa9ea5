"""What a reader sees of tables and pictures."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from rich.console import Console, RenderableType
from rich.table import Table


def shown(parts: RenderableType | Iterable[RenderableType]) -> str:
    """As on a wide terminal without colours."""
    screen = Console(file=io.StringIO(), width=200)
    for part in parts if isinstance(parts, Iterable) and not isinstance(parts, str) else [parts]:
        screen.print(part)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def cells(table: Table) -> list[tuple[str, ...]]:
    """The rows of a table."""
    return list(zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True))


def by_first(table: Table) -> dict[str, tuple[str, ...]]:
    """The rows by what their first cell says."""
    return {first: rest for first, *rest in cells(table)}  # type: ignore[misc]


def headers(table: Table) -> list[str]:
    return [str(column.header) for column in table.columns]


def lines(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """Places and heights of the lines, by their labels; those without a label are left out."""
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for line in axes.get_lines()
        if not str(line.get_label()).startswith("_")
    }


def series(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """Places and heights of all lines, as they were drawn."""
    return [(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) for line in axes.get_lines()]
