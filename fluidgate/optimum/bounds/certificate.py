"""The proof: no state of the whole lattice has a greater value than the bound."""

from __future__ import annotations

import numpy as np

from fluidgate.model import Array
from fluidgate.optimum.bounds import kernel
from fluidgate.optimum.bounds.kernel import COORDINATES, Integers, Network, Window
from fluidgate.optimum.bounds.lattice import scratch

ROUNDING = 1e-13
"""Relative error of one value, generously."""
CLOSE = 1e-7
"""Values that are greater than the target by less are not told apart from it."""


def counted(network: Network, of_unread: Array, of_read: Array) -> list[Array]:
    """What classes have before and after the end of their prefill, by the coordinate that counts it."""
    found = []
    for c in range(COORDINATES):
        unread = network.unread_at[network.group] == c
        read = network.read_at[network.group] == c
        found.append(np.concatenate([of_unread[unread], of_read[read]]))
    return found


def floors(network: Network) -> Array:
    """The least slopes beyond the box for which nobody who waits there is worth less than nothing, shape (4,)."""
    return np.array([float((-each).max(initial=-np.inf)) if len(each) else 0.0
                     for each in counted(network, network.unread, network.read)])  # fmt: skip


def taken(network: Network) -> Integers:
    """So many requests of each coordinate may be on the GPUs, shape (4,)."""
    most = np.zeros(COORDINATES, dtype=np.int64)
    for g in set(network.group.tolist()):
        most[network.unread_at[g]] = max(most[network.unread_at[g]], network.gpus)
        most[network.read_at[g]] = network.gpus * network.slots
    return most


def greatest(network: Network, window: Window, target: float) -> tuple[float, Integers]:
    """At least the greatest value of any state, and where it is; exact where it is above the target.

    Beyond the box, and beyond as many requests as the GPUs take, one more only waits, which `floors` makes worth
    nothing or less: the states up to there are all that matter.
    """
    least = floors(network)
    if (window.above < least - 1e-12 * np.abs(least)).any():
        raise ArithmeticError("slopes beyond the box are too small")
    last = np.where(taken(network) > 0, np.maximum(window.low + window.size + 1, taken(network)), 0)
    found, stack = np.zeros(1 + COORDINATES), np.zeros((256, 2 * COORDINATES), dtype=np.int64)
    kernel.greatest(network, window, scratch(), last, target * (1.0 + CLOSE), stack, found)
    fastest = max(network.solo.max(), network.mixed.max(), network.prefill.max())
    rates = float(network.arrival.sum()) + network.gpus * network.slots * float(fastest)
    rates += float(network.patience.max()) * float(last.sum())
    sizes = float(np.abs(window.value).max()) + float(np.abs(window.above).max() + np.abs(window.below).max())
    sizes += float(np.abs(network.read).max() + np.abs(network.unread).max())
    sizes += float((network.at_decode + network.at_prefill).max())
    return float(found[0]) + ROUNDING * rates * sizes, found[1:].astype(np.int64)
