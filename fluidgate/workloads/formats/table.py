"""A table of text: what a file holds, whatever its kind, with the number of each row for errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table:
    """A file's columns.

    Attributes:
        names: of the columns; of JSON those of the first object.
        take: the columns asked for, as text, by the number of the row; an empty text where there is no value.
        place: what a row is called: `line`, `row`, `request`.
        header: the place of the names, for errors, such as `line 1`.
        loose: whether a row may lack columns, and have others.
    """

    names: list[str]
    take: Callable[[Sequence[str]], pd.DataFrame]
    place: str
    header: str
    loose: bool = False
