"""Traces: when requests arrived, and how long they were.

A trace file is CSV, JSON (an object a line, an array of objects, or a report of a benchmark) or Parquet, perhaps packed
by gzip, bzip2, xz or zip; its columns say which format it is in (`fluidgate.workloads.formats.catalogue`). Further
columns and keys are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
from fluidgate.workloads.formats.format import Clock
from fluidgate.workloads.outcome import read_outcome
from fluidgate.workloads.times import Times, read_times

Lengths = NDArray[np.int64]
LONGEST = 2**31 - 1
LEAVE_OUT = "leave such requests out with --skip-empty"
MEASURED = ("first_token_ts", "last_token_ts")
FINE = ("", "false", "0", "ok", "none", "null", "200")
"""What a column of failures says of a request that did not fail."""


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
        failed: requests that were left out because they failed or were cancelled.
        first_token, last_token: when they came, seconds since the first arrival; None where the file does not say.
        clock: whose times these and the arrivals are: `engine`, from its queue on, or `client`, front end included;
            None where the file has no times of tokens.
        scheduled: when the engine began with each, on the same clock, where the file says.
        sent: when each came to the front end, where the file says so beside the engine's clock; moved so that none is
            queued before it was sent, and one as it was sent.
        users: clients of a closed loop, each sending a request when its last has ended; None where the file names none.
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
    failed: int = 0
    first_token: Array | None = None
    last_token: Array | None = None
    clock: Clock | None = None
    scheduled: Array | None = None
    sent: Array | None = None
    users: int | None = None
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
        left_out = ((self.empty, "without tokens"), (self.failed, "that failed or did not end"))
        closed = f"{self.source}: a closed loop of {self.users} clients, who send when their last request has ended; "
        when = () if self.users is None else (f"{closed}a faster or slower engine would have had them at other times",)
        return (*self.notes, *when, *(_left_out(self.source, count, what) for count, what in left_out if count))

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
    benchmark: int | None = None,
    skip_empty: bool = False,
    sort: bool = False,
    timeless: bool = False,
) -> Trace:
    """Read a trace file.

    Args:
        path: a file in a format that is known, or in another whose `columns` are given; Windows line ends and blank
            lines are no matter.
        class_column: the column (or JSON key) that names each request's class; by default a plain trace's
            `class` if it has one.
        columns: the file's own name for a standard column (`fluidgate.workloads.formats.format.NAMES`); a key inside
            another one with a dot between them.
        unit: of times that are numbers, in the place of the format's.
        benchmark: which one of a file that holds several, from 1.
        skip_empty: leave out requests without prompt or output tokens, and those that never ended, instead of
            refusing them.
        sort: put the requests in order of arrival instead of refusing those out of order.
        timeless: read a file that does not say when its requests arrived, in its own order, as if all came at once;
            for who needs their lengths alone, such as a closed loop.

    Raises:
        FluidgateError: the file is missing or wrong, or has no request; the message names file, line and
            mend.
    """
    if unit is not None and unit not in UNITS:
        raise FluidgateError(f"unit: must be s, ms, us or ns, but is {shown(unit)}")
    source = str(path)
    table = read_table(read_packed(path, "a trace file"), source)
    form = recognise(table, _columns(columns, class_column), source, timeless)
    cells = Cells(table.take(form.wanted), source, table.place)
    if not len(cells):
        fail(source, ["a header without requests; give a trace with requests"])
    cells = _one_run(cells, form, benchmark)
    if table.loose:
        _refuse_absent(cells, form, table.names)
    cells, failed, notes = _ended(cells, form)
    form = _without_blanks(form, cells)
    kept = _kept(cells, form, skip_empty)
    cells = cells.select(kept)
    times = read_times(cells, form, unit) if form.time else Times(np.zeros(len(cells)), 0.0, absolute=False)
    labels = None if form.label is None else _labels(cells, form.label)
    measured = read_outcome(cells, form, times, unit)
    order = _order(cells, form, times.seconds, sort)
    begin = times.seconds[order[0]]

    def in_order(column: Array | None) -> Array | None:
        return None if column is None else column[order] - begin

    return Trace(
        arrival_time=times.seconds[order] - begin,
        prompt_tokens=cells.numbers(form.prompt).astype(np.int64)[order],
        output_tokens=cells.numbers(form.output).astype(np.int64)[order],
        labels=None if labels is None else labels[order],
        source=Path(path).name,
        empty=int(len(kept) - kept.sum()),
        failed=failed,
        first_token=in_order(measured.first),
        last_token=in_order(measured.last),
        clock=measured.clock,
        scheduled=in_order(measured.scheduled),
        sent=in_order(measured.sent),
        users=_users(cells, form),
        form=form.name,
        start=times.start + float(begin),
        absolute=times.absolute,
        notes=tuple(f"{Path(path).name}: {note}" for note in (*notes, *_notes(cells, form, times))),
    )


def _left_out(source: str, count: int, what: str) -> str:
    return f"{source}: {count:,} request{'' if count == 1 else 's'} {what} {'is' if count == 1 else 'are'} left out"


def _columns(columns: Mapping[str, str] | None, class_column: str | None) -> dict[str, str]:
    given = dict(columns or {})
    if class_column is None:
        return given
    if given.get("class", class_column) != class_column:
        raise FluidgateError("class: --class-column and --map class=COLUMN name two columns; give one of them")
    return {**given, "class": class_column}


def _one_run(cells: Cells, form: Format, benchmark: int | None) -> Cells:
    """The requests of one benchmark; of all of them, where each is a class of its own."""
    if form.runs is None:
        if benchmark is not None:
            fail(cells.source, ["its kind of file holds one run; leave --benchmark out"])
        return cells
    texts = cells.texts(form.runs)
    numbers = list(dict.fromkeys(texts))
    if benchmark is None and (len(numbers) == 1 or form.label == form.runs):
        return cells
    if benchmark is not None and str(benchmark) in numbers:
        return cells.select((texts == str(benchmark)).to_numpy(bool))
    settings = cells.texts(form.setting or form.runs).groupby(texts).first()
    each = ", ".join(f"{number} ({settings[number]})" for number in numbers[:10])
    choice = f"{each}{', ...' if len(numbers) > 10 else ''}"
    if benchmark is not None:
        fail(cells.source, [f"no benchmark {benchmark} in it; give --benchmark one of {choice}"])
    fail(cells.source, [f"{len(numbers)} benchmarks in it; choose one with --benchmark K: {choice}"])


def _refuse_absent(cells: Cells, form: Format, names: list[str]) -> None:
    """Refuse a key that no request has, where requests need not have the same keys."""
    for standard, column in form.columns.items():
        if column and cells.blank(column).all():
            mend = f"--map {standard}=KEY says which one it is"
            fail(cells.source, [f"{column}: missing in every request; {mend} (the keys are {', '.join(names[:20])})"])


def _ended(cells: Cells, form: Format) -> tuple[Cells, int, list[str]]:
    """Those requests that did not fail and are not of the warm-up; how many failed, and a note on the others."""
    warm = np.zeros(len(cells), bool)
    if form.warm_up is not None:
        warm = (cells.texts(form.warm_up) == "warmup").to_numpy(bool)
    wrong = np.zeros(len(cells), bool)
    for column in form.failed:
        wrong |= ~cells.texts(column).str.lower().isin(FINE).to_numpy(bool)
    kept = ~(warm | wrong)
    if not kept.any():
        fail(cells.source, ["every request failed, or is of the warm-up; give a trace with requests that ended"])
    notes = [f"the tool's own warm-up, {int(warm.sum())} requests, is left out"] if warm.any() else []
    return cells.select(kept), int((wrong & ~warm).sum()), notes


def _without_blanks(form: Format, cells: Cells) -> Format:
    """The format without times of tokens, where no request of this file has them."""
    return replace(form, measured=None) if any(cells.blank(column).all() for column in form.tokens) else form


def _users(cells: Cells, form: Format) -> int | None:
    if form.users is None:
        return None
    text = cells.texts(form.users).iloc[0]
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _kept(cells: Cells, form: Format, skip_empty: bool) -> NDArray[np.bool_]:
    """Which requests have tokens and, where that is measured, ended; all of them, unless the others are skipped."""
    absent = np.zeros(len(cells), bool)
    for column in (form.prompt, form.output, *form.tokens):
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


def _order(cells: Cells, form: Format, times: Array, sort: bool) -> NDArray[np.intp]:
    if sort or not form.ordered:
        return np.argsort(times, kind="stable")
    late = np.diff(times, prepend=times[0]) < 0
    if late.any():
        mend = "sort the file, or have it sorted with --sort"
        cells.fail(late, form.time, f"earlier than the request before; {mend}")
    return np.arange(len(times))


def _notes(cells: Cells, form: Format, times: Times) -> Iterator[str]:
    if not form.time:
        yield "it does not say when its requests arrived; they are taken in its order"
    if times.assumed:
        mend = "say --unit s if they are, and ms, us or ns if not"
        yield f"the numbers of {form.time} are taken as seconds, {np.ptp(times.seconds):.6g} in all; {mend}"
    if form.runs is not None and (runs := cells.texts(form.runs).nunique()) > 1:
        yield f"{runs} benchmarks, read as one trace; its rate is that over all of them and their pauses"
