"""Seconds of iterations on one GPU, for many batches at once: the law or the table of the scenario, at its context."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array, Gpu


@dataclass(frozen=True, eq=False)
class Times:
    """Iteration times between nodes, where they are linear.

    Attributes:
        chunks: prompt tokens of an iteration, shape (c,).
        reads: tokens of its prompt that each token of the chunk finds read, shape (r,).
        batches: decodes, shape (b,).
        mixed: s, shape (c, r, b).
        solo: s without a chunk, shape (b,).
    """

    chunks: Array
    reads: Array
    batches: Array
    mixed: Array
    solo: Array

    def alone(self, decodes: float) -> float:
        """Seconds of an iteration without a chunk."""
        return float(np.interp(decodes, self.batches, self.solo))

    def beside(self, decodes: float) -> Beside:
        """Iterations with a chunk beside so many decodes."""
        k, share = _place(self.batches, decodes)
        times = self.mixed[:, :, k]
        if share > 0.0:
            times = times + share * (self.mixed[:, :, k + 1] - times)
        return Beside(self.chunks, self.reads, times)


@dataclass(frozen=True, eq=False)
class Beside:
    """Iterations with a chunk beside a number of decodes; attributes as of `Times`, `times` of shape (c, r)."""

    chunks: Array
    reads: Array
    times: Array

    def seconds(self, chunk: Array | float, read: Array | float = 0.0) -> Array:
        """Seconds of iterations with chunks of these sizes, each token of which finds `read` read before it."""
        chunk, read = np.broadcast_arrays(np.asarray(chunk, float), np.asarray(read, float))
        i, u = _places(self.chunks, chunk)
        j, v = _places(self.reads, read)
        low = self.times[i, j] * (1.0 - v) + self.times[i, j + 1] * v
        high = self.times[i + 1, j] * (1.0 - v) + self.times[i + 1, j + 1] * v
        return np.asarray(low * (1.0 - u) + high * u)

    def prompts(self, reading: Array, found: Array, size: float) -> Array:
        """Seconds in which prompts are read, each alone in its iterations.

        Args:
            reading: tokens that are read.
            found: tokens before these that were in memory.
            size: prompt tokens of an iteration at most.
        """
        full, rest = full_chunks(reading, size)
        whole = np.where(full > 0.0, full * self.seconds(size, found + 0.5 * size * np.maximum(full - 1.0, 0.0)), 0.0)
        last = np.where(rest > 0.0, self.seconds(np.maximum(rest, 1.0), found + full * size), 0.0)
        return np.asarray(whole + last)


def full_chunks(reading: Array, size: float) -> tuple[Array, Array]:
    """How many chunks of prompts are full, and the tokens of the last one that is not."""
    full = np.floor(reading / size + 1e-9)
    return full, np.maximum(reading - full * size, 0.0)


@lru_cache(maxsize=64)
def times_of(gpu: Gpu, context: float, largest_chunk: float, longest: float) -> Times:
    """The times of a GPU whose decodes have `context` tokens each.

    Args:
        largest_chunk: prompt tokens of an iteration at most.
        longest: prompt, tokens.
    """
    table = gpu.iteration.table
    chunk_nodes = () if table is None else tuple(float(c) for c in table.chunk_sizes)
    batch_nodes = () if table is None else (*map(float, table.batch_sizes), *map(float, table.solo_axes[0]))
    read_nodes = () if table is None or len(table.read_before) == 1 else table.read_before
    chunks = _nodes(1.0, max(largest_chunk, 2.0), chunk_nodes)
    batches = _nodes(0.0, float(gpu.batch_size) + 1.0, (1.0, *batch_nodes))
    reads = _nodes(0.0, max(longest, 1.0), read_nodes)
    mixed = [[[gpu.seconds(c, b, b * context, r * c) for b in batches] for r in reads] for c in chunks]
    solo = [gpu.seconds(0.0, b, b * context) for b in batches]
    return Times(chunks, reads, batches, np.maximum(np.array(mixed), 1e-12), np.maximum(np.array(solo), 1e-12))


def _nodes(low: float, high: float, between: tuple[float, ...]) -> Array:
    return np.unique([low, high, *(x for x in between if low < x < high)])


def _place(nodes: Array, value: float) -> tuple[int, float]:
    """The node before a value, and how far the value lies on the way to the next; within the nodes."""
    value = min(max(value, nodes[0]), nodes[-1])
    k = min(int(np.searchsorted(nodes, value, side="right")) - 1, len(nodes) - 2)
    return k, float((value - nodes[k]) / (nodes[k + 1] - nodes[k]))


def _places(nodes: Array, values: Array) -> tuple[NDArray[np.int64], Array]:
    """As `_place`, of many; beyond the last node straight on."""
    k = np.clip(np.searchsorted(nodes, values, side="right") - 1, 0, len(nodes) - 2)
    return k, np.asarray(np.maximum((values - nodes[k]) / (nodes[k + 1] - nodes[k]), 0.0))
