"""What a probe of a live engine found, and the file that `fluidgate calibrate` reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from fluidgate.arguments import checked
from fluidgate.calibration.live_probe.batching import Batching
from fluidgate.calibration.live_probe.facts import Facts
from fluidgate.shown import Brief, Drawn, several
from fluidgate.toml_file import SCHEMA, write_whole

if TYPE_CHECKING:
    import pandas as pd

SHORTEST = 0.001
"""s below which iterations cannot be told apart over a network."""

LATE = 0.002
"""s that a client may be late: timers ring by the millisecond."""

ENOUGH = 3
"""Times of a kind among which one that is wrong is seen."""

FAR = 0.03
"""Of their median, that they may lie from it in any case."""


@dataclass(frozen=True, repr=False)
class Row(Brief):
    """One measured time.

    Attributes:
        batch_size: decodes in the batch.
        chunk_size: prompt tokens read; 0 in a solo iteration.
        seconds: of the iteration; of a solo one the mean of those of a round, without the extremes.
        context: of each decode, tokens, as it was aimed at.
        read_before: tokens of the prompt read before the chunk.
        repeat: number of the round, from 0.
        mean_context: what the context was, in the mean.
        others: requests of others that the engine had.
        late: by how much the client itself may have been late, s.
    """

    batch_size: int
    chunk_size: int
    seconds: float
    context: int
    read_before: int = 0
    repeat: int = 0
    mean_context: float = 0.0
    others: int = 0
    late: float = 0.0

    @property
    def kind(self) -> tuple[int, int, int, int]:
        """What repeats of one measurement share."""
        return (self.batch_size, self.chunk_size, self.context, self.read_before)

    @property
    def was_late(self) -> bool:
        """Whether the client's lateness may have spoilt it."""
        return self.late > max(LATE, 0.05 * self.seconds)


@dataclass(repr=False)
class Probed(Drawn):
    """A probe of a live engine, which may have been broken off.

    Attributes:
        facts, batching: of the engine.
        rows: in the order they were taken.
        front_end: s from sending a prompt to its first token, beyond its iterations; None where it was not measured.
        partial: why the probe ended early; empty where it did not.
        warnings: what a user should know, a sentence each.
        requests, prompt_tokens, output_tokens: that were sent, and came.
        seconds: that it took.
        client_late: how late the client was in 9 of 10 cases at most, s.
        header: further keys of the file: gpu, tensor_parallel, dtype, date.
    """

    facts: Facts
    batching: Batching | None = None
    rows: list[Row] = field(default_factory=list)
    front_end: float | None = None
    partial: str = ""
    warnings: list[str] = field(default_factory=list)
    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    client_late: float = 0.0
    header: dict[str, Any] = field(default_factory=dict)

    def headline(self) -> str:
        cut = f", ended early by {self.partial}" if self.partial else ""
        return f"of {self.facts.engine or 'an engine'}, {self.facts.model}: {several(len(self.rows), 'time')}{cut}"

    @property
    def comments(self) -> dict[str, Any]:
        """Keys of the file's first lines."""
        facts, batching = self.facts, self.batching
        known = {
            "model": facts.model,
            "engine": facts.engine,
            **self.header,
            "kv_tokens": facts.kv_tokens,
            "block_size": facts.block_size,
            "max_model_len": facts.max_model_len,
            "front_end": None if self.front_end is None else f"{self.front_end:.6g}",
            "partial": self.partial,
        }
        if batching is not None and batching.budget is not None:
            known["max_num_batched_tokens" if batching.shared else "chunk_size"] = batching.budget
        return {key: value for key, value in known.items() if value not in (None, "")}

    def to_csv(self) -> str:
        """Comments `# key: value`, then one row for each measured time."""
        text = io.StringIO()
        text.write("# iteration times of a live engine, seen by a client (fluidgate probe --url)\n")
        text.writelines(f"# {key}: {value}\n" for key, value in self.comments.items())
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["batch_size", "chunk_size", "seconds", "context", "read_before", "repeat", "mean_context", "others"]
        )
        for row in self.rows:
            writer.writerow(
                [row.batch_size, row.chunk_size, f"{row.seconds:.6g}", row.context, row.read_before, row.repeat,
                 f"{row.mean_context:.1f}", row.others]
            )  # fmt: skip
        return text.getvalue()

    @checked
    def write(self, path: str | Path) -> None:
        """Write the measurement file, whole or not at all."""
        write_whole(path, self.to_csv())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and texts, times in s."""
        batching = self.batching
        return {
            "schema": SCHEMA,
            **self.comments,
            "batching": None if batching is None else asdict(batching),
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "wall_seconds": self.seconds,
            "client_late": self.client_late,
            "warnings": list(self.warnings),
            "measurements": [
                {
                    "batch_size": kind[0],
                    "chunk_size": kind[1],
                    "context": kind[2],
                    "read_before": kind[3],
                    "median_seconds": median(row.seconds for row in rows),
                    "seconds": [row.seconds for row in rows],
                }
                for kind, rows in self.kinds()
            ],
        }

    def to_dataframe(self) -> pd.DataFrame:
        """A row a time, as it was taken: sizes in decodes and tokens, seconds, repeat and what was around."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows], columns=[each.name for each in fields(Row)])

    def kinds(self) -> Iterator[tuple[tuple[int, int, int, int], list[Row]]]:
        """The rows of each measurement, in the order of their sizes."""
        found: dict[tuple[int, int, int, int], list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: row.kind):
            found.setdefault(row.kind, []).append(row)
        yield from found.items()


def without_outliers(rows: Iterable[Row]) -> list[Row]:
    """The rows, without those that lie far from the others of their kind, or that the client spoilt.

    A kind keeps three at least of those that the client may have spoilt, where no others are there.
    """
    kinds: dict[tuple[int, int, int, int], list[Row]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row)
    return [row for same in kinds.values() for row in _near(_in_time(same))]


def _in_time(rows: list[Row]) -> list[Row]:
    good = [row for row in rows if not row.was_late]
    return good if len(good) >= ENOUGH else rows


def _near(rows: list[Row]) -> list[Row]:
    """Those that are left when far ones are taken out, and those that are far from the rest, and so on."""
    while len(rows) >= ENOUGH:
        middle = median(row.seconds for row in rows)
        spread = median(abs(row.seconds - middle) for row in rows)
        near = [row for row in rows if abs(row.seconds - middle) <= max(3.0 * spread, FAR * middle)]
        if len(near) == len(rows):
            break
        rows = near
    return rows
