"""Tables on narrow terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from fluidgate.reports.fitting import fitted, needed
from fluidgate.reports.tables import table

NAMES = ["capped-gate-and-route", "h100/llama-3.1-70b-tp4", "examples/own_policy.py:MINE"]


def wide() -> Table:
    made = table("T", "policy", "revenue /s", *(f"quantity {k}" for k in range(6)), "words")
    for name in NAMES:
        made.add_row(name, "297.703 /s", *(["1234.5 ±0.25"] * 6), "of several words in a sentence")
    return made


def lines(made: Table, width: int) -> list[str]:
    found: list[str] = []
    for piece in fitted(made, width):
        piece.title = None
        screen = Console(file=io.StringIO(), width=max(width, needed(piece)))
        screen.print(piece)
        assert isinstance(screen.file, io.StringIO)
        found += screen.file.getvalue().splitlines()
    return found


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_names_stay_whole_and_lines_stay_within(width: int) -> None:
    shown = lines(wide(), width)
    assert max(map(len, shown)) <= width
    for name in NAMES:
        assert any(name in line for line in shown)
    text = " ".join(shown)
    for k in range(6):
        assert f"quantity {k}" in text or ("quantity" in text and f" {k} " in text)
    assert text.count("1234.5") == 6 * len(NAMES)
    assert text.count("297.703 /s") == len(NAMES)


def test_a_table_that_fits_is_as_it_was() -> None:
    made = wide()
    assert fitted(made, 300) == [made]


def test_a_name_wider_than_the_terminal_is_not_folded() -> None:
    made = table("T", "policy", "n")
    made.add_row("a/very/long/path/to/a/policy.py:NAME", "1")
    assert any("a/very/long/path/to/a/policy.py:NAME" in line for line in lines(made, 20))
