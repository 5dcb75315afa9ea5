"""Numbers as people write them."""

from __future__ import annotations

import re

THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?")
DECIMAL = re.compile(r"[-+]?\d+,\d+")


def number_meant(text: str) -> float | None:
    """What was meant; None if that is no number.

    >>> [number_meant(each) for each in ("50%", "128k", "1,000", "0,017", "$2.5", "1e6", "ten")]
    [0.5, 128000.0, 1000.0, 0.017, 2.5, 1000000.0, None]
    """
    text, factor = text.strip().lstrip("$€£"), 1.0
    if text.endswith("%"):
        text, factor = text[:-1], 0.01
    elif text[-1:] in ("k", "K"):
        text, factor = text[:-1], 1000.0
    if THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    elif DECIMAL.fullmatch(text):
        text = text.replace(",", ".")
    try:
        return float(text) * factor
    except ValueError:
        return None
