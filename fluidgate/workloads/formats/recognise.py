"""Which format a table is in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from fluidgate.errors import FluidgateError, nearest
from fluidgate.time_units import TimeUnit
from fluidgate.toml_file import fail, shown
from fluidgate.workloads.formats.brought import brought_formats
from fluidgate.workloads.formats.catalogue import FORMATS, PLAIN, SUMMARIES, known_formats
from fluidgate.workloads.formats.format import (
    CLASS,
    DURATIONS,
    FAILED,
    NAMES,
    SCHEDULED,
    STANDARD,
    TIMES,
    Format,
    Measured,
)
from fluidgate.workloads.formats.table import Table

SUFFIXES: dict[str, TimeUnit] = {"ns": "ns", "us": "us", "ms": "ms", "s": "s", "sec": "s", "seconds": "s"}
"""Last words of a column's name that say its unit, as in `sent_ms`."""


MEASURED = "measured iterations are read by `fluidgate calibrate`"


def recognise(table: Table, columns: Mapping[str, str], source: str, timeless: bool = False) -> Format:
    """The format of a table, with the columns that the user names in the place of its own.

    Formats that other packages bring are asked for where none of those here fits.

    Args:
        columns: the file's own name of a standard column (`NAMES`), where the user gave one.
        timeless: take a table that lacks nothing but the arrivals.

    Raises:
        FluidgateError: no format has these columns, or a column that the user names is not there.
    """
    try:
        return _recognise(table, columns, source, timeless, FORMATS)
    except FluidgateError:
        brought = [form for form, _ in brought_formats().values()]
        if not brought:
            raise
    return _recognise(table, columns, source, timeless, (*FORMATS, *brought))


def _recognise(
    table: Table, columns: Mapping[str, str], source: str, timeless: bool, formats: Sequence[Format]
) -> Format:
    for standard, name in columns.items():
        if standard not in NAMES:
            hint = nearest(standard, list(NAMES)) or f"; the columns are {', '.join(NAMES)}"
            raise FluidgateError(f"--map: no standard column {shown(standard)}{hint}")
        if not table.loose:
            _find(table, name, source)
    named = {standard: name for standard, name in columns.items() if standard in STANDARD}
    found = next((form for form in formats if _fits(form, table, named)), None)
    if found is None and set(named) == set(STANDARD):
        found = replace(PLAIN, time=named["arrival_time"], unit=_unit_of(named["arrival_time"]))
    if found is None and table.loose:
        found = next((form for form in formats if {form.time, *form.marks} <= set(table.names)), None)
    if found is None and timeless and "arrival_time" not in named:
        found = next((replace(form, time="") for form in _all_but_times(table, formats)), None)
    if found is None:
        _refuse(table, named, source, formats)
    found = replace(found, measured=_measured(found, table, columns))
    if (time := named.get("arrival_time", found.time)) != found.time:
        found = replace(found, time=time, unit=_unit_of(time), whole=False)
    several = found.runs in table.names
    failed = (columns[FAILED],) if FAILED in columns else found.failed
    return replace(
        found,
        prompt=named.get("prompt_tokens", found.prompt),
        output=named.get("output_tokens", found.output),
        label=columns.get(CLASS, found.label if found.label in table.names else None),
        failed=tuple(name for name in failed if _may_have(table, name)),
        warm_up=found.warm_up if _may_have(table, found.warm_up) else None,
        runs=found.runs if several else None,
        setting=found.setting if several else None,
        users=found.users if several else None,
        hashes=found.hashes if found.hashes in table.names else None,
    )


def _may_have(table: Table, name: str | None) -> bool:
    return table.loose or name in table.names


