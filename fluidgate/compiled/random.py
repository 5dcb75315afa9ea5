"""Random numbers for compiled code: numpy's SFC64 on a state array, and what is drawn from it.

A numpy Generator can't be handed to a function without reference counts (it leaks 64 bytes a call), and a call through
its pointers costs more than the generator. The numbers are those of `numpy.random.Generator(SFC64(seed))`, bit by bit.

Sources: the generator, PractRand by Chris Doty-Humphrey; the exponential, the ziggurat of Marsaglia and Tsang, Journal
of Statistical Software 5(8), 2000, in numpy's form.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from numpy.random import SFC64, SeedSequence
from numpy.typing import NDArray

from fluidgate.compiled.functions import called, inlined

LAYERS = 256
TAIL = Decimal("7.69711747013104971404462804811408952")
"""Where the last layer of the exponential begins."""


def stream(seed: int | SeedSequence) -> NDArray[np.uint64]:
    """The state of a generator, shape (4,), which drawing from it changes."""
    return np.array(SFC64(seed).state["state"]["state"], np.uint64)


@inlined
def next_bits(state: Any) -> Any:
    """64 random bits."""
    bits = state[0] + state[1] + state[3]
    state[3] += np.uint64(1)
    state[0] = state[1] ^ (state[1] >> np.uint64(11))
    state[1] = state[2] + (state[2] << np.uint64(3))
    state[2] = ((state[2] << np.uint64(24)) | (state[2] >> np.uint64(40))) + bits
    return bits


@inlined
def uniform(state: Any) -> float:
    """Uniform on [0, 1)."""
    return (next_bits(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@inlined
def exponential(state: Any) -> float:
    """Exponential with mean 1."""
    while True:
        bits = next_bits(state) >> np.uint64(3)
        layer = np.int64(bits & np.uint64(0xFF))
        bits >>= np.uint64(8)
        x = bits * WIDTH[layer]
        if bits < INSIDE[layer] or at_the_edge(state, layer, x):
            return x
        if layer == 0:
            return 7.69711747013104972 - np.log1p(-uniform(state))


@called
def at_the_edge(state: Any, layer: Any, x: float) -> bool:
    """Whether a point of a layer that is not inside for certain lies under the density."""
    if layer == 0:
        return False
    return (HEIGHT[layer - 1] - HEIGHT[layer]) * uniform(state) + HEIGHT[layer] < np.exp(-x)


def _layers() -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.float64]]:
    """Of the ziggurat: bits under which a point is inside, width a bit, and height, each of shape (256,)."""
    with localcontext(prec=40):
        area, bits = (TAIL + 1) * (-TAIL).exp(), Decimal(2) ** 53
        ends = [Decimal(0)] * LAYERS
        ends[-1] = TAIL
        for k in range(LAYERS - 2, 0, -1):
            ends[k] = -(area / ends[k + 1] + (-ends[k + 1]).exp()).ln()
        base = area / (-TAIL).exp()
        inside = [TAIL / base * bits, Decimal(0)]
        inside += [ends[k - 1] / ends[k] * bits for k in range(2, LAYERS)]
        width = [base / bits] + [end / bits for end in ends[1:]]
        height = [(-end).exp() for end in ends]
    return (
        np.array([int(each) for each in inside], np.uint64),
        np.array([float(each) for each in width]),
        np.array([float(each) for each in height]),
    )


INSIDE, WIDTH, HEIGHT = _layers()
