"""What results have in common: they show themselves, in one line, as tables of a notebook, as LaTeX, as a picture.

Tables and pictures stand on the top floor, in `fluidgate.reports`. So no lower floor imports them;
`fluidgate/__init__.py`, which runs before any module of the package, puts them here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from fluidgate.arguments import checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Reports(Protocol):
    """What `fluidgate.reports.results` has."""

    def html_of(self, found: Any) -> str: ...
    def latex_of(self, found: Any) -> str: ...
    def figure_of(self, found: Any) -> Figure: ...
    def save(self, figure: Figure, path: str | os.PathLike[str]) -> None: ...


_reports: Callable[[], Reports]


def use_reports(reports: Callable[[], Reports]) -> None:
    """Let `reports`, which is called late, render results from now on."""
    global _reports
    _reports = reports


class Shown:
    """A result with tables."""

    def headline(self) -> str:
        """What it is and its first number, in a few words."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.headline()}>"

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        return _reports().html_of(self)

    def to_latex(self) -> str:
        """Its tables as LaTeX, with the rules of the package booktabs."""
        return _reports().latex_of(self)


class Drawn(Shown):
    """A result with a picture too."""

    @checked
    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """The picture that `--plot` draws, as a figure of matplotlib, which a notebook shows.

        Args:
            path: also written there; the suffix says the kind (.png, .svg, .pdf).

        Raises:
            FluidgateError: there is nothing to draw, or the file can't be written.
        """
        figure = _reports().figure_of(self)
        if path is not None:
            _reports().save(figure, path)
        return figure


def rate(value: float | None) -> str:
    """A number with 4 digits, as headlines have them."""
    return "-" if value is None else f"{value:.4g}"


def several(count: int, noun: str) -> str:
    """`1 class`, `2 classes`, `3 policies`."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"
