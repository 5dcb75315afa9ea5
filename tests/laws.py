"""Random laws of an iteration."""

from __future__ import annotations

import numpy as np

from benchmarks.hardware import rough_table
from fluidgate import IterationTime
from fluidgate.model import SoloTable, TimeTable


def random_law(random: np.random.Generator, kind: str) -> IterationTime:
    """One of `kind`: the paper's three numbers, a linear law with terms by decode and context, or a table.

    A `wide` one is a table over context and tokens read before too, with nodes of its own without a chunk.
    """
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
    if kind == "wide":
        return wide_table(random, alpha, beta)
    return rough_table(random, alpha, beta)


def wide_table(random: np.random.Generator, alpha: float, beta: float) -> IterationTime:
    """Times that grow with everything, not in straight lines."""
    delta, epsilon, zeta = 10 ** random.uniform(-5, -3.3), 10 ** random.uniform(-8, -6.5), 10 ** random.uniform(-10, -9)
    chunks, batches, contexts, reads = [64, 256, 2048], [0, 8, 64, 256], [128, 1024, 8192], [0, 2048, 8192]
    c, b, k, r = np.meshgrid(chunks, batches, contexts, reads, indexing="ij")
    held = epsilon * b * k * (1.0 + 0.5 * (k > 1000))
    seconds = alpha + beta * c + delta * b**0.9 + held + zeta * c * r * (1.0 + 0.2 * (r > 3000)) + 0.1 * epsilon * c
    alone = np.outer([1, 16, 256], [1.0, 1.0, 1.0]), np.outer([1, 16, 256], [100, 1000, 10_000])
    solo = 0.8 * alpha + delta * alone[0] ** 0.8 + 0.7 * epsilon * alone[1]
    table = TimeTable(
        chunk_sizes=chunks,
        batch_sizes=batches,
        contexts=contexts,
        read_before=reads,
        seconds=seconds.tolist(),
        solo=SoloTable(batch_sizes=[1, 16, 256], contexts=[100, 1000, 10_000], seconds=solo.tolist()),
    )
    return IterationTime(alpha=alpha, beta=beta, table=table, overhead=1e-4, overhead_per_decode=1e-6)
