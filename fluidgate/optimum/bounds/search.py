"""From a network to its bound: where its box lies, its multipliers, and the proof."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array
from fluidgate.optimum.bounds.certificate import counted, floors, greatest, taken
from fluidgate.optimum.bounds.kernel import COORDINATES, Integers, Network, Window
from fluidgate.optimum.bounds.lattice import Solution, solved
from fluidgate.optimum.bounds.multipliers import best_multipliers

Flags = NDArray[np.bool_]

SPREAD = 5.0
"""Standard deviations of a Poisson number by which the first box reaches to either side."""
MARGIN = 8
RARE = 1e-8
"""Chance of an edge from which on the box is widened."""
TIGHT = 5e-6
"""Relative distance of the proven bound from the solution that is close enough."""
HARDLY = 2e-5
"""Bounds that are relatively closer to what is known are not worth a proof."""
PROOFS = 12
"""Boxes and straight lines that are tried for a proof."""
STEEPER = 0.01
"""By so much are straight lines steeper than the values at the edge."""


@dataclass(frozen=True)
class Proven:
    """A bound of the whole cluster's revenue, money/s, and where it was found.

    Attributes:
        bound: the proven bound; `solution`: the optimum of the box, which it comes near.
        states: size of the box.
        network: with the multipliers that were found.
    """

    bound: float
    solution: float
    states: int
    network: Network


def proven_bound(network: Network, centre: Array, max_states: int, known: float) -> Proven | None:
    """The least bound that the network's lattice gives; None if it is hardly below what is known, or
    the lattice too large.

    Args:
        network: with the multipliers of the fluid program.
        centre: where the lattice's numbers are in the fluid program, shape (4,).
        max_states: largest box.
        known: a bound of the whole cluster's revenue, money/s.
    """
    start = np.concatenate([network.unread, network.read])
    first = _first(network, centre, max_states)
    if first is None:
        return None
    last = _widened(network, first, centre, max_states)

    def solve(multipliers: Array) -> Solution:
        nonlocal last
        there = with_multipliers(network, multipliers)
        last = solved(there, closed(there, last.window), int(np.argmax(last.chance)), last.chance)
        return last

    unit = float((network.at_prefill + network.at_decode).max())
    multipliers, solution = best_multipliers(solve, start, _free(network), unit)
    if solution.gain >= (1.0 - HARDLY) * known:
        return None
    network = with_multipliers(network, multipliers)
    solution = _widened(network, solution.window, centre, max_states, solution)
    found = _proof(network, solution, centre, max_states)
    return found if found.bound < known else None


def with_multipliers(network: Network, multipliers: Array) -> Network:
    """The network with the multipliers of the numbers before the end of their prefill, then of those after it."""
    classes = len(network.arrival)
    return network._replace(unread=multipliers[:classes].copy(), read=multipliers[classes:].copy())


def closed(network: Network, window: Window) -> Window:
    """The box with edges that nobody seeks: who arrives beyond is worth nothing, who leaves at the near edge all that
    it pays."""
    worth = network.at_decode + network.at_prefill
    lost = counted(network, worth - network.unread, worth - network.read)
    below = np.array([float(each.max()) if len(each) else 0.0 for each in lost])
    return window._replace(above=floors(network), below=below)


def _free(network: Network) -> list[int]:
    """The multipliers that the function of the lattice does not make up for: all but one for each coordinate."""
    classes = len(network.arrival)
    coordinate = [*network.unread_at[network.group].tolist(), *network.read_at[network.group].tolist()]
    last = {c: k for k, c in enumerate(coordinate)}
    return [k for k in range(2 * classes) if k not in last.values()]


def _first(network: Network, centre: Array, max_states: int) -> Window | None:
    """The first box; None if it is larger than it may be."""
    used = taken(network) > 0
    reach = SPREAD * np.sqrt(centre) + MARGIN
    low = np.where(used, np.maximum(centre - reach, 0.0), 0.0).astype(np.int64)
    size = np.where(used, np.ceil(centre + reach), 0.0).astype(np.int64) - low + 1
    if np.prod(size.astype(float)) > max_states:
        return None
    return Window(low, size, np.zeros(int(np.prod(size))), np.zeros(COORDINATES), np.zeros(COORDINATES))


def _widened(
    network: Network, window: Window, centre: Array, max_states: int, solution: Solution | None = None
) -> Solution:
    """The solution of a box whose edges are rarely met, or that may not grow further."""
    while True:
        if solution is None:
            solution = solved(network, closed(network, window), _root(window, centre))
        found = solution
        edges = np.array([found.chances(c)[[0, -1]] for c in range(COORDINATES)])
        used = taken(network) > 0
        wider = _grown(
            found.window, used & (edges[:, 0] > RARE) & (found.window.low > 0), used & (edges[:, 1] > RARE), 0.3,
            max_states,
        )  # fmt: skip
        if wider is None:
            return found
        window, solution = wider, None


def _root(window: Window, centre: Array | Integers) -> int:
    inside = np.clip(np.rint(centre).astype(np.int64) - window.low, 0, window.size - 1)
    return int(np.ravel_multi_index(tuple(inside), tuple(window.size)))


def _grown(window: Window, lower: Flags, upper: Flags, by: float, max_states: int) -> Window | None:
    """A wider box, its values those of the function beyond the old; None if nothing grows or it may not."""
    more = np.ceil(by * window.size).astype(np.int64) + 2
    low = np.maximum(window.low - more * lower, 0)
    size = window.low + window.size + more * upper - low
    if not (lower | upper).any() or np.prod(size.astype(float)) > max_states:
        return None
    above, below = _inner_slopes(window)
    value = window.value.reshape(window.size)
    for c in range(COORDINATES):
        x = np.arange(low[c], low[c] + size[c]) - window.low[c]
        over, under = np.maximum(x - window.size[c] + 1, 0), np.maximum(-x, 0)
        lines = over * above[c] - under * below[c]
        value = np.take(value, np.clip(x, 0, window.size[c] - 1), axis=c)
        value = value + lines.reshape([-1 if k == c else 1 for k in range(COORDINATES)])
    return window._replace(low=low, size=size, value=np.ascontiguousarray(value).ravel())


def _inner_slopes(window: Window, skip: int = 0) -> tuple[Array, Array]:
    """The greatest slopes at the far edges, the least at the near ones, some states in; each of shape (4,)."""
    above, below = np.zeros(COORDINATES), np.zeros(COORDINATES)
    for c in range(COORDINATES):
        slope = np.moveaxis(np.diff(window.value.reshape(window.size), axis=c), c, 0)
        if len(slope):
            above[c] = slope[max(len(slope) - 1 - skip, 0)].max()
            below[c] = slope[min(skip, len(slope) - 1)].min()
    return above, below


def _proof(network: Network, solution: Solution, centre: Array, max_states: int) -> Proven:
    """Close the box with straight lines and widen it where its values are exceeded beyond, until all is proven.

    The steeper the lines, the less is exceeded beyond, and the more a policy that stays at the edge seems to earn.
    """
    best: Proven | None = None
    least, aim = floors(network), solution.gain
    above, below = _inner_slopes(solution.window, MARGIN // 2)
    window = solution.window
    for attempt in range(PROOFS):
        window = window._replace(above=np.maximum(above, least), below=below)
        solution = solved(network, window, _root(window, centre))
        value, where = greatest(network, solution.window, solution.gain)
        if best is None or value < best.bound:
            best = Proven(value, aim, window.value.size, network)
        if value <= aim + TIGHT * abs(aim):
            break
        inner, outer = _inner_slopes(solution.window)
        window = solution.window
        lower, upper = where < window.low, where >= window.low + window.size
        if solution.gain > aim + TIGHT * abs(aim):
            above, upper = least + 0.5 * (above - least), taken(network) > 0
        else:
            above, below = np.maximum(above, inner + STEEPER * (inner - least)), np.minimum(below, outer)
        if attempt % 2 == 1:
            window = _grown(window, lower, upper, 0.25, max_states) or window
    assert best is not None
    return best
