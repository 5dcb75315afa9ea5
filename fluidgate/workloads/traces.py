"""Traces: when requests arrived, and how long they were.

A trace file is CSV, JSON (an object a line, an array of objects, or a report of a benchmark) or Parquet, perhaps packed
by gzip, bzip2, xz or zip; its columns say which format it is in (`fluidgate.workloads.formats.catalogue`). Further
columns and keys are ignored. Sessions of agents are a format of their own
(`fluidgate.workloads.formats.agent_sessions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError
from fluidgate.model import Array
from fluidgate.packed_file import read_packed
from fluidgate.shown import Brief, rate, several
from fluidgate.time_units import UNITS, TimeUnit
from fluidgate.toml_file import fail, shown, source_of
from fluidgate.wording import all_worded
from fluidgate.workloads.blocks import Blocks, read_blocks
from fluidgate.workloads.cells import Cells
from fluidgate.workloads.formats import Format, Table, read_by_others, read_table, recognise
from fluidgate.workloads.formats.agent_sessions import NAME, AgentRequests, agent_requests
from fluidgate.workloads.formats.format import Clock
from fluidgate.workloads.outcome import read_outcome
from fluidgate.workloads.selection import ended, kept_rows, one_run, refuse_absent, without_blanks
from fluidgate.workloads.sessions import NONE, Sessions
from fluidgate.workloads.times import Times, read_times

if TYPE_CHECKING:
    import pandas as pd

Lengths = NDArray[np.int64]
RARE = 100.0
"""s between two requests from which on their unit is doubted."""
MEASURED = ("first_token_ts", "last_token_ts")


@dataclass(frozen=True, repr=False)
class Trace(Brief):
    """The requests of one file, in order of arrival; arrays of shape (requests,).

    Where requests wait for answers (`by_answers`) they are in the order of their sessions instead.

    Attributes:
        arrival_time: seconds since the first arrival, ascending; all 0 where requests wait for answers.
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
        blocks: what prompts are made of, where the file says so by their hashes.
        sessions: which request follows which, where the file says.
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
    blocks: Blocks | None = None
    sessions: Sessions | None = None

    def headline(self) -> str:
        when = "sent as answers come" if self.by_answers else f"in {rate(self.span)} s"
        return f"of '{self.source}': {several(len(self), 'request')} {when}, read as {self.form or 'it is'}"

    def __len__(self) -> int:
        return len(self.arrival_time)

    def to_dataframe(self) -> pd.DataFrame:
        """A row a request: arrival_time (s since the first), prompt_tokens, output_tokens, class (None where the file
        names none)."""
        import pandas as pd

        columns = {name: getattr(self, name) for name in ("arrival_time", "prompt_tokens", "output_tokens")}
        return pd.DataFrame({**columns, "class": self.labels if self.labels is not None else None})

    @property
    def span(self) -> float:
        """Seconds from the first arrival to the last."""
        return float(self.arrival_time[-1])

    @property
    def by_answers(self) -> bool:
        """Whether requests wait for the last answer of their session, so that none but a session has a time."""
        return self.sessions is not None and self.sessions.by_answers

    @property
    def says_texts(self) -> bool:
        """Whether it is known what prompts have in common."""
        return self.blocks is not None or (self.sessions is not None and self.sessions.found is not None)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know: `notes`, and how many requests were left out."""
        left_out = ((self.empty, "without tokens"), (self.failed, "that failed or did not end"))
        return all_worded(
            (*self.notes, *self.of_loop, *(_left_out(self.source, count, what) for count, what in left_out if count))
        )

    @property
    def of_loop(self) -> tuple[str, ...]:
        """What to know of a trace made in a closed loop, where it is not played in one."""
        if self.users is None:
            return ()
        closed = f"{self.source}: a closed loop of {self.users} clients, who send when their last request has ended; "
        other = f"a faster or slower engine would have had them at other times (replay: --users {self.users})"
        return all_worded((closed + other,))

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that it is from."""
        return self.parts or (self.source,)


