"""Units of times in files."""

from __future__ import annotations

from typing import Literal

TimeUnit = Literal["s", "ms", "us", "ns"]

UNITS: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""How many of them are a second."""
