"""Parquet, where the package pyarrow is installed."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from fluidgate.errors import one_line
from fluidgate.toml_file import fail, shown
from fluidgate.workloads.formats.table import Table, whole_numbers

if TYPE_CHECKING:
    import pandas as pd


def parquet_table(content: bytes, source: str) -> Table:
    """The table of a Parquet file.

    Raises:
        FluidgateError: pyarrow is missing, the file is damaged, or a column asked for is no text, number or date.
    """
    try:
        import pyarrow.parquet

        arrow: Any = pyarrow
    except ImportError:
        mend = "install it with pip install fluidgate[parquet]"
        fail(source, [f"a Parquet file: reading it needs the package pyarrow; {mend}"])
    try:
        file = arrow.parquet.ParquetFile(BytesIO(content))
    except (arrow.ArrowException, OSError) as error:
        fail(source, [f"not a whole Parquet file ({one_line(str(error))}); get it again"])

    def take(wanted: Sequence[str], lists: Sequence[str] = ()) -> pd.DataFrame:
        import pandas as pd

        columns = {}
        for name in wanted:
            try:
                column = file.read([name]).column(name).cast(arrow.string())
            except (arrow.ArrowException, OSError, KeyError) as error:
                fail(source, [f"{shown(name)}: cannot be read ({one_line(str(error))}); name another column"])
            columns[name] = column.fill_null("").to_pylist()
        table = pd.DataFrame(columns, columns=list(wanted), dtype=str)
        table.index = table.index + 1
        for name in lists:
            table[name] = pd.Series(_lists(file, name, source), table.index, object)
        return table

    return Table(list(file.schema_arrow.names), take, "row", "the file")


def _lists(file: Any, name: str, source: str) -> list[Any]:
    import pyarrow

    arrow: Any = pyarrow
    try:
        return [whole_numbers(value) for value in file.read([name]).column(name).to_pylist()]
    except (arrow.ArrowException, OSError, KeyError) as error:
        fail(source, [f"{shown(name)}: cannot be read ({one_line(str(error))}); name another column"])
