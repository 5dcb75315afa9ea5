"""Which format a table is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from fluidgate.errors import FluidgateError, nearest
from fluidgate.time_units import TimeUnit
from fluidgate.toml_file import fail, shown
from fluidgate.workloads.formats.catalogue import FORMATS, PLAIN, known_formats
from fluidgate.workloads.formats.format import CLASS, STANDARD, Format
from fluidgate.workloads.formats.table import Table

SUFFIXES: dict[str, TimeUnit] = {"ns": "ns", "us": "us", "ms": "ms", "s": "s", "sec": "s", "seconds": "s"}
"""Last words of a column's name that say its unit, as in `sent_ms`."""


def recognise(table: Table, columns: Mapping[str, str], source: str) -> Format:
    """The format of a table, with the columns that the user names in the place of its own.

    Args:
        columns: the file's own name of a standard column (`STANDARD`, or `class`), where the user gave one.

    Raises:
        FluidgateError: no format has these columns, or a column that the user names is not there.
    """
    for standard, name in columns.items():
        if standard not in (*STANDARD, CLASS):
            hint = nearest(standard, [*STANDARD, CLASS]) or f"; the columns are {', '.join((*STANDARD, CLASS))}"
            raise FluidgateError(f"map: no standard column {shown(standard)}{hint}")
        if not table.loose:
            _find(table, name, source)
    named = {standard: name for standard, name in columns.items() if standard in STANDARD}
    found = next((form for form in FORMATS if _fits(form, table, named)), None)
    if found is None and set(named) == set(STANDARD):
        found = replace(PLAIN, time=named["arrival_time"], unit=_unit_of(named["arrival_time"]))
    if found is None and table.loose:
        found = next((form for form in FORMATS if {form.time, *form.marks} <= set(table.names)), None)
    if found is None:
        _refuse(table, named, source)
    if (time := named.get("arrival_time", found.time)) != found.time:
        found = replace(found, time=time, unit=_unit_of(time), whole=False)
    return replace(
        found,
        prompt=named.get("prompt_tokens", found.prompt),
        output=named.get("output_tokens", found.output),
        label=columns.get(CLASS, found.label if found.label in table.names else None),
        runs=found.runs if found.runs in table.names else None,
        measured=found.measured if set(found.measured or ()) <= set(table.names) else None,
    )


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


def _unit_of(column: str) -> TimeUnit | None:
    return SUFFIXES.get(column.replace(".", "_").rpartition("_")[2]) if "_" in column else None


def _refuse(table: Table, named: Mapping[str, str], source: str) -> NoReturn:
    names = set(table.names)
    for form in FORMATS:
        if "arrival_time" not in named and {form.prompt, form.output, *form.marks} <= names:
            reason = f"no {form.time}: a file of {form.name} that does not say when its requests arrived"
            fail(source, [f"{reason}; {form.timeless}, or name the column with --map arrival_time=COLUMN"])
    what = "keys" if table.loose else "header"
    fail(source, [f"{table.header}: unknown {what} {shown(','.join(table.names))}; {known_formats()}"])
