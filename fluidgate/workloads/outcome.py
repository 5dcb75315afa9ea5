"""What became of requests: from the texts of a file to seconds, on the clock of the arrivals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluidgate.model import Array
from fluidgate.shown import Brief
from fluidgate.time_units import UNITS, TimeUnit
from fluidgate.workloads.cells import Cells
from fluidgate.workloads.formats import Format
from fluidgate.workloads.formats.format import Clock
from fluidgate.workloads.times import Times


@dataclass(frozen=True, repr=False)
class Outcome(Brief):
    """Arrays of shape (requests,), s since the first row's arrival; None where the file does not say.

    Attributes:
        first, last: the first and the last token.
        clock: whose times they are.
        scheduled: when the engine began.
        sent: when the front end had it, moved onto this clock.
    """

    first: Array | None = None
    last: Array | None = None
    clock: Clock | None = None
    scheduled: Array | None = None
    sent: Array | None = None


def read_outcome(cells: Cells, form: Format, times: Times, unit: TimeUnit | None) -> Outcome:
    """What a file says of first and last tokens.

    Args:
        unit: of durations whose own is not told; None for that of the arrivals.

    Raises:
        FluidgateError: a time is none, or before one that it follows.
    """
    measured = form.measured
    if measured is None:
        return Outcome()
    if measured.durations:
        told = measured.unit or unit
        per_second = times.per_second if told is None else UNITS[told]
        first, last = (times.seconds + cells.numbers(column) / per_second for column in (measured.first, measured.last))
    else:
        first, last = (times.of(cells, column) for column in (measured.first, measured.last))
    begun = "queued" if measured.clock == "engine" else "sent"
    for column, wrong, reason in (
        (measured.first, first < times.seconds, f"before the request was {begun}"),
        (measured.last, last < first, "before the first token"),
    ):
        if wrong.any():
            cells.fail(wrong, column, f"{reason}; correct it")
    scheduled, sent = (
        column if column is not None and not cells.blank(column).any() else None
        for column in (measured.scheduled, measured.sent)
    )
    return Outcome(
        first,
        last,
        measured.clock,
        None if scheduled is None else times.of(cells, scheduled),
        None if sent is None else _sent(cells, sent, times),
    )


def _sent(cells: Cells, column: str, times: Times) -> Array:
    """Times on a clock of their own, moved so that the least delay until the arrival is 0."""
    own = cells.numbers(column)
    sent = own - own[0]
    return np.asarray(sent + (times.seconds - sent).min())
