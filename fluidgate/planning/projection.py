"""Least-squares projection onto numbers that lie close together."""

from __future__ import annotations

import numpy as np

from fluidgate.model import Array

_HALVINGS = 100


def nearest_within_gap(target: Array, capacity: Array, gap: float) -> Array:
    """The point nearest to `target` with the same sum, between 0 and `capacity`, spread over at most `gap`.

    The distance is convex in the least coordinate allowed, `low`: bisection on its derivative, the sum of the
    multipliers of the bounds that move with `low`.

    Args:
        target: shape (n,), between 0 and `capacity`.
        capacity: shape (n,).
        gap: largest difference between two coordinates.
    """
    if np.ptp(target) <= gap:
        return target
    total = target.sum()
    empty = np.zeros_like(target)
    low = max(0.0, _shift(empty, empty, capacity, total) - gap)
    high = max(0.0, min(capacity.min(), total / len(target)))
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        lower, upper = np.full_like(target, middle), np.minimum(capacity, middle + gap)
        free = target + _shift(target, lower, upper, total)
        pull = np.sum(np.maximum(lower - free, 0.0)) - np.sum(np.maximum(free - upper, 0.0)[capacity > upper])
        low, high = (low, middle) if pull > 0 else (middle, high)
    lower, upper = np.full_like(target, high), np.minimum(capacity, high + gap)
    return np.clip(target + _shift(target, lower, upper, total), lower, upper)


def _shift(target: Array, lower: Array, upper: Array, total: float) -> float:
    """`nu` with `sum clip(target + nu, lower, upper) = total`, or the nearest that can be had."""
    upper = np.maximum(lower, upper)
    breaks = np.concatenate([lower - target, upper - target])
    order = np.argsort(breaks, kind="stable")
    breaks = breaks[order]
    slopes = np.cumsum(np.where(order < len(target), 1.0, -1.0))
    sums = lower.sum() + np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(breaks))])
    after = int(np.searchsorted(sums, total))
    if after == 0:
        return float(breaks[0])
    if after == len(breaks):
        return float(breaks[-1])
    return float(breaks[after - 1] + (total - sums[after - 1]) / slopes[after - 1])
