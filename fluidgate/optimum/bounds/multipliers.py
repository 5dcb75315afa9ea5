"""The best multipliers: the least of a convex function that is the greatest of many lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fluidgate.model import Array
from fluidgate.optimum.bounds.lattice import Line, Solution

STEP = 0.05
"""First radius of the search, in units of a request's worth."""
CLOSE = 3e-5
"""Relative gain that is worth another step."""
MAX_STEPS = 60
KEPT = 3
"""Lines of a solution that are kept, the last ones."""


def best_multipliers(
    solve: Callable[[Array], Solution],
    start: Array,
    free: Sequence[int],
    unit: float,
) -> tuple[Array, Solution]:
    """Lower the gain by its multipliers, step by step: each goes to the least of the lines seen, within a radius.

    Args:
        solve: the solution for given multipliers.
        start: where to begin, shape (multipliers,).
        free: numbers of those that may vary.
        unit: of the multipliers, money.
    """
    here, best = start.copy(), solve(start)
    lines, radius = best.lines[-KEPT:], STEP
    for _ in range(MAX_STEPS if free else 0):
        step, least = _least(lines, here, free, unit, radius, best.gain)
        hoped = best.gain - least
        if hoped <= CLOSE * abs(best.gain):
            break
        there = here.copy()
        there[list(free)] += unit * step
        found = solve(there)
        lines += found.lines[-KEPT:]
        good = found.gain < best.gain - 0.1 * hoped
        if not good:
            radius *= 0.4
        elif np.abs(step).max() > 0.9 * radius:
            radius *= 2.0
        if found.gain < best.gain:
            here, best = there, found
    return here, best


def _least(
    lines: list[Line], here: Array, free: Sequence[int], unit: float, radius: float, scale: float
) -> tuple[Array, float]:
    """The step, in units, to the least of the greatest of all lines within a radius; and what it is there."""
    from scipy.optimize import linprog

    count = len(free)
    slopes = np.array([np.append(unit * line.drift[list(free)], -scale) for line in lines]) / scale
    levels = np.array([-(line.revenue + float(line.drift @ here)) for line in lines]) / scale
    bounds = [(-radius, radius)] * count + [(None, None)]
    found = linprog(np.append(np.zeros(count), 1.0), A_ub=slopes, b_ub=levels, bounds=bounds, method="highs")
    if found.x is None:
        return np.zeros(count), scale
    return found.x[:count], scale * float(found.x[count])
