"""The kinds of iterations that a GPU can run, as columns of the program: a law's few, a table's nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array, IterationTime, TimeTable


@dataclass(frozen=True, eq=False)
class Kinds:
    """Iterations of one kind, mixed or solo; shape (kinds,) each.

    An iteration of a kind takes `seconds`, besides what its tokens take (`Iterations`).

    Attributes:
        chunk: prompt tokens; 0 for solo.
        decodes: that it has room for.
        seconds: s; may be negative where the tokens take more.
    """

    chunk: Array
    decodes: Array
    seconds: Array


@dataclass(frozen=True, eq=False)
class Iterations:
    """What a GPU can do, iteration by iteration.

    Attributes:
        time: the law, or the table.
        mixed, solo: kinds with a chunk and without one.
        by_node: whether each kind has its own chunk, so that the chunks of the kinds must hold all prompt tokens; else
            a prompt token takes `prompt_token` in any of them.
        prompt_token: s.
        mixed_decode, solo_decode: s for a decode beside a chunk, and for one without.
        context: s for a token of context, in both.
    """

    time: IterationTime
    mixed: Kinds
    solo: Kinds
    by_node: bool
    prompt_token: float
    mixed_decode: float
    solo_decode: float
    context: float

    def mixed_seconds(self, chunk: float, decodes: float, context: float) -> float:
        """Seconds of an iteration of mean size, `context` tokens in all."""
        return self.time.mixed(chunk, decodes, context)

    def solo_seconds(self, decodes: float, context: float) -> float:
        """The same without a chunk; where `gamma` is that of a full batch, its law goes through it."""
        if self.time.table is not None or self.time.gamma is None:
            return self.time.solo(decodes, context)
        return float(self.solo.seconds[0]) + self.solo_decode * decodes + self.context * context


def iterations_of(
    time: IterationTime,
    batch_size: int,
    largest_chunk: float,
    full_context: float,
    grid: Array | None = None,
    chunk: float | None = None,
) -> Iterations:
    """The kinds of iterations of a law or a table.

    Args:
        batch_size: B, most requests in a batch.
        largest_chunk: most prompt tokens in an iteration.
        full_context: context of each decode of the full batch that `gamma` is the speed of, tokens.
        grid: decodes of the kinds, where limits ask for several, within 0 to B; None for as few as will do.
        chunk: of all mixed iterations, with a grid: a table is then taken as straight over the chunk, there;
            `largest_chunk` if None.
    """
    if time.table is not None and grid is None:
        return _of_table(time, batch_size, largest_chunk)
    if time.table is not None and grid is not None:
        return _at_chunk(time, batch_size, grid, largest_chunk if chunk is None else chunk)
    solo_delta = time.delta if time.solo_delta is None else time.solo_delta
    if time.gamma is not None:
        solo_alpha = 1.0 / time.gamma - batch_size * (time.delta + time.epsilon * full_context)
    else:
        solo_alpha = time.solo(0.0, 0.0)
    beside = np.array([batch_size - 1.0]) if grid is None else _within(grid, 0.0, batch_size - 1.0)
    alone = np.array([float(batch_size)]) if grid is None else _within(grid, 1.0, batch_size)
    return Iterations(
        time=time,
        mixed=Kinds(np.full(len(beside), largest_chunk), beside, np.full(len(beside), time.alpha)),
        solo=Kinds(np.zeros(len(alone)), alone, np.full(len(alone), solo_alpha)),
        by_node=False,
        prompt_token=time.beta,
        mixed_decode=time.delta,
        solo_decode=solo_delta,
        context=time.epsilon,
    )


def _of_table(time: IterationTime, batch_size: int, largest_chunk: float) -> Iterations:
    """Between the nodes of a table the time is bilinear, so that any iteration is a mean of the nodes around it."""
    table = time.table
    assert table is not None
    beside, alone = _batches(time, batch_size, np.empty(0))
    chunks = _within(np.array(table.chunk_sizes, float), 1.0, largest_chunk)
    chunk, decodes = (grid.ravel() for grid in np.meshgrid(chunks, beside, indexing="ij"))
    return Iterations(
        time=time,
        mixed=Kinds(chunk, decodes, _at_no_context(time, chunk, decodes)),
        solo=Kinds(np.zeros(len(alone)), alone, _at_no_context(time, np.zeros(len(alone)), alone)),
        by_node=True,
        prompt_token=0.0,
        mixed_decode=0.0,
        solo_decode=0.0,
        context=time.epsilon,
    )


def _at_chunk(time: IterationTime, batch_size: int, grid: Array, chunk: float) -> Iterations:
    """A table by the number of decodes, its mixed iterations of one size, and straight over the chunk there."""
    beside, alone = _batches(time, batch_size, grid)
    step = 0.5 * min(chunk, 1.0)
    slope = (time.mixed(chunk + step) - time.mixed(chunk - step)) / (2.0 * step)
    chunks = np.full(len(beside), chunk)
    return Iterations(
        time=time,
        mixed=Kinds(chunks, beside, _at_no_context(time, chunks, beside) - slope * chunk),
        solo=Kinds(np.zeros(len(alone)), alone, _at_no_context(time, np.zeros(len(alone)), alone)),
        by_node=False,
        prompt_token=slope,
        mixed_decode=0.0,
        solo_decode=0.0,
        context=time.epsilon,
    )


def _batches(time: IterationTime, batch_size: int, grid: Array) -> tuple[Array, Array]:
    """Decodes of the kinds of a table, beside a chunk and without: its nodes, those of a grid, and the ends."""
    assert time.table is not None
    batches = np.union1d(np.array(time.table.batch_sizes, float), grid)
    return _within(batches, 0.0, batch_size - 1.0), _within(batches, 1.0, batch_size)


def _at_no_context(time: IterationTime, chunk: Array, decodes: Array) -> Array:
    """Seconds of iterations of a table but for their context, shape (iterations,)."""
    table = time.table
    assert table is not None
    return _read(table, chunk, decodes) - time.epsilon * table.context * np.maximum(decodes, table.batch_sizes[0])


def _read(table: TimeTable, chunk: Array, decodes: Array) -> Array:
    """`TimeTable.at` of many iterations, shape (iterations,)."""
    times = np.array(table.seconds)
    low_c, high_c, share_c = _around(np.array(table.chunk_sizes, float), chunk)
    low_b, high_b, share_b = _around(np.array(table.batch_sizes, float), decodes)
    low = times[low_c, low_b] + share_b * (times[low_c, high_b] - times[low_c, low_b])
    high = times[high_c, low_b] + share_b * (times[high_c, high_b] - times[high_c, low_b])
    return np.asarray(low + share_c * (high - low))


def _around(nodes: Array, places: Array) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """The nodes about some places, and how far each lies between: 0 below the least, beyond 1 above the largest."""
    if len(nodes) == 1:
        none = np.zeros(len(places), dtype=np.intp)
        return none, none, np.zeros(len(places))
    low = np.clip(np.searchsorted(nodes, places, side="right") - 1, 0, len(nodes) - 2)
    share = np.maximum((places - nodes[low]) / (nodes[low + 1] - nodes[low]), 0.0)
    return low, low + 1, share


def _within(nodes: Array, low: float, high: float) -> Array:
    """The nodes between two ends, and the ends."""
    high = max(low, high)
    return np.unique(np.concatenate([[low], nodes[(nodes > low) & (nodes < high)], [high]]))
