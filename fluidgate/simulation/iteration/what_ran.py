"""What ran on the GPUs of a run, and how much of it a request has met between two of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array, Gpu
from fluidgate.shown import Brief, several

TERMS = (
    "mixed iterations",
    "prompt tokens",
    "decodes beside them",
    "context beside them",
    "pairs read before",
    "solo iterations",
    "solo decodes",
    "solo context",
)
"""What an iteration's time is linear in: with a chunk alpha, beta, delta, epsilon, zeta; without one the solo ones."""


@dataclass(frozen=True, eq=False, repr=False)
class WhatRan(Brief):
    """The iterations of one GPU in the order of time, as segments of the same batch; shape (segments,) each.

    Of ranks in step they are those of the rank that took the longest, for which the others wait.

    Attributes:
        segments: dtype SEGMENT of the kernel.
        ends: s.
        before: of each of `TERMS`, summed over all segments before; shape (segments + 1, terms).
    """

    segments: Any
    ends: Array
    before: Array

    def headline(self) -> str:
        return f"of {several(len(self.ends), 'segment')}"

    @staticmethod
    def of(blocks: Sequence[Any], gpu: int = 0) -> WhatRan:
        """From what a run has handed on, of one of its GPUs."""
        rows = np.concatenate(blocks)
        return WhatRan._of(rows[rows["gpu"] == gpu])

    @staticmethod
    def of_ranks(blocks: Sequence[Any], gpu: Gpu) -> WhatRan:
        """From what a run of one group of ranks has handed on, each of them a `gpu`."""
        rows = np.concatenate(blocks)
        own = np.array([_own_seconds(gpu, row) for row in rows])
        rows = rows[np.lexsort((-own, rows["origin"]))]
        return WhatRan._of(rows[np.insert(np.diff(rows["origin"]) > 0.0, 0, True)])

    @staticmethod
    def _of(rows: Any) -> WhatRan:
        rows = rows[np.argsort(rows["origin"], kind="stable")]
        counts = rows["iterations"].astype(float)
        ends = rows["origin"] + counts * rows["first"] + rows["step"] * counts * (counts - 1.0) / 2.0
        total = np.vstack([np.zeros(len(TERMS)), np.cumsum(_terms(rows, counts), axis=0)])
        return WhatRan(rows, ends, total)

    def by(self, epochs: Array) -> Array:
        """`TERMS` summed over the iterations that have ended by some epochs, s; shape (epochs, terms)."""
        place = np.searchsorted(self.ends, epochs + _near(epochs), side="right")
        inside = np.minimum(place, len(self.segments) - 1)
        rows = self.segments[inside]
        counts = np.where(place < len(self.segments), _ended(rows, epochs), 0.0)
        return np.asarray(self.before[place] + _terms(rows, counts))

    def at(self, epochs: Array, field: str) -> NDArray[Any]:
        """A field of the segment under way at some epochs; 0 where the GPU is idle."""
        place = np.searchsorted(self.ends, epochs, side="right")
        rows = self.segments[np.minimum(place, len(self.segments) - 1)]
        busy = (place < len(self.segments)) & (rows["origin"] <= epochs)
        return np.where(busy, rows[field], 0)


def _own_seconds(gpu: Gpu, row: Any) -> float:
    """Seconds of the first iteration of a segment if its GPU were alone."""
    return gpu.seconds(int(row["chunk"]), int(row["decodes"]), int(row["context"]), int(row["read"]))


def _terms(rows: Any, counts: Array) -> Array:
    """`TERMS` of the first iterations of some segments, `counts` of each; shape (segments, terms)."""
    mixed = rows["chunk"] > 0
    pairs = counts * (counts - 1.0) / 2.0
    context = counts * rows["context"] + pairs * rows["decodes"]
    read = counts * rows["read"] + pairs * rows["chunk"].astype(float) ** 2
    decodes = counts * rows["decodes"]
    beside = [counts, counts * rows["chunk"], decodes, context, read]
    alone = [counts, decodes, context]
    return np.column_stack([each * mixed for each in beside] + [each * ~mixed for each in alone])


def _ended(rows: Any, epochs: Array) -> Array:
    """How many iterations of its segment have ended by an epoch that lies in it."""
    elapsed = np.maximum(epochs + _near(epochs) - rows["origin"], 0.0)
    slope = rows["first"] - 0.5 * rows["step"]
    root = 2.0 * elapsed / (slope + np.sqrt(slope**2 + 2.0 * rows["step"] * elapsed))
    return np.asarray(np.clip(np.floor(root), 0.0, rows["iterations"]))


def _near(epochs: Array) -> Array:
    """By how much a time may be rounded, s."""
    return np.asarray(1e-9 * np.maximum(np.abs(epochs), 1.0))
