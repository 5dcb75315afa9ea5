"""A table of text: what a file holds, whatever its kind, with the number of each row for errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


class Take(Protocol):
    """Takes columns by the number of the row: as text, an empty one where there is no value; and lists of numbers."""

    def __call__(self, wanted: Sequence[str], lists: Sequence[str] = ()) -> pd.DataFrame: ...


def whole_numbers(value: Any) -> Any:
    """A list of whole numbers from 0 as an array; any other value as it is."""
    if not isinstance(value, list):
        return value
    try:
        found = np.array(value, np.uint64)
    except (ValueError, TypeError, OverflowError):
        return value
    return found if set(map(type, value)) <= {int} else value


@dataclass(frozen=True)
class Table:
    """A file's columns.

    Attributes:
        names: of the columns; of JSON those of the first object.
        take: the columns asked for.
        place: what a row is called: `line`, `row`, `request`.
        header: the place of the names, for errors, such as `line 1`.
        loose: whether a row may lack columns, and have others.
    """

    names: list[str]
    take: Take
    place: str
    header: str
    loose: bool = False
