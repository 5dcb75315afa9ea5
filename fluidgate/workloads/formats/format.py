"""A format: the columns of a trace file, and the unit of its times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fluidgate.time_units import TimeUnit

STANDARD = ("arrival_time", "prompt_tokens", "output_tokens")
"""What a request is read by; the columns of a plain trace, and the names that `--map` knows them by."""

CLASS = "class"
"""The fourth such name: of the column that names a request's class, where there is one."""


@dataclass(frozen=True)
class Format:
    """A kind of trace file; a key inside another one is named with a dot between them, `metadata.request_start_ns`.

    Attributes:
        name: of the tool or service that it comes from.
        time, prompt, output: its columns (keys).
        unit: of its times, or `date` where they are ISO 8601; None where nothing tells.
        marks: further columns that a file must have to be of this kind.
        whole: whether times are whole numbers; others are then not in `unit`.
        label: the column that names a request's class, where files of this kind may have one.
        measured: columns of the first and the last token's time, on the same clock, where files may have them.
        ordered: whether files are in order of arrival; where not, they are sorted without a word.
        runs: the column that numbers the runs in one file, where files may hold several.
        timeless: what to do about a file that has all but the times.
    """

    name: str
    time: str
    prompt: str
    output: str
    unit: TimeUnit | Literal["date"] | None = None
    marks: tuple[str, ...] = ()
    whole: bool = False
    label: str | None = None
    measured: tuple[str, str] | None = None
    ordered: bool = True
    runs: str | None = None
    timeless: str = "give one that does"

    @property
    def columns(self) -> dict[str, str]:
        """Its columns by their standard names."""
        return dict(zip(STANDARD, (self.time, self.prompt, self.output), strict=True))
