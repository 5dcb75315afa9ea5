"""CSV: one row a line, parted by commas, semicolons or tabs, under a header."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, NoReturn

from fluidgate.errors import one_line
from fluidgate.separators import SEPARATORS, separator_of
from fluidgate.toml_file import fail, shown
from fluidgate.workloads.formats.catalogue import known_formats
from fluidgate.workloads.formats.table import Table, whole_numbers

if TYPE_CHECKING:
    import pandas as pd


def csv_table(text: str, source: str) -> Table:
    """The table of a CSV text; blank rows are left out.

    Raises:
        FluidgateError: it is no CSV.
    """
    import pandas as pd

    before = text[: len(text) - len(text.lstrip())].count("\n")
    header = text.lstrip().partition("\n")[0]
    try:
        cells = pd.read_csv(
            StringIO(text),
            header=None,
            sep=separator_of(header),
            dtype=str,
            skiprows=before,
            skip_blank_lines=False,
            keep_default_na=False,
        )
    except pd.errors.ParserError as error:
        if not any(mark in header for mark in SEPARATORS):
            fail(source, [f"line {before + 1}: unknown header {shown(header.strip())}; {known_formats()}"])
        _refuse(error, source)
    names = [str(cell).strip() for cell in cells.iloc[0]]

    def take(wanted: Sequence[str], lists: Sequence[str] = ()) -> pd.DataFrame:
        for name in (*wanted, *lists):
            if names.count(name) > 1:
                fail(source, [f"line {before + 1}: the column {shown(name)} is there twice; remove one of the two"])
        places = [names.index(name) for name in (*wanted, *lists)]
        table = cells.iloc[1:, places].set_axis([*wanted, *lists], axis="columns")
        table.index = table.index + before + 1
        unset = (table.iloc[:, 0].str.strip() == "").to_numpy(bool)
        blank = cells.iloc[1:][unset].apply(lambda column: column.str.strip() == "").all(axis="columns").to_numpy(bool)
        kept: pd.DataFrame = table.drop(table.index[unset][blank])
        return kept.assign(**{name: kept[name].astype(object).map(_list) for name in lists})

    return Table(names, take, "line", f"line {before + 1}")


def _list(text: str) -> Any:
    try:
        return whole_numbers(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _refuse(error: Exception, source: str) -> NoReturn:
    what = one_line(str(error).removeprefix("Error tokenizing data. C error: "))
    if fields := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", what):
        expected, line, seen = fields.groups()
        fail(source, [f"line {line}: {seen} fields where the header has {expected}; remove what is too much"])
    if row := re.search(r"EOF inside string starting at row (\d+)", what):
        fail(source, [f"line {int(row[1]) + 1}: a quote that is never closed; close or remove it"])
    fail(source, [f"not CSV ({what}); {known_formats()}"])
