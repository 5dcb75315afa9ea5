"""A reader of traces: lines such as `12.25 chat prompt=812 output=160`, s since the log began."""

import re

import pandas as pd

LINE = re.compile(
    r"^(?P<arrival_time>[\d.]+) (?P<class>\w+) prompt=(?P<prompt_tokens>\d+) output=(?P<output_tokens>\d+)$",
    re.MULTILINE,
)


def read(content: bytes, source: str) -> pd.DataFrame | None:
    """The requests of a log, in the columns of the plain format; None for a file of another kind.

    Args:
        content: the file, unpacked where it was packed.
        source: its name, for messages.
    """
    found = [line.groupdict() for line in LINE.finditer(content.decode("utf-8", "replace"))]
    return pd.DataFrame(found) if found else None
