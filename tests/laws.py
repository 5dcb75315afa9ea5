"""Random laws of an iteration."""

from __future__ import annotations

import numpy as np

from benchmarks.hardware import rough_table
from fluidgate import IterationTime


def random_law(random: np.random.Generator, kind: str) -> IterationTime:
    """One of `kind`: the paper's three numbers, a linear law with terms by decode and context, or a table."""
    alpha, beta = random.uniform(0.003, 0.02), 10 ** random.uniform(-5, -4)
    if kind == "paper":
        return IterationTime(alpha=alpha, beta=beta, gamma=1.0 / (random.uniform(0.8, 1.5) * alpha))
    if kind == "linear":
        return IterationTime(
            alpha=alpha,
            beta=beta,
            delta=10 ** random.uniform(-5, -3.3),
            epsilon=10 ** random.uniform(-8, -6.5),
            solo_alpha=alpha * random.uniform(0.6, 1.5),
            solo_delta=10 ** random.uniform(-5, -3.3),
        )
    return rough_table(random, alpha, beta)
