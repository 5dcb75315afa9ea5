"""Between the nodes of a table, over any number of axes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any


def multilinear(
    axes: Sequence[Sequence[float]], table: Any, place: Sequence[float], onward: Sequence[bool], axis: int = 0
) -> float:
    """The table at a place: linear along each axis between its nodes, straight on above the largest.

    Args:
        axes: the nodes of each axis, increasing, one at least.
        table: nested sequences, those of the first axis outermost.
        place: a coordinate for each axis.
        onward: for each axis, whether the table goes straight on below its least node too; else it is constant there.
        axis: the first that is left; the table has no others.
    """
    if axis == len(axes):
        return float(table)
    nodes = axes[axis]
    if len(nodes) == 1:
        return multilinear(axes, table[0], place, onward, axis + 1)
    low = min(max(bisect_right(nodes, place[axis]) - 1, 0), len(nodes) - 2)
    share = (place[axis] - nodes[low]) / (nodes[low + 1] - nodes[low])
    if share < 0.0 and not onward[axis]:
        share = 0.0
    found = multilinear(axes, table[low], place, onward, axis + 1)
    if share != 0.0:
        found += share * (multilinear(axes, table[low + 1], place, onward, axis + 1) - found)
    return found
