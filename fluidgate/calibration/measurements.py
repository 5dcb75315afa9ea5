"""Measured iteration times, read from a CSV file.

Columns: `batch_size` (decodes in the batch), `chunk_size` (prompt tokens read in the iteration, 0 for a solo
iteration) and `seconds`; perhaps `context` (tokens of context of each decode) and `read_before` (tokens of its prompt
that were read before the chunk). Further columns are ignored, and so are blank lines and lines that begin with `#`, but
for those before the header that say `# key: value`.
"""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError, UnitWarning, nearest
from fluidgate.model import Array
from fluidgate.packed_file import read_packed_text, refuse_other_kind
from fluidgate.separators import separator_of
from fluidgate.shown import Brief, several
from fluidgate.time_units import UNITS, TimeUnit
from fluidgate.toml_file import LARGEST_WHOLE, fail, shown, source_of

Tokens = NDArray[np.int64]

SLOW = 2.0
"""s that an iteration takes, from which on their unit is doubted."""
STANDARD = ("batch_size", "chunk_size", "seconds")
OPTIONAL = ("context", "read_before")
COMMENT = re.compile(r"#\s*([a-z_]+)\s*:\s*(.*?)\s*$")


@dataclass(frozen=True, repr=False)
class Pairs(Brief):
    """The distinct pairs of batch size and chunk size, each with the mean of its repeats; arrays of shape (pairs,).

    Attributes:
        batch_size: decodes, ascending.
        chunk_size: prompt tokens, ascending within a batch size.
        repeats: rows of the pair.
        seconds: mean iteration time, s.
    """

    batch_size: Tokens
    chunk_size: Tokens
    repeats: Tokens
    seconds: Array

    def headline(self) -> str:
        return f"of sizes, {len(self.seconds):,}"

    def select(self, kept: NDArray[np.bool_]) -> Pairs:
        return Pairs(self.batch_size[kept], self.chunk_size[kept], self.repeats[kept], self.seconds[kept])


@dataclass(frozen=True, repr=False)
class Measurements(Brief):
    """Iteration times, a row each; arrays of shape (rows,).

    Attributes:
        batch_size: decodes in the batch.
        chunk_size: prompt tokens read in the iteration; 0 where it is solo.
        seconds: iteration time, s.
        source: name of the file, without its folder.
        known_context: tokens of context of each decode; None where the file does not say.
        others: the texts of the file's further columns, by name.
        known_read_before: tokens of its prompt that were read before the chunk; None where the file does not say.
        said: what the comments above the header say, by key.
    """

    batch_size: Tokens
    chunk_size: Tokens
    seconds: Array
    source: str
    known_context: Array | None = None
    others: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)
    known_read_before: Array | None = None
    said: Mapping[str, str] = field(default_factory=dict)

    def headline(self) -> str:
        return f"of '{self.source}': {several(len(self), 'row')}, {several(len(self.pairs.seconds), 'pair')} of sizes"

    def __len__(self) -> int:
        return len(self.seconds)

    def select(self, kept: NDArray[np.bool_]) -> Measurements:
        return replace(
            self,
            batch_size=self.batch_size[kept],
            chunk_size=self.chunk_size[kept],
            seconds=self.seconds[kept],
            known_context=None if self.known_context is None else self.known_context[kept],
            others={name: texts[kept] for name, texts in self.others.items()},
            known_read_before=None if self.known_read_before is None else self.known_read_before[kept],
        )

    def with_context(self, tokens: float) -> Measurements:
        """The same rows, each decode with `tokens` of context."""
        return replace(self, known_context=np.full(len(self), float(tokens)))

    @property
    def has_context(self) -> bool:
        return self.known_context is not None

    @property
    def context(self) -> Array:
        """Tokens of context of each decode, 0 where unknown and where there is none."""
        known = np.zeros(len(self)) if self.known_context is None else self.known_context
        return np.where(self.batch_size > 0, known, 0.0)

    @property
    def read_before(self) -> Array:
        """Tokens of its prompt that were read before the chunk, 0 where unknown and where there is none."""
        known = np.zeros(len(self)) if self.known_read_before is None else self.known_read_before
        return np.where(self.chunk_size > 0, known, 0.0)

    @property
    def solo(self) -> NDArray[np.bool_]:
        """Which rows have no prefill."""
        return np.equal(self.chunk_size, 0)

    @property
    def pairs(self) -> Pairs:
        """The pairs of batch size and chunk size (computed anew at each call: keep it)."""
        both = np.column_stack([self.batch_size, self.chunk_size])
        distinct, place, repeats = np.unique(both, axis=0, return_inverse=True, return_counts=True)
        seconds = np.bincount(place.ravel(), weights=self.seconds) / repeats
        return Pairs(distinct[:, 0], distinct[:, 1], repeats, seconds)


