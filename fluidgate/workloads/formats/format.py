"""A format: the columns of a trace file, and the unit of its times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fluidgate.time_units import TimeUnit

STANDARD = ("arrival_time", "prompt_tokens", "output_tokens")
"""What a request is read by; the columns of a plain trace, and the names that `--map` knows them by."""

CLASS = "class"
"""The fourth such name: of the column that names a request's class, where there is one."""

TIMES = ("first_token", "last_token")
"""Further names: when a request's first and last token came, on the clock of the arrivals."""

DURATIONS = ("ttft", "latency")
"""In their place: how long after its arrival they came."""

SCHEDULED = "scheduled"
"""When the engine began with a request, on the clock of the arrivals."""

FAILED = "failed"
"""What went wrong with a request; nothing, `false`, `0` or `ok` where nothing did."""

NAMES = (*STANDARD, CLASS, *TIMES, *DURATIONS, SCHEDULED, FAILED)
"""All that `--map` knows."""

Clock = Literal["engine", "client"]


@dataclass(frozen=True)
class Measured:
    """The columns of what became of a request.

    Attributes:
        first, last: of its first and last token: times on the clock of the arrivals, or durations since its own.
        clock: whose times they are: the engine's, from its queue on, or those of a client, who waits for the way there
            and back as well (HTTP, tokens from text, the first event).
        durations: whether `first` and `last` are durations.
        unit: of durations; None for that of the times.
        scheduled: when the engine began with it.
        sent: when it came to the front end, on another clock.
    """

    first: str
    last: str
    clock: Clock
    durations: bool = False
    unit: TimeUnit | None = None
    scheduled: str | None = None
    sent: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name in (self.first, self.last, self.scheduled, self.sent) if name)


@dataclass(frozen=True)
class Format:
    """A kind of trace file.

    A key inside another one is named with a dot between them, `metadata.request_start_ns`; a place in a list is a key,
    counted from 0, or from -1 at its end.

    Attributes:
        name: of the tool or service that it comes from.
        time, prompt, output: its columns (keys); an empty `time` where a file without arrivals is read.
        unit: of its times, or `date` where they are ISO 8601; None where nothing tells.
        marks: further columns that a file must have to be of this kind.
        whole: whether times are whole numbers; others are then not in `unit`.
        label: the column that names a request's class, where files of this kind may have one.
        measured: what became of a request, where files may say so.
        failed: columns that say what went wrong with a request.
        warm_up: the column that is `warmup` in requests before the run proper.
        ordered: whether files are in order of arrival; where not, they are sorted without a word.
        runs: the column that numbers the runs in one file, where files may hold several.
        setting: the column that says how a run's requests were sent, where files have several.
        users: the column of a closed loop's number of clients.
        timeless: what to do about a file that has all but the times.
        hashes: the column of the blocks that a prompt is made of, where files may have it: a list of numbers, of which
            equal ones are equal tokens after equal ones.
        block: tokens of such a block.
        chat, parent: the columns that name a request and the one before it in its session.
    """

    name: str
    time: str
    prompt: str
    output: str
    unit: TimeUnit | Literal["date"] | None = None
    marks: tuple[str, ...] = ()
    whole: bool = False
    label: str | None = None
    measured: Measured | None = None
    failed: tuple[str, ...] = ()
    warm_up: str | None = None
    ordered: bool = True
    runs: str | None = None
    setting: str | None = None
    users: str | None = None
    timeless: str = "give one that does"
    hashes: str | None = None
    block: int = 0
    chat: str | None = None
    parent: str | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Its columns by their standard names."""
        return dict(zip(STANDARD, (self.time, self.prompt, self.output), strict=True))

    @property
    def tokens(self) -> tuple[str, ...]:
        """The columns of the first and the last token, where there are any."""
        return () if self.measured is None else (self.measured.first, self.measured.last)

    @property
    def wanted(self) -> list[str]:
        """All its columns, each once."""
        measured = self.measured.columns if self.measured else ()
        more = (self.label, *self.failed, self.warm_up, self.runs, self.setting, self.users, self.chat, self.parent)
        return list(dict.fromkeys(name for name in (*self.columns.values(), *measured, *more) if name))
