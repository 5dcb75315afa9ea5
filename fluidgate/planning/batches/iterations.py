"""The kinds of iterations that a GPU can run, as columns of the program: a law's few, a table's nodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fluidgate.model import Array, Gpu, SoloTable, TimeTable


@dataclass(frozen=True, eq=False)
class Kinds:
    """Iterations of one kind, mixed or solo; shape (kinds,) each.

    An iteration of a kind takes `seconds`, besides what its tokens take (`Iterations`).

    Attributes:
        chunk: prompt tokens; 0 for solo.
        decodes: that it has room for.
        seconds: s; may be negative where the tokens take more.
        context: tokens of context that its decodes have in all, where the kinds differ in it.
        read: pairs of a token of the chunk and one of its prompt read before, where the kinds differ in it.
    """

    chunk: Array
    decodes: Array
    seconds: Array
    context: Array
    read: Array


@dataclass(frozen=True, eq=False)
class Iterations:
    """What a GPU can do, iteration by iteration.

    Attributes:
        gpu: with its law, or its table.
        mixed, solo: kinds with a chunk and without one.
        by_node: whether each kind has its own chunk, so that the chunks of the kinds must hold all prompt tokens; else
            a prompt token takes `prompt_token` in any of them.
        by_context: whether the mixed kinds, and the solo ones, differ in their context, which must then hold that of
            all decodes; else a token of it takes `mixed_context` or `solo_context` in any of them.
        by_read: whether the mixed kinds differ in what their chunks find read before; else a pair takes `pair`.
        prompt_token: s.
        mixed_decode, solo_decode: s for a decode beside a chunk, and for one without.
        mixed_context, solo_context: s for a token of context.
        pair: s for a pair of a token of a chunk and one of its prompt read before.
    """

    gpu: Gpu
    mixed: Kinds
    solo: Kinds
    by_node: bool
    by_context: tuple[bool, bool]
    by_read: bool
    prompt_token: float
    mixed_decode: float
    solo_decode: float
    mixed_context: float
    solo_context: float
    pair: float

    def mixed_seconds(self, chunk: float, decodes: float, context: float, read: float = 0.0) -> float:
        """Seconds of an iteration of mean size; `context` and `read` as in `IterationTime.mixed`."""
        return self.gpu.iteration.mixed(chunk, decodes, context, read)

    def solo_seconds(self, decodes: float, context: float) -> float:
        """The same without a chunk; where `gamma` is that of a full batch, its law goes through it."""
        return self.gpu.seconds(0.0, decodes, context)


@lru_cache(maxsize=64)
def iterations_of(gpu: Gpu, largest_chunk: float, longest: tuple[float, float]) -> Iterations:
    """The kinds of iterations of a law or a table, as few as will do.

    Args:
        gpu: with its law, or its table.
        largest_chunk: most prompt tokens in an iteration.
        longest: context of a decode, and tokens of a prompt before a chunk, that hardly any iteration exceeds.
    """
    if gpu.iteration.table is None:
        return _of_law(gpu, largest_chunk, np.array([gpu.batch_size - 1.0]), np.array([float(gpu.batch_size)]))
    return _of_table(gpu, gpu.iteration.table, largest_chunk, longest)


def iterations_by_batch(gpu: Gpu, chunk: float, grid: Array, context: float, read_before: float) -> Iterations:
    """The kinds by the number of decodes, where limits ask for several; mixed ones with a chunk of one size.

    A table is then taken as straight over the chunk, over the context of a decode, and over what was read before, at
    these values.

    Args:
        grid: decodes of the kinds, within 0 to B.
        chunk: prompt tokens of a mixed iteration.
        context: tokens of a decode.
        read_before: tokens of its prompt that a token of the chunk finds read.
    """
    if gpu.iteration.table is None:
        return _of_law(gpu, chunk, _within(grid, 0.0, gpu.batch_size - 1.0), _within(grid, 1.0, gpu.batch_size))
    return _at_chunk(flat(gpu, chunk, context, read_before), grid, chunk)


def _of_law(gpu: Gpu, chunk: float, beside: Array, alone: Array) -> Iterations:
    time, (solo_alpha, solo_delta, solo_epsilon) = gpu.iteration, gpu.alone
    none, nothing = np.zeros(len(beside)), np.zeros(len(alone))
    return Iterations(
        gpu=gpu,
        mixed=Kinds(np.full(len(beside), chunk), beside, np.full(len(beside), time.alpha + time.overhead), none, none),
        solo=Kinds(nothing, alone, np.full(len(alone), solo_alpha + time.overhead), nothing, nothing),
        by_node=False,
        by_context=(False, False),
        by_read=False,
        prompt_token=time.beta,
        mixed_decode=time.delta + time.overhead_per_decode,
        solo_decode=solo_delta + time.overhead_per_decode,
        mixed_context=time.epsilon,
        solo_context=solo_epsilon,
        pair=time.zeta,
    )


def _of_table(gpu: Gpu, table: TimeTable, largest_chunk: float, longest: tuple[float, float]) -> Iterations:
    """Between the nodes of a table the time is linear along each axis, so that any iteration is a mean of nodes."""
    time = gpu.iteration
    chunks = _within(np.array(table.chunk_sizes, float), 1.0, largest_chunk)
    contexts, reads = _reaching(table.contexts, longest[0]), _reaching(table.read_before, longest[1])
    batches, alone = np.array(table.batch_sizes, float), np.array(table.solo_axes[0], float)
    grid = np.meshgrid(chunks, _within(batches, 0.0, gpu.batch_size - 1.0), contexts, reads, indexing="ij")
    chunk, decodes, context, read = (axis.ravel() for axis in grid)
    once = (decodes > 0.0) | (context == contexts[0])
    chunk, decodes, context, read = chunk[once], decodes[once], context[once], read[once]
    solo_grid = np.meshgrid(
        _within(alone, 1.0, gpu.batch_size), _reaching(table.solo_axes[1], longest[0]), indexing="ij"
    )
    solo_decodes, solo_context = (axis.ravel() for axis in solo_grid)
    mixed = [time.mixed(*each) for each in zip(chunk, decodes, decodes * context, chunk * read, strict=True)]
    solo = [time.solo(*each) for each in zip(solo_decodes, solo_decodes * solo_context, strict=True)]
    none = np.zeros(len(solo))
    return Iterations(
        gpu=gpu,
        mixed=Kinds(chunk, decodes, np.array(mixed), decodes * context, chunk * read),
        solo=Kinds(none, solo_decodes, np.array(solo), solo_decodes * solo_context, none),
        by_node=True,
        by_context=(len(table.contexts) > 1, len(table.solo_axes[1]) > 1),
        by_read=len(table.read_before) > 1,
        prompt_token=0.0,
        mixed_decode=0.0,
        solo_decode=0.0,
        mixed_context=time.context_slopes[0],
        solo_context=time.context_slopes[1],
        pair=time.read_slope,
    )


def _at_chunk(gpu: Gpu, grid: Array, chunk: float) -> Iterations:
    """A table of one context by the number of decodes, straight over the chunk."""
    time, table = gpu.iteration, gpu.iteration.table
    assert table is not None
    beside = _within(np.union1d(np.array(table.batch_sizes, float), grid), 0.0, gpu.batch_size - 1.0)
    alone = _within(np.union1d(np.array(table.solo_axes[0], float), grid), 1.0, gpu.batch_size)
    step = 0.5 * min(chunk, 1.0)
    slope = (time.mixed(chunk + step) - time.mixed(chunk - step)) / (2.0 * step)
    mixed = np.array([time.mixed(chunk, decodes) for decodes in beside]) - slope * chunk
    none, nothing = np.zeros(len(beside)), np.zeros(len(alone))
    return Iterations(
        gpu=gpu,
        mixed=Kinds(np.full(len(beside), chunk), beside, mixed, none, none),
        solo=Kinds(nothing, alone, np.array([time.solo(decodes, 0.0) for decodes in alone]), nothing, nothing),
        by_node=False,
        by_context=(False, False),
        by_read=False,
        prompt_token=slope,
        mixed_decode=0.0,
        solo_decode=0.0,
        mixed_context=time.context_slopes[0],
        solo_context=time.context_slopes[1],
        pair=time.read_slope,
    )


def flat(gpu: Gpu, chunk: float, context: float, read_before: float) -> Gpu:
    """The GPU with its table at one context and one number of tokens read before, and slopes along these from there.

    Slopes are those of half a batch, beside a chunk of this size.
    """
    time, table = gpu.iteration, gpu.iteration.table
    assert table is not None
    if len(table.contexts) == len(table.read_before) == len(table.solo_axes[1]) == 1:
        return gpu
    half, step = max(gpu.batch_size / 2.0, 1.0), max(0.01 * context, 1.0)
    epsilon, solo_epsilon = time.context_slopes
    zeta, further = time.read_slope, max(0.01 * read_before, 1.0)
    if len(table.contexts) > 1:
        more = table.beside(chunk, half, context + step, read_before) - table.beside(chunk, half, context, read_before)
        epsilon = more / (half * step)
    if len(table.solo_axes[1]) > 1:
        solo_epsilon = (table.alone(half, context + step) - table.alone(half, context)) / (half * step)
    if len(table.read_before) > 1:
        more = table.beside(chunk, half, context, read_before + further)
        zeta = (more - table.beside(chunk, half, context, read_before)) / (chunk * further)
    chunks = tuple(c for c in table.chunk_sizes if c > 0) or table.chunk_sizes
    batches, alone = table.batch_sizes, table.solo_axes[0]
    one = TimeTable(
        chunk_sizes=chunks,
        batch_sizes=batches,
        contexts=(context if len(table.contexts) > 1 else table.contexts[0],),
        read_before=(read_before if len(table.read_before) > 1 else table.read_before[0],),
        seconds=tuple(tuple(table.beside(c, b, context, read_before) for b in batches) for c in chunks),
        solo=SoloTable(
            batch_sizes=alone,
            contexts=(context if len(table.solo_axes[1]) > 1 else table.solo_axes[1][0],),
            seconds=tuple(table.alone(b, context) for b in alone),
        ),
    )
    flattened = time.changed(table=one, epsilon=epsilon, solo_epsilon=solo_epsilon, zeta=zeta)
    return gpu.model_copy(update={"iteration": flattened})


def _within(nodes: Array, low: float, high: float) -> Array:
    """The nodes between two ends, and the ends."""
    high = max(low, high)
    return np.unique(np.concatenate([[low], nodes[(nodes > low) & (nodes < high)], [high]]))


def _reaching(nodes: tuple[float, ...], far: float) -> Array:
    """The nodes, from 0 to a far one, beyond which a table is straight; nothing but 0 where it has one."""
    if len(nodes) == 1:
        return np.zeros(1)
    return np.unique(np.array([0.0, *nodes, max(far, nodes[-1])]))
