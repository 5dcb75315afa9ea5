"""How long users think between an answer and their next request."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from fluidgate.model import Array, Arrivals


def think_drawer(arrivals: Arrivals, random: Generator) -> Callable[[int], Array]:
    """Draws so many think times, s; 0 where requests come by themselves."""
    if arrivals.think_law == "exponential":
        return lambda count: random.standard_exponential(count) * arrivals.think
    return lambda count: np.full(count, arrivals.think)
