"""Synthetic iteration times with known coefficients and noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fluidgate.calibration import Measurements

CHUNKS = (256, 512, 768, 1024, 1536, 2048)

Law = Callable[[int, int], float]
"""Seconds by batch size and chunk size; chunk size 0 is solo."""


def line(alpha: float, beta: float, gamma: float) -> Law:
    return lambda batch, chunk: alpha + beta * chunk if chunk else 1.0 / gamma


def measured(
    law: Law,
    *,
    batches: Sequence[int] = (16,),
    chunks: Sequence[int] = CHUNKS,
    repeats: int = 3,
    noise: float = 0.0,
    seed: int = 0,
) -> Measurements:
    """Repeats of every pair of sizes and of solo iterations, with Gaussian noise of `noise` s."""
    pairs = [(batch, chunk) for batch in batches for chunk in (0, *chunks) for _ in range(repeats)]
    times = np.array([law(batch, chunk) for batch, chunk in pairs])
    times += noise * np.random.default_rng(seed).standard_normal(len(pairs))
    batch, chunk = np.array(pairs, dtype=np.int64).T
    return Measurements(batch, chunk, times, "synthetic.csv")


def write_csv(path: Path, rows: Measurements, header: str = "batch_size,chunk_size,seconds") -> Path:
    lines = [f"{b},{c},{t!r}" for b, c, t in zip(rows.batch_size, rows.chunk_size, rows.seconds.tolist(), strict=True)]
    path.write_text("\n".join([header, *lines]) + "\n", "utf-8")
    return path