@checked
def read_measurements(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    *,
    unit: TimeUnit = "s",
    where: Mapping[str, str] | None = None,
) -> Measurements:
    """Read a CSV file of iteration times, plain or packed.

    Args:
        path: the file; its first line that is neither blank nor a comment is the header.
        columns: the file's own name for a standard column, where it differs.
        unit: of the times in the file.
        where: keep only the rows with these values, by column.

    Raises:
        FluidgateError: the file is missing or wrong, or keeps no row; the message names file, line and mend.
    """
    source = source_of(path)
    names = _names(columns or {})
    text = read_packed_text(path, "a CSV file of iteration times")
    refuse_other_kind(source, "measured iterations")
    rows = _rows(text, source)
    try:
        line, header = next(rows)
    except StopIteration:
        fail(source, [f"empty; give a CSV file with the columns {', '.join(STANDARD)}"])
    header = [cell.strip() for cell in header]
    for standard in OPTIONAL:
        if standard not in {*(columns or {}), *header}:
            del names[standard]
    place = {standard: _column(name, standard, header, line, source) for standard, name in names.items()}
    conditions = {_column(name, None, header, line, source): value for name, value in (where or {}).items()}
    kept: list[tuple[int, list[str]]] = []
    seen: dict[int, dict[str, None]] = {index: {} for index in conditions}
    for number, cells in rows:
        if len(cells) != len(header):
            fail(source, [f"line {number}: {len(cells)} fields where the header has {len(header)}; correct it"])
        if all(_same(cells[index], value) for index, value in conditions.items()):
            kept.append((number, cells))
        for index in conditions:
            seen[index][cells[index].strip()] = None
    if not kept:
        _refuse_empty(conditions, seen, header, source)
    batch = [_whole(cells[place["batch_size"]], number, names["batch_size"], source) for number, cells in kept]
    chunk = [_whole(cells[place["chunk_size"]], number, names["chunk_size"], source) for number, cells in kept]
    seconds = [_time(cells[place["seconds"]], number, names["seconds"], source) for number, cells in kept]
    for (number, _), decodes, tokens in zip(kept, batch, chunk, strict=True):
        if decodes == 0 and tokens == 0:
            fail(source, [f"line {number}: an iteration without decodes and without a chunk; remove this line"])
    further: dict[str, Array | None] = dict.fromkeys(OPTIONAL)
    for standard, sizes in zip(OPTIONAL, (batch, chunk), strict=True):
        if standard in place:
            cells_of = [
                (number, cells[place[standard]], size) for (number, cells), size in zip(kept, sizes, strict=True)
            ]
            found = [_tokens(cell, size, number, names[standard], source) for number, cell, size in cells_of]
            further[standard] = np.array(found, dtype=np.float64)
    read = {place[standard] for standard in STANDARD}
    others = {name: [cells[k].strip() for _, cells in kept] for k, name in enumerate(header) if k not in read}
    if (slow := float(np.median(seconds)) / UNITS[unit]) >= SLOW:
        doubt = f"{source}: {names['seconds']}: {slow:g} s an iteration, in the middle"
        warnings.warn(f"{doubt}; if they are milliseconds give --unit ms", UnitWarning, stacklevel=2)
    return Measurements(
        np.array(batch, dtype=np.int64),
        np.array(chunk, dtype=np.int64),
        np.array(seconds) / UNITS[unit],
        Path(source).name,
        further["context"],
        {name: np.array(texts, dtype=object) for name, texts in others.items()},
        further["read_before"],
        _said(text),
    )


