"""What parts the columns of a CSV text."""

from __future__ import annotations

SEPARATORS = ",;\t"


def separator_of(header: str) -> str:
    """The one that the header has most of."""
    return max(SEPARATORS, key=header.count)