@checked
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
    source = source_of(path)
    content = read_packed(path, "a trace file")
    if (agents := agent_requests(content, source)) is not None:
        for option, given in (("--map", columns), ("--class-column", class_column), ("--benchmark", benchmark),
                              ("--unit", unit)):  # fmt: skip
            if given:
                fail(source, [f"{NAME}, which have no columns, one run and seconds; leave {option} out"])
        return _of_agents(agents, Path(source).name)
    table, form = _recognised(content, source, _columns(columns, class_column), timeless)
    cells = Cells(table.take(form.wanted, [form.hashes] if form.hashes else []), source, table.place)
    if not len(cells):
        fail(source, ["a header without requests; give a trace with requests"])
    cells = one_run(cells, form, benchmark)
    if table.loose:
        refuse_absent(cells, form, table.names)
    cells, failed, notes = ended(cells, form)
    form = without_blanks(form, cells)
    kept = kept_rows(cells, form, skip_empty)
    cells = cells.select(kept)
    times = read_times(cells, form, unit) if form.time else Times(np.zeros(len(cells)), 0.0, absolute=False)
    labels = None if form.label is None else _labels(cells, form.label)
    measured = read_outcome(cells, form, times, unit)
    prompt = cells.numbers(form.prompt).astype(np.int64)
    blocks, more = read_blocks(cells, form, prompt)
    order = _order(cells, form, times.seconds, sort)
    begin = times.seconds[order[0]]

    def in_order(column: Array | None) -> Array | None:
        return None if column is None else column[order] - begin

    return Trace(
        arrival_time=times.seconds[order] - begin,
        prompt_tokens=prompt[order],
        output_tokens=cells.numbers(form.output).astype(np.int64)[order],
        labels=None if labels is None else labels[order],
        source=Path(source).name,
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
        notes=all_worded(f"{Path(source).name}: {note}" for note in (*notes, *_notes(cells, form, times, unit), *more)),
        blocks=None if blocks is None else blocks.select(order),
        sessions=_chats(cells, form, order),
    )


def _recognised(content: bytes, source: str, columns: Mapping[str, str], timeless: bool) -> tuple[Table, Format]:
    """A file's table and format; where none here fits, those that other packages read."""
    try:
        table = read_table(content, source)
        return table, recognise(table, columns, source, timeless)
    except FluidgateError:
        found = read_by_others(content, source)
        if found is None:
            raise
    table, name = found
    return table, replace(recognise(table, columns, source, timeless), name=name)


def _of_agents(found: AgentRequests, source: str) -> Trace:
    count = len(found.prompt)
    return Trace(
        arrival_time=np.zeros(count),
        prompt_tokens=np.array(found.prompt, np.int64),
        output_tokens=np.array(found.output, np.int64),
        labels=None,
        source=source,
        empty=found.empty,
        form=NAME,
        sessions=Sessions(
            after=np.array(found.after, np.int64),
            spawner=np.array(found.spawner, np.int64),
            delay=np.array(found.delay),
            think=np.array(found.think),
            found=np.array(found.found, np.int64),
        ),
    )


def _chats(cells: Cells, form: Format, order: NDArray[np.intp]) -> Sessions | None:
    """Sessions whose requests name the one before; a request whose own is not there, or not before it, is a first."""
    if form.chat is None or form.parent is None:
        return None
    names, parents = (cells.texts(column).to_numpy(object)[order] for column in (form.chat, form.parent))
    place: dict[str, int] = {}
    after = np.full(len(order), NONE, np.int64)
    for k, (name, parent) in enumerate(zip(names, parents, strict=True)):
        after[k] = place.get(parent, NONE)
        place[name] = k
    return Sessions(after, np.full(len(order), NONE, np.int64), np.zeros(len(order)))


def _left_out(source: str, count: int, what: str) -> str:
    return f"{source}: {count:,} request{'' if count == 1 else 's'} {what} {'is' if count == 1 else 'are'} left out"


def _columns(columns: Mapping[str, str] | None, class_column: str | None) -> dict[str, str]:
    given = dict(columns or {})
    if class_column is None:
        return given
    if given.get("class", class_column) != class_column:
        raise FluidgateError("class: --class-column and --map class=COLUMN name two columns; give one of them")
    return {**given, "class": class_column}


def _users(cells: Cells, form: Format) -> int | None:
    if form.users is None:
        return None
    text = cells.texts(form.users).iloc[0]
    return int(text) if text.isdecimal() and int(text) > 0 else None


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


def _notes(cells: Cells, form: Format, times: Times, unit: TimeUnit | None) -> Iterator[str]:
    gap = float(np.ptp(times.seconds)) / max(1, len(times.seconds) - 1)
    if form.time and unit is None and not times.absolute and not times.assumed and gap >= RARE:
        yield f"a request every {gap:.4g} s; if the numbers of {form.time} are milliseconds, say --unit ms"
    if not form.time:
        yield "it does not say when its requests arrived; they are taken in its order"
    if times.assumed:
        mend = "say --unit s if they are, and ms, us or ns if not"
        yield f"the numbers of {form.time} are taken as seconds, {np.ptp(times.seconds):.6g} in all; {mend}"
    if form.runs is not None and (runs := cells.texts(form.runs).nunique()) > 1:
        yield f"{runs} benchmarks, read as one trace; its rate is that over all of them and their pauses"
