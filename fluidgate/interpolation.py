"""Between the nodes of a table; in plain Python, and compiled where the hot loop asks."""

from __future__ import annotations

from typing import Any


def bilinear(xs: Any, ys: Any, table: Any, x: float, y: float) -> float:
    """The table at (x, y): constant below the least nodes, carried on in a straight line above the largest.

    Args:
        xs, ys: nodes, increasing, at least one each; shapes (a,) and (b,).
        table: shape (a, b).
    """
    i, u = 0, 0.0
    while i + 2 < len(xs) and xs[i + 1] <= x:
        i += 1
    if len(xs) > 1 and x > xs[i]:
        u = (x - xs[i]) / (xs[i + 1] - xs[i])
    j, v = 0, 0.0
    while j + 2 < len(ys) and ys[j + 1] <= y:
        j += 1
    if len(ys) > 1 and y > ys[j]:
        v = (y - ys[j]) / (ys[j + 1] - ys[j])
    low, high = table[i][j], table[i][j]
    if v > 0.0:
        low += v * (table[i][j + 1] - low)
    if u > 0.0:
        high = table[i + 1][j]
        if v > 0.0:
            high += v * (table[i + 1][j + 1] - high)
    return float(low + u * (high - low))