def _said(text: str) -> dict[str, str]:
    """What the lines `# key: value` above the header say."""
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            break
        if (said := COMMENT.match(line.strip())) and said[2]:
            found[said[1]] = said[2]
    return found


def _names(columns: Mapping[str, str]) -> dict[str, str]:
    """The file's name of each standard column."""
    known = [*STANDARD, *OPTIONAL]
    for standard in columns:
        if standard not in known:
            hint = nearest(standard, known) or f"; the columns are {', '.join(known)}"
            raise FluidgateError(f"--map: no standard column {shown(standard)}{hint}")
    return {standard: columns.get(standard, standard) for standard in known}


def _rows(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row with its line number, blank lines and comments left out."""
    header = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    reader = csv.reader(StringIO(text, newline=""), strict=True, skipinitialspace=True, delimiter=separator_of(header))
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#"):
                yield reader.line_num, cells
    except csv.Error as error:
        fail(source, [f"line {reader.line_num}: not CSV ({error}); mend this line"])


def _column(name: str, standard: str | None, header: list[str], line: int, source: str) -> int:
    if header.count(name) > 1:
        fail(source, [f"line {line}: the column {shown(name)} is there twice; remove one of the two"])
    if name in header:
        return header.index(name)
    hint = nearest(name, header) if name != standard else ""
    mend = hint or f"; the columns are {', '.join(header[:12])}"
    if standard is not None:
        mend += f"; --map {standard}=COLUMN says which one it is"
    fail(source, [f"line {line}: no column {shown(name)}{mend}"])


def _same(cell: str, value: str) -> bool:
    """Whether a cell holds a value, as a text or as a number."""
    if cell.strip() == value.strip():
        return True
    try:
        return float(cell) == float(value)
    except ValueError:
        return False


def _refuse_empty(
    conditions: Mapping[int, str], seen: Mapping[int, Mapping[str, None]], header: list[str], source: str
) -> NoReturn:
    for index, value in conditions.items():
        values = list(seen[index])
        if values and not any(_same(cell, value) for cell in values):
            hint = nearest(value, values) or f"; its values are {', '.join(values[:8])}"
            fail(source, [f"--where {header[index]}={value}: no such row{hint}"])
    what = "no row meets every --where; leave one out" if conditions else "a header without rows; give measured rows"
    fail(source, [what])


def _number(cell: str, line: int, name: str, wanted: str, source: str) -> float:
    try:
        return float(cell)
    except ValueError:
        text = cell.strip()
        reason = f"must be {wanted}, but is {shown(text)}; correct it" if text else f"missing; give {wanted}"
        fail(source, [f"line {line}: {name}: {reason}"])


def _whole(cell: str, line: int, name: str, source: str) -> int:
    wanted = f"a whole number from 0 to {LARGEST_WHOLE}"
    number = _number(cell, line, name, wanted, source)
    if not 0 <= number <= LARGEST_WHOLE or number != math.floor(number):
        fail(source, [f"line {line}: {name}: must be {wanted}, but is {cell.strip()}; correct it"])
    return int(number)


def _tokens(cell: str, size: int, line: int, name: str, source: str) -> float:
    """Tokens that each of `size` has, perhaps on average; a blank where there is none."""
    if size == 0 and not cell.strip():
        return 0.0
    wanted = "a number of tokens, 0 or more"
    number = _number(cell, line, name, wanted, source)
    if not 0 <= number < math.inf:
        fail(source, [f"line {line}: {name}: must be {wanted}, but is {cell.strip()}; correct it"])
    return number


def _time(cell: str, line: int, name: str, source: str) -> float:
    number = _number(cell, line, name, "a time greater than 0", source)
    if not 0 < number < math.inf:
        fail(source, [f"line {line}: {name}: must be a time greater than 0, but is {cell.strip()}; correct it"])
    return number
