"""Between the nodes of a table, over any number of axes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any


def multilinear(axes: Sequence[Sequence[float]], table: Any, place: Sequence[float], axis: int = 0) -> float:
    """The table at a place: linear along each axis between its nodes, constant below the least.

    Above the largest node of an axis it goes straight on, but never falls: it stays as it is at that node where the
    line would. So beyond its nodes it is nowhere less than at the nearest of them, along whichever axes.

    Args:
        axes: the nodes of each axis, increasing, one at least.
        table: nested sequences, those of the first axis outermost.
        place: a coordinate for each axis.
        axis: the first that is left; the table has no others.
    """
    if axis == len(axes):
        return float(table)
    nodes = axes[axis]
    if len(nodes) == 1:
        return multilinear(axes, table[0], place, axis + 1)
    low = min(max(bisect_right(nodes, place[axis]) - 1, 0), len(nodes) - 2)
    share = (place[axis] - nodes[low]) / (nodes[low + 1] - nodes[low])
    found = multilinear(axes, table[low], place, axis + 1)
    if share > 0.0:
        found += onward(share, multilinear(axes, table[low + 1], place, axis + 1) - found)
    return found


def onward(share: float, more: float) -> float:
    """What is gained `share` of the way from a node to the next and beyond it, where the next has `more`."""
    return share * more if share <= 1.0 or more >= 0.0 else more
