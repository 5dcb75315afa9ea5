"""Random laws of an iteration."""

from __future__ import annotations

import numpy as np

from fluidgate import IterationTime
from fluidgate.model import TimeTable


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
    chunks, batches = (0, 64, 256, 1024, 4096), (1, 8, 32, 128, 256)
    rough = [
        [alpha + beta * c * random.uniform(0.9, 1.1) + 2e-4 * b ** random.uniform(0.8, 1) for b in batches]
        for c in chunks
    ]
    seconds = np.maximum.accumulate(np.maximum.accumulate(np.array(rough), 0), 1)
    table = TimeTable(chunk_sizes=chunks, batch_sizes=batches, seconds=tuple(map(tuple, seconds.tolist())))
    return IterationTime(alpha=alpha, beta=beta, epsilon=10 ** random.uniform(-8.5, -7.3), table=table)
