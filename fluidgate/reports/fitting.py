"""Tables made to fit a terminal: names stay whole, other columns fold between words, what has no room stands below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy

from rich.cells import cell_len
from rich.table import Column, Table

from fluidgate.reports.figures import figure_of


def fitted(made: Table, width: int) -> list[Table]:
    """The table in one piece where it fits; else its columns in several, each with the names again."""
    if _natural(made.columns) <= width:
        return [made]
    names = [column for column in made.columns if column.no_wrap]
    others = [column for column in made.columns if not column.no_wrap]
    pieces = [_piece(made, [*names, *part], width) for part in _parts(names, others, width)]
    for piece in pieces[:-1]:
        piece.caption = None
    return pieces


def needed(made: Table) -> int:
    """The width of a table that is not folded further."""
    return _natural(made.columns)


def _parts(names: Sequence[Column], others: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """The other columns, as many at a time as fit beside the names, but one at least."""
    part: list[Column] = []
    for column in others:
        if part and _frame(len(names) + len(part) + 1) + sum(map(_least, [*names, *part, column])) > width:
            yield part
            part = []
        part.append(column)
    yield part


def _piece(made: Table, columns: Sequence[Column], width: int) -> Table:
    piece = copy(made)
    piece.columns = []
    room = max(width, _frame(len(columns)) + sum(map(_least, columns))) - _frame(len(columns))
    for column, wide in zip(columns, _widths(columns, room), strict=True):
        placed = copy(column)
        placed.width = wide
        placed._index = len(piece.columns)
        piece.columns.append(placed)
    return piece


def _widths(columns: Sequence[Column], room: int) -> list[int]:
    """Widths that fill no more than the room: the widest columns are narrowed first, none below its longest word."""
    least, most = [_least(column) for column in columns], [_most(column) for column in columns]
    for cap in range(max(most), 0, -1):
        widths = [max(low, min(high, cap)) for low, high in zip(least, most, strict=True)]
        if sum(widths) <= room:
            return widths
    return least


def _natural(columns: Sequence[Column]) -> int:
    return _frame(len(columns)) + sum(map(_most, columns))


def _frame(columns: int) -> int:
    """Blanks around so many columns, between them and at the edges."""
    return 3 * columns + 1


def _texts(column: Column) -> list[str]:
    return [str(column.header), *(str(cell) for cell in column.cells)]


def _most(column: Column) -> int:
    if column.width is not None:
        return column.width
    return max(cell_len(line) for text in _texts(column) for line in (text.splitlines() or [""]))


def _least(column: Column) -> int:
    """Of a name all of it, else the longest word, or number with its unit."""
    if column.no_wrap:
        return _most(column)
    return max((cell_len(word) for text in _texts(column) for word in _words(text)), default=0)


def _words(text: str) -> list[str]:
    figure = figure_of(text)
    return [text] if figure is not None and not figure.interval else text.split()