def _measured(form: Format, table: Table, columns: Mapping[str, str]) -> Measured | None:
    """What became of a request: by the columns that the user names, else the format's own where the table has them.

    A plain trace has the standard names as its own.

    Raises:
        FluidgateError: the user names one column of two that go together.
    """
    given = {name for name in (*TIMES, *DURATIONS) if name in columns}
    if given and given not in (set(TIMES), set(DURATIONS)):
        raise FluidgateError("--map: first_token goes with last_token, and ttft with latency; give the two of one pair")
    own = {name: name for name in NAMES if name in table.names} if form.name == PLAIN.name else {}
    named = {**own, **columns}
    pair = next((pair for pair in (TIMES, DURATIONS) if set(pair) <= (given or set(own))), None)
    if pair is not None:
        first, last = (named[name] for name in pair)
        if _unit_of(first) != _unit_of(last):
            raise FluidgateError(f"--map: the names of {first} and {last} end in two units; give columns of one unit")
        return Measured(first, last, "client", pair == DURATIONS, _unit_of(first), named.get(SCHEDULED))
    measured = form.measured
    if measured is None or columns.get("arrival_time", form.time) != form.time:
        return None
    if not form.time and not measured.durations:
        return None
    if not (_may_have(table, measured.first) and _may_have(table, measured.last)):
        return None
    scheduled, sent = (name if _may_have(table, name) else None for name in (measured.scheduled, measured.sent))
    return replace(measured, scheduled=scheduled, sent=sent)


def _find(table: Table, name: str, source: str) -> None:
    """Refuse a column that is not there.

    Raises:
        FluidgateError: naming the nearest one, or all.
    """
    if name not in table.names:
        hint = nearest(name, table.names) or f"; the columns are {', '.join(table.names[:20])}"
        fail(source, [f"{table.header}: no column {shown(name)}{hint}"])


def _fits(form: Format, table: Table, named: Mapping[str, str]) -> bool:
    """Whether a table has the columns of a format, but for some that the user names others for."""
    own = {column for standard, column in form.columns.items() if standard not in named}
    return {*(own or form.columns.values()), *form.marks} <= set(table.names)


def _all_but_times(table: Table, formats: Sequence[Format]) -> Iterator[Format]:
    return (form for form in formats if {form.prompt, form.output, *form.marks} <= set(table.names))


def _unit_of(column: str) -> TimeUnit | None:
    return SUFFIXES.get(column.replace(".", "_").rpartition("_")[2]) if "_" in column else None


def _alike(name: str, names: Sequence[str]) -> str | None:
    """A column whose name differs but by case, blanks, hyphens or dots."""
    plain = {re.sub(r"[^a-z]", "", each.lower()): each for each in names}
    return plain.get(name.replace("_", ""))


def _refuse(table: Table, named: Mapping[str, str], source: str, formats: Sequence[Format]) -> NoReturn:
    names = set(table.names)
    for key, reason in SUMMARIES.items():
        if key in names and not named:
            fail(source, [reason])
    absent = [name for name in STANDARD if name not in {*names, *named}]
    close = {name: alike for name in absent if (alike := _alike(name, table.names))}
    if close and len(close) == len(absent):
        reason = f"no column {shown(absent[0])}; did you mean '{close[absent[0]]}'?"
        fail(source, [f"{table.header}: {reason} --map {absent[0]}={shlex.quote(close[absent[0]])} says so"])
    for form in () if "arrival_time" in named else _all_but_times(table, formats):
        reason = f"no {form.time}: a file of {form.name} that does not say when its requests arrived"
        fail(source, [f"{reason}; {form.timeless}, or name the column with --map arrival_time=COLUMN"])
    if table.names and table.names[0].startswith("#"):
        fail(source, [f"{table.header}: a comment where traces have their header; remove it ({MEASURED})"])
    if {"batch_size", "chunk_size", "seconds"} <= names:
        fail(source, [f"no trace but {MEASURED}"])
    if 0 < len(absent) < len(STANDARD) - len(named):
        fail(source, [f"{table.header}: no column {shown(absent[0])}; --map {absent[0]}=COLUMN says which one it is"])
    what = "keys" if table.loose else "header"
    fail(source, [f"{table.header}: unknown {what} {shown(','.join(table.names))}; {known_formats()}"])
