"""Whether anything is compiled: with `NUMBA_DISABLE_JIT=1` a debugger steps through all of it."""

from __future__ import annotations

from typing import Any

from numba.core import config

_config: Any = config


def is_interpreted() -> bool:
    return bool(_config.DISABLE_JIT)
