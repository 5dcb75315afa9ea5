"""Times of arrival: from the texts of a file to seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from fluidgate.model import Array
from fluidgate.time_units import UNITS, TimeUnit
from fluidgate.toml_file import fail
from fluidgate.workloads.cells import Cells
from fluidgate.workloads.formats import Format

DATE = re.compile(r"\d{4}-\d")
SINCE_1970 = (946_684_800.0, 4_102_444_800.0)
"""Unix times that a request may have: the years 2000 to 2100, s."""


@dataclass(frozen=True)
class Times:
    """Times of a file on its own clock.

    Attributes:
        seconds: since the first row.
        origin: of the first row, in the numbers of the file; s since 1970 for dates.
        absolute: whether the clock is the world's (dates, or numbers since 1970).
        per_second: how many of the file's numbers are a second.
        assumed: whether nothing told the unit, and seconds were taken.
    """

    seconds: Array
    origin: float
    absolute: bool = True
    per_second: float = 1.0
    assumed: bool = False

    @property
    def start(self) -> float:
        """The first row, s on the file's clock."""
        return self.origin / self.per_second

    def since_first(self, values: Array) -> Array:
        """Other numbers on the same clock, s since the first row."""
        return np.asarray((values - self.origin) / self.per_second)

    def of(self, cells: Cells, column: str) -> Array:
        """Another column on the same clock, dates or numbers, s since the first row.

        Raises:
            FluidgateError: a cell is no time.
        """
        if DATE.match(str(cells.texts(column).iloc[0])):
            dates = _dates(cells, column)
            return np.asarray(dates.seconds + (dates.origin - self.start))
        return self.since_first(cells.numbers(column))


def read_times(cells: Cells, form: Format, unit: TimeUnit | None) -> Times:
    """The times of arrival: dates, or numbers in `unit`, else in the format's own.

    A column that the user names holds seconds, unless its name or the size of its numbers says otherwise.

    Raises:
        FluidgateError: a time is none, or its unit can't be told.
    """
    first = str(cells.texts(form.time).iloc[0])
    if DATE.match(first) or (form.unit == "date" and not _is_number(first)):
        return _dates(cells, form.time)
    values = cells.numbers(form.time)
    told = unit or _told(values, form, cells.source)
    per_second = UNITS[told or "s"]
    low, high = SINCE_1970
    absolute = low <= values[0] / per_second <= high
    return Times((values - values[0]) / per_second, float(values[0]), absolute, per_second, told is None)


def _told(values: Array, form: Format, source: str) -> TimeUnit | None:
    """The unit that a format or the size of its numbers tells; None where neither does."""
    mend = "say with --unit which: s, ms, us or ns"
    if form.unit == "date":
        fail(source, [f"{form.time}: numbers in the place of dates, whose unit can't be told; {mend}"])
    if form.whole and (values != np.floor(values)).any():
        reason = f"no whole numbers, such as {form.name} has in {form.unit}: their unit can't be told"
        fail(source, [f"{form.time}: {reason}; {mend}"])
    if form.unit is not None:
        return form.unit
    low, high = SINCE_1970
    units = (name for name, size in UNITS.items() if low <= values.min() / size and values.max() / size <= high)
    return next(units, None)


def _dates(cells: Cells, column: str) -> Times:
    import pandas as pd

    dates = pd.to_datetime(cells.texts(column), format="ISO8601", utc=True, errors="coerce")
    wrong = dates.isna().to_numpy(bool)
    cells.refuse_any(wrong, column, "a date and time such as 2023-11-16 18:17:03.9799600")
    seconds = np.asarray((dates - dates.iloc[0]).dt.total_seconds(), dtype=float)
    return Times(seconds, float(dates.iloc[0].timestamp()))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
