"""How series are told apart in pictures: by colour, and by dashes or marks too.

The colours are those of Okabe and Ito, *Color Universal Design* (2008), which colour-blind eyes tell apart, less the
yellow, which is too pale for a line. No two of 28 series look the same, and neighbours differ in both.
"""

from __future__ import annotations

from typing import Any

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (7, 1.5, 1.5, 1.5)), (0, (2.5, 1)))
MARKS = ("o", "s", "^", "D")


def line(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th line."""
    return {"color": COLOURS[k % len(COLOURS)], "ls": DASHES[k % len(DASHES)]}


def marked(k: int) -> dict[str, Any]:
    """Colour, dashes and marks of the k-th line through points."""
    return {**line(k), "marker": MARKS[k % len(MARKS)]}
