"""The readers of files that lower floors call: of scenarios, and of the traces that lend them lengths; and who writes.

Files stand above the model: a scenario may name a profile, and both hold the model's nouns; traces stand above plans,
which read the lengths of their requests. So no lower floor imports them; `fluidgate/__init__.py`, which runs before any
module of the package, puts them here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Reader = Callable[[str | Path], Any]
Writer = Callable[[Any], str]
LengthReader = Callable[[Any], Any]

_reader: Reader
_writer: Writer
_length_reader: LengthReader


def use_reader(reader: Reader) -> None:
    """Let `reader` read scenario files from now on."""
    global _reader
    _reader = reader


def read_scenario(path: str | Path) -> Any:
    """The scenario in a file, as the reader gives it."""
    return _reader(path)


def use_writer(writer: Writer) -> None:
    """Let `writer` make the text of scenario files from now on."""
    global _writer
    _writer = writer


def scenario_text(scenario: Any) -> str:
    """The text of a scenario's file, as the writer gives it."""
    return _writer(scenario)


def use_length_reader(reader: LengthReader) -> None:
    """Let `reader` read the traces of a scenario's empirical lengths from now on."""
    global _length_reader
    _length_reader = reader


def read_trace_lengths(scenario: Any) -> Any:
    """Prompt and output lengths of the requests that lend them, a pair of arrays a class."""
    return _length_reader(scenario)
