"""Numbers as tables show them, which keep what they stand for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
SHOWN = re.compile(rf"({NUMBER})(?: ±({NUMBER}))?(?: ([^\d\s/][^\s/]*|/s))?")
"""A number, perhaps half of its interval, perhaps its unit."""


@dataclass(frozen=True)
class Figure:
    """A number in the unit that is shown, and the ends of its 95 % confidence interval where it has one."""

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    interval: bool = False
    """Whether it is of a kind that has an interval, be there one or not."""


class Shown(str):
    """The text of a figure, which keeps the figure with all its digits."""

    figure: Figure

    def __new__(cls, text: str, figure: Figure) -> Shown:
        made = super().__new__(cls, text)
        made.figure = figure
        return made


class Named(str):
    """A name with what else it is called."""

    name: str

    def __new__(cls, name: str, also: Sequence[str] = ()) -> Named:
        made = super().__new__(cls, " = ".join((name, *also)))
        made.name = name
        return made


class Several(str):
    """Figures of several classes in one cell, by their names."""

    parts: dict[str, Figure]

    def __new__(cls, parts: dict[str, Shown]) -> Several:
        made = super().__new__(cls, " / ".join(parts.values()))
        made.parts = {name: part.figure for name, part in parts.items()}
        return made


def figure_of(cell: object) -> Figure | None:
    """The figure that a cell of a table stands for; None for words."""
    if isinstance(cell, Shown):
        return cell.figure
    found = SHOWN.fullmatch(str(cell))
    if found is None:
        return None
    value, half, unit = found.groups()
    mean = _parsed(value)
    if half is None:
        return Figure(mean, unit=unit or "")
    return Figure(mean, mean - _parsed(half), mean + _parsed(half), unit or "", interval=True)


def _parsed(text: str) -> float:
    return float(text.replace(",", ""))
