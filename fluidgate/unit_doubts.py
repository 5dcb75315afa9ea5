"""Seconds that look like milliseconds."""

from __future__ import annotations

LONGEST = {"ttft": 100.0, "tpot": 2.0, "latency": 3600.0}
"""s; a time of requests from which on it is doubted."""


def milliseconds(key: str, value: float, of: str = "") -> str:
    """The doubt of a number of seconds: how it is read, and what to write if it was meant in milliseconds.

    >>> milliseconds("targets.ttft", 500)
    'targets.ttft: 500 is read as 500 s; if you meant milliseconds write 0.5'
    """
    return f"{key}: {value:g} is read as {value:g} s{of}; if you meant milliseconds write {value / 1000:.4g}"
