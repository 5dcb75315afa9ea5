"""Formats and readers of traces that other installed packages bring: entry points of the group `fluidgate.traces`.

Each names a `Format`, known by its columns, or a function `read(content, source)`, which takes the bytes of a file,
unpacked, and its name, and gives a pandas DataFrame with the columns of a format that is known, such as the plain one;
None for a file of another kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fluidgate.errors import FluidgateError, one_line
from fluidgate.plugins import TRACES, Plugin, plugins, warn_of
from fluidgate.toml_file import fail, shown
from fluidgate.workloads.formats.format import Format
from fluidgate.workloads.formats.table import Table, whole_numbers

if TYPE_CHECKING:
    import pandas as pd


def brought_names() -> list[str]:
    """The names of all, without loading any."""
    return [each.name for each in plugins(TRACES)]


def brought_formats() -> dict[str, tuple[Format, str]]:
    """Those known by their columns, by name, each with the package that brings it."""
    found = _loaded()
    return {
        each.name: (replace(value, name=each.name), each.package) for each, value in found if isinstance(value, Format)
    }


def brought_readers() -> dict[str, str]:
    """The packages that bring functions, by the name of each."""
    return {each.name: each.package for each, value in _loaded() if not isinstance(value, Format)}


def read_by_others(content: bytes, source: str) -> tuple[Table, str] | None:
    """The table that the first function gives which knows the file, and the function's name; None where none does.

    Raises:
        FluidgateError: a function raises, or gives no table.
    """
    for plugin, read in _loaded():
        if isinstance(read, Format):
            continue
        try:
            rows = read(content, source)
        except Exception as error:
            reason = f"raises {type(error).__name__}: {one_line(str(error)) or 'no message'}"
            raise FluidgateError(f"{source}: {plugin.wrong(reason)}, or the file") from error
        if rows is not None:
            return _table(rows, plugin, source), plugin.name
    return None


def _loaded() -> list[tuple[Plugin, Any]]:
    """A warning for each that is neither, can't be loaded, or whose name another one has."""
    found: dict[str, tuple[Plugin, Any]] = {}
    for each in plugins(TRACES):
        try:
            value = each.load()
            if not isinstance(value, Format) and not callable(value):
                raise each.wrong(f"is no Format and no function but of type {type(value).__name__}")
            if each.name in found:
                raise each.wrong(f"is left out: {found[each.name][0].package} has a format of that name")
            found[each.name] = each, value
        except FluidgateError as error:
            warn_of(error)
    return list(found.values())


def _table(rows: Any, plugin: Plugin, source: str) -> Table:
    import pandas as pd

    if not isinstance(rows, pd.DataFrame):
        raise FluidgateError(f"{source}: {plugin.wrong(f'gives no DataFrame but {type(rows).__name__}')}")
    numbered = rows.set_axis(range(1, len(rows) + 1)).set_axis([str(name) for name in rows.columns], axis="columns")

    def take(wanted: Sequence[str], lists: Sequence[str] = ()) -> pd.DataFrame:
        if missing := [name for name in (*wanted, *lists) if name not in numbered.columns]:
            fail(source, [f"no column {shown(missing[0])} in what '{plugin.name}' of {plugin.package} reads; add it"])
        table = numbered[list(wanted)].map(_text).astype(str)
        return table.assign(**{name: numbered[name].astype(object).map(whole_numbers) for name in lists})

    return Table(list(numbered.columns), take, "row", "the columns")


def _text(value: Any) -> str:
    """A cell as text, an empty one where there is no value."""
    return "" if value is None or value != value else str(value)
