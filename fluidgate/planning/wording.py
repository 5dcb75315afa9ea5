"""Words that messages about plans share."""

from __future__ import annotations

import math
from collections.abc import Sequence

_NAMED = 5
"""Classes named in a message."""


def listed(words: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(words) - _NAMED
    return ", ".join(words[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def rounded_up(value: float, digits: int = 6) -> str:
    """`value` rounded up, so that the number printed can be used."""
    if value <= 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return f"{math.ceil(value / unit * (1 + 1e-10)) * unit:.{digits}g}"
