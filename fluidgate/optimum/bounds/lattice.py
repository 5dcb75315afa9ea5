"""The relaxed decision problem on a box of the lattice, solved by policy iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fluidgate.model import Array
from fluidgate.optimum.bounds import kernel
from fluidgate.optimum.bounds.kernel import MOVES, Integers, Network, Scratch, Window
from fluidgate.optimum.kernel import balance

MAX_POLICIES = 30
SAME_GAIN = 1e-8
CLOSE_GAIN = 3e-6
"""Where values are swept and not solved for."""
SWEEPS = 120
"""Of values and of chances, for each policy, at most."""
SETTLED = 1e-7
"""Relative change in a sweep after which they are not swept on."""
ELIMINATED = 150_000
"""Most states of two coordinates whose values are solved for at once."""
FEW = 3_000
"""The same of more coordinates."""
RESTART = 1e-9
"""Rate of going back to the root, relative to that of arrivals: so small that it hardly matters, it joins a chain that
falls apart."""


class Line(NamedTuple):
    """What one policy earns as the multipliers vary: `revenue + drift @ multipliers`, of the whole cluster."""

    revenue: float
    drift: Array


@dataclass
class Solution:
    """The optimum of a box.

    Attributes:
        gain: revenue of the whole cluster with the multipliers' terms, money/s.
        window: the box, with the relative values of its states.
        chance: share of the time in each state under the best policy, shape (states,).
        lines: those of the policies met on the way, the best last.
    """

    gain: float
    window: Window
    chance: Array
    lines: list[Line]

    def chances(self, coordinate: int) -> Array:
        """Share of the time at each number that a coordinate has in the box."""
        others = tuple(c for c in range(kernel.COORDINATES) if c != coordinate)
        return np.asarray(self.chance.reshape(self.window.size).sum(axis=others))


def scratch() -> Scratch:
    four, whole = np.zeros(4), np.zeros(4, dtype=np.int64)
    return Scratch(
        whole.copy(), np.zeros((2, 5)), np.zeros((2, 5), dtype=np.int64), four.copy(), whole.copy(), four.copy(),
        four.copy(), four.copy(), np.zeros(2, dtype=np.int64), whole.copy(),
    )  # fmt: skip


def solved(network: Network, window: Window, root: int, chance: Array | None = None) -> Solution:
    """The best policy in a box, from its values on; beyond it the function is straight.

    Args:
        root: a state that is met often.
        chance: chances of the states to begin with.
    """
    states, classes = window.value.size, len(network.arrival)
    to, added = np.zeros((MOVES, states), dtype=np.int64), np.zeros((MOVES, states))
    kernel.lead(network, window, scratch(), to, added)
    rates, rows = np.zeros((states, MOVES)), np.zeros((states, 1 + 2 * classes))
    multipliers = np.concatenate([network.unread, network.read])
    direct = states <= (ELIMINATED if (window.size > 1).sum() <= 2 else FEW)
    back = RESTART * float(network.arrival.sum()) if direct else 0.0
    lines: list[Line] = []
    gain, most = -np.inf, np.inf
    chance = np.full(states, 1.0 / states) if chance is None else chance
    for _ in range(MAX_POLICIES):
        most = min(most, kernel.improve(network, window, scratch(), rates, rows))
        near = SAME_GAIN * abs(gain) + 2.0 * back * float(np.ptp(window.value)) if direct else CLOSE_GAIN * abs(gain)
        if most <= gain + near:
            break
        earned = rows[:, 0] + np.einsum("sm,ms->s", rates, added)
        reward = earned + rows[:, 1:] @ multipliers
        chain = _chain(rates, to, back)
        if direct:
            value, chance, gain = _eliminated(*chain, reward, root)
        else:
            chance = _balanced(*chain, chance)
            gain = float(chance @ reward)
            value = window.value.copy()
            for k in range(SWEEPS):
                if kernel.sweep(rates, to, reward, gain, value, k % 2 == 1) < SETTLED * float(np.ptp(value)):
                    break
            value -= value[root]
        window = window._replace(value=value)
        lines.append(Line(float(chance @ earned), chance @ rows[:, 1:]))
        root = int(np.argmax(chance))
    return Solution(gain, window, chance, lines)


def _chain(rates: Array, to: Integers, restart: float) -> tuple[Any, Array]:
    """The flows between states as a matrix, and the rates at which they are left."""
    import scipy.sparse as sp

    states = len(rates)
    rows, columns, flow = np.tile(np.arange(states), MOVES), to.ravel(), rates.T.ravel()
    leaves = (rows != columns) & (flow > 0.0)
    rows, columns, flow = rows[leaves], columns[leaves], flow[leaves]
    out: Array = np.bincount(rows, weights=flow, minlength=states).astype(np.float64) + restart
    return sp.csr_matrix((flow, (rows, columns)), shape=(states, states)), out


def _balanced(flows: Any, out: Array, chance: Array) -> Array:
    """Stationary chances after some sweeps from `chance` on."""
    inflow = flows.T.tocsr()
    chance = chance.copy()
    begins, sources = inflow.indptr.astype(np.int64), inflow.indices.astype(np.int64)
    for _ in range(0, SWEEPS, 10):
        if balance(begins, sources, inflow.data, np.maximum(out, 1e-300), chance, 10) < SETTLED:
            break
    return chance


def _eliminated(flows: Any, out: Array, reward: Array, root: int) -> tuple[Array, Array, float]:
    """Relative values (0 at the root), stationary chances and gain of a chain."""
    import scipy.sparse as sp
    from scipy.sparse.linalg import splu

    states = len(reward)
    if states == 1:
        return np.zeros(1), np.ones(1), float(reward[0])
    others = np.arange(states) != root
    from_root = np.asarray(flows[root].todense()).ravel()
    from_root[root] = -from_root[others].sum()
    generator = flows - sp.diags(out)
    factors = splu(
        generator[others][:, others].tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    earned, spent = np.zeros(states), np.zeros(states)
    solution = factors.solve(np.column_stack([reward[others], np.ones(states - 1)]))
    earned[others], spent[others] = solution[:, 0], solution[:, 1]
    gain = float((reward[root] - from_root @ earned) / (1.0 - from_root @ spent))
    chance = np.ones(states)
    transposed: Any = factors.solve
    chance[others] = transposed(-from_root[others], trans="T")
    return gain * spent - earned, chance / chance.sum(), gain
