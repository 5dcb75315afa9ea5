"""From a file's content to its table."""

from __future__ import annotations

from fluidgate.packed_file import PARQUET, refuse_other_kind
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
    refuse_other_kind(source, "a trace")
    text = decoded(content, source).replace("\r\n", "\n").replace("\r", "\n")
    if text.lstrip()[:9].lower().startswith(("<!doctype", "<html", "<?xml")):
        fail(source, ["a web page, not a trace; fetch the file itself"])
    if not text.strip():
        fail(source, [f"empty; {known_formats()}"])
    if text.lstrip().startswith(("{", "[")):
        return json_table(text, source)
    return csv_table(text, source)
