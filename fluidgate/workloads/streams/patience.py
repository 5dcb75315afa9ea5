"""How long requests are willing to wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from fluidgate.model import Array


def patience_drawer(rates: Array, random: Generator) -> Callable[[Any], Array]:
    """Draws exponential patience, s, from the classes of requests; inf for a class of rate 0."""
    with np.errstate(divide="ignore"):
        mean = 1.0 / rates

    def draw(cls: Any) -> Array:
        drawn = np.maximum(random.standard_exponential(len(cls)), np.finfo(np.float64).tiny)
        return np.asarray(drawn * mean[cls])

    return draw
