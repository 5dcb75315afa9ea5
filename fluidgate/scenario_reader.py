"""The reader of scenario files that `Scenario.load` calls.

Files stand above the model: a scenario may name a profile, and both hold the model's nouns. So the model imports no
file; `fluidgate/__init__.py`, which runs before any module of the package, puts the reader here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Reader = Callable[[str | Path], Any]

_reader: Reader


def use_reader(reader: Reader) -> None:
    """Let `reader` read scenario files from now on."""
    global _reader
    _reader = reader


def read_scenario(path: str | Path) -> Any:
    """The scenario in a file, as the reader gives it."""
    return _reader(path)
