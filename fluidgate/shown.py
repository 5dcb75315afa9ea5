"""What results have in common: they show themselves, in one line, as tables of a notebook, as LaTeX, as a picture.

Tables and pictures stand on the top floor, in `fluidgate.reports`. So no lower floor imports them;
`fluidgate/__init__.py`, which runs before any module of the package, puts them here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Sized
from typing import TYPE_CHECKING, Any, Protocol

from fluidgate.arguments import checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LONGEST = 60
"""Letters of a value that stands in one line with others."""


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


class Brief:
    """What shows itself in one line, a part of a result: its texts and numbers, unless it has better words."""

    def headline(self) -> str:
        """What it is and its first number, in a few words."""
        from dataclasses import fields

        parts = ((each.name, getattr(self, each.name)) for each in fields(self) if each.repr)  # type: ignore[arg-type]
        return ", ".join(f"{name}={text}" for name, value in parts if (text := _in_short(value)))

    def __repr__(self) -> str:
        return f"<{f'{type(self).__name__} {self.headline()}'.strip()}>"

    def __str__(self) -> str:
        return repr(self)


class Shown(Brief):
    """A result with tables."""

    if TYPE_CHECKING:

        @property
        def warnings(self) -> Sequence[str]:
            """What a reader should know, a sentence each."""
    else:
        warnings = ()

    def to_dict(self) -> dict[str, Any]:
        """Its numbers, fit for JSON."""
        raise NotImplementedError

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        import json

        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def _repr_html_(self) -> str:
        return _reports().html_of(self)

    def to_latex(self) -> str:
        """Its tables as LaTeX, with the rules of the package booktabs."""
        return _reports().latex_of(self)


class Drawn(Shown):
    """A result with a picture too."""

    @checked
    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Its picture, as a figure of matplotlib, which a notebook shows.

        Args:
            path: also written there; the suffix says the kind (.png, .svg, .pdf).

        Raises:
            FluidgateError: there is nothing to draw, or the file can't be written.
        """
        figure = _reports().figure_of(self)
        if path is not None:
            _reports().save(figure, path)
        return figure


def _in_short(value: Any) -> str:
    """Nothing of what is long, empty or absent."""
    if value is None or hasattr(value, "dtype") or (isinstance(value, Sized) and not len(value)):
        return ""
    text = rate(value) if isinstance(value, float) else repr(value)
    return text if len(text) <= LONGEST else ""


def rate(value: float | None) -> str:
    """A number with 4 digits, as headlines have them; all of those before the point."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def several(count: int, noun: str) -> str:
    """`1 class`, `2 classes`, `3 policies`."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"
