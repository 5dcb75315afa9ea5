"""Traces: when requests arrived, and how long they were.

A trace file is CSV, JSON (an object a line, an array of objects, or a report of a benchmark) or Parquet, perhaps packed
by gzip, bzip2, xz or zip; its columns say which format it is in (`fluidgate.workloads.formats.catalogue`). Further
columns and keys are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluidgate.errors import FluidgateError
from fluidgate.model import Array
from fluidgate.packed_file import read_packed
from fluidgate.time_units import UNITS, TimeUnit
from fluidgate.toml_file import fail, shown
from fluidgate.workloads.cells import Cells
from fluidgate.workloads.formats import Format, read_table, recognise
from fluidgate.workloads.formats.catalogue import VLLM_LOG
from fluidgate.workloads.times import Times, read_times

Lengths = NDArray[np.int64]
LONGEST = 2**31 - 1
LEAVE_OUT = "leave such requests out with --skip-empty"
MEASURED = VLLM_LOG.measured or ()


@dataclass(frozen=True)
class Trace:
    """The requests of one file, in order of arrival; arrays of shape (requests,).

    Attributes:
        arrival_time: seconds since the first arrival, ascending.
        prompt_tokens: prompt lengths, at least 1.
        output_tokens: output lengths, at least 1.
        labels: the class of each request, or None where the file has no class column.
        source: name of the file, without its folder.
        empty: requests that were left out because their prompt or output had no tokens, or they never ended.
        first_token, last_token: when they came, seconds since the first arrival; None where the file does not say.
        form: name of the format that it was read from.
        start: the first arrival on the file's own clock, s.
        absolute: whether that clock is the world's (s since 1970).
        parts: names of the files that it was joined from; empty where it is of one file.
        notes: how it was read, where that is not plain to see, a sentence each.
    """

    arrival_time: Array
    prompt_tokens: Lengths
    output_tokens: Lengths
    labels: NDArray[np.object_] | None
    source: str
    empty: int = 0
    first_token: Array | None = None
    last_token: Array | None = None
    form: str = ""
    start: float = 0.0
    absolute: bool = False
    parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrival_time)

    @property
    def span(self) -> float:
        """Seconds from the first arrival to the last."""
        return float(self.arrival_time[-1])

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know: `notes`, and how many requests were left out."""
        if not self.empty:
            return self.notes
        which = "1 request without tokens is" if self.empty == 1 else f"{self.empty:,} requests without tokens are"
        return (*self.notes, f"{self.source}: {which} left out")

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that it is from."""
        return self.parts or (self.source,)


def read_trace(
    path: str | Path,
    class_column: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    unit: TimeUnit | None = None,
    skip_empty: bool = False,
    sort: bool = False,
) -> Trace:
    """Read a trace file.

    Args:
        path: a file in a format that is known, or in another whose `columns` are given; Windows line ends and blank
            lines are no matter.
        class_column: the column (or JSON key) that names each request's class; by default a plain trace's
            `class` if it has one.
        columns: the file's own name for `arrival_time`, `prompt_tokens`, `output_tokens` or `class`; a key inside
            another one with a dot between them.
        unit: of times that are numbers, in the place of the format's.
        skip_empty: leave out requests without prompt or output tokens, and those that never ended, instead of
            refusing them.
        sort: put the requests in order of arrival instead of refusing those out of order.

    Raises:
        FluidgateError: the file is missing or wrong, or has no request; the message names file, line and
            mend.
    """
    if unit is not None and unit not in UNITS:
        raise FluidgateError(f"unit: must be s, ms, us or ns, but is {shown(unit)}")
    source = str(path)
    table = read_table(read_packed(path, "a trace file"), source)
    form = recognise(table, _columns(columns, class_column), source)
    wanted = [*form.columns.values(), *(form.measured or ()), form.label, form.runs]
    cells = Cells(table.take(list(dict.fromkeys(name for name in wanted if name))), source, table.place)
    if not len(cells):
        fail(source, ["a header without requests; give a trace with requests"])
    if table.loose:
        _refuse_absent(cells, form, table.names)
    kept = _kept(cells, form, skip_empty)
    cells = cells.select(kept)
    times = read_times(cells, form, unit)
    labels = None if form.label is None else _labels(cells, form.label)
    measured = _measured(cells, form, times)
    order = _order(cells, form, times.seconds, sort)
    begin = times.seconds[order[0]]
    first, last = (None if each is None else each[order] - begin for each in measured)
    return Trace(
        arrival_time=times.seconds[order] - begin,
        prompt_tokens=cells.numbers(form.prompt).astype(np.int64)[order],
        output_tokens=cells.numbers(form.output).astype(np.int64)[order],
        labels=None if labels is None else labels[order],
        source=Path(path).name,
        empty=int(len(kept) - kept.sum()),
        first_token=first,
        last_token=last,
        form=form.name,
        start=times.start + float(begin),
        absolute=times.absolute,
        notes=tuple(_notes(Path(path).name, cells, form, times)),
    )


def _columns(columns: Mapping[str, str] | None, class_column: str | None) -> dict[str, str]:
    given = dict(columns or {})
    if class_column is None:
        return given
    if given.get("class", class_column) != class_column:
        raise FluidgateError("class: --class-column and --map class=COLUMN name two columns; give one of them")
    return {**given, "class": class_column}


def _refuse_absent(cells: Cells, form: Format, names: list[str]) -> None:
    """Refuse a key that no request has, where requests need not have the same keys."""
    for standard, column in form.columns.items():
        if cells.blank(column).all():
            mend = f"--map {standard}=KEY says which one it is"
            fail(cells.source, [f"{column}: missing in every request; {mend} (the keys are {', '.join(names[:20])})"])


def _kept(cells: Cells, form: Format, skip_empty: bool) -> NDArray[np.bool_]:
    """Which requests have tokens and, where that is measured, ended; all of them, unless the others are skipped."""
    absent = np.zeros(len(cells), bool)
    for column in (form.prompt, form.output, *(form.measured or ())):
        blank = cells.blank(column)
        if not skip_empty:
            cells.refuse_any(blank, column, "a finite number", f", or {LEAVE_OUT}")
        absent |= blank
    empty = absent.copy()
    present = cells.select(~absent)
    for column in (form.prompt, form.output):
        tokens = present.numbers(column)
        wrong = (tokens < 0) | (tokens != np.floor(tokens)) | (tokens > LONGEST)
        present.refuse_any(wrong, column, f"a whole number from 1 to {LONGEST}")
        if not skip_empty and (tokens == 0).any():
            present.fail(tokens == 0, column, f"no tokens; correct it, or {LEAVE_OUT}")
        empty[~absent] |= tokens == 0
    if empty.all():
        fail(cells.source, ["every request is empty; give a trace with prompt and output tokens"])
    return ~empty


def _labels(cells: Cells, column: str) -> NDArray[np.object_]:
    cells.refuse_any(cells.blank(column), column, "the name of a class")
    return cells.texts(column).to_numpy(dtype=object)


def _measured(cells: Cells, form: Format, times: Times) -> tuple[Array | None, Array | None]:
    """First and last tokens, s since the first row's arrival; None where the file does not have them."""
    if form.measured is None:
        return None, None
    first, last = (times.since_first(cells.numbers(column)) for column in form.measured)
    for column, wrong, reason in (
        (form.measured[0], first < times.seconds, "before the request was queued"),
        (form.measured[1], last < first, "before the first token"),
    ):
        if wrong.any():
            cells.fail(wrong, column, f"{reason}; correct it")
    return first, last


def _order(cells: Cells, form: Format, times: Array, sort: bool) -> NDArray[np.intp]:
    if sort or not form.ordered:
        return np.argsort(times, kind="stable")
    late = np.diff(times, prepend=times[0]) < 0
    if late.any():
        mend = "sort the file, or have it sorted with --sort"
        cells.fail(late, form.time, f"earlier than the request before; {mend}")
    return np.arange(len(times))


def _notes(source: str, cells: Cells, form: Format, times: Times) -> Iterator[str]:
    if times.assumed:
        mend = "say --unit s if they are, and ms, us or ns if not"
        yield f"{source}: the numbers of {form.time} are taken as seconds, {np.ptp(times.seconds):.6g} in all; {mend}"
    if form.runs is not None and (runs := cells.texts(form.runs).nunique()) > 1:
        yield f"{source}: {runs} benchmarks, read as one trace; its rate is that over all of them and their pauses"
