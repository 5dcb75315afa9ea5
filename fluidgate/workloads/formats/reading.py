"""From a file's content to its table."""

from __future__ import annotations

from fluidgate.packed_file import PARQUET
from fluidgate.toml_file import decoded, fail
from fluidgate.workloads.formats.catalogue import known_formats
from fluidgate.workloads.formats.csv_text import csv_table
from fluidgate.workloads.formats.json_text import json_table
from fluidgate.workloads.formats.parquet import parquet_table
from fluidgate.workloads.formats.table import Table


def read_table(content: bytes, source: str) -> Table:
    """A file's table: Parquet, JSON (an object a line, an array of objects, a report of requests) or CSV.

    Raises:
        FluidgateError: it is empty, or none of these.
    """
    if content.startswith(PARQUET):
        return parquet_table(content, source)
    text = decoded(content, source).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        fail(source, [f"empty; {known_formats()}"])
    if text.lstrip().startswith(("{", "[")):
        return json_table(text, source)
    return csv_table(text, source)
