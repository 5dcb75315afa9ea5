"""How long an iteration takes, and how long many of the same batch take together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fluidgate.compiled import inlined
from fluidgate.errors import FluidgateError
from fluidgate.interpolation import bilinear

if TYPE_CHECKING:
    from fluidgate.model import Gpu, IterationTime


class Law(NamedTuple):
    """Seconds of one iteration, for its actual batch.

    With a chunk, `alpha + beta*chunk + delta*decodes + epsilon*context`; without one, `solo_alpha +
    solo_delta*decodes + solo_epsilon*context`. `chunk` counts the prompt tokens read in the iteration, `decodes` the
    requests that gain a token, `context` the tokens these have read and written before it (prompt and output). What a
    prompt's own chunks read of each other is not in `context`: a slope `beta` measured over whole prompts holds it.

    Where `table` is not empty it takes the place of `alpha`, `beta`, `delta` (and of the solo ones): bilinear between
    its nodes, constant below the least chunk and batch, carried on in a straight line above the largest.

    Attributes:
        alpha, solo_alpha: s.
        beta: s per prompt token.
        delta, solo_delta: s per decode.
        epsilon, solo_epsilon: s per token of context.
        chunks, batches: nodes of the table, increasing; shapes (c,) and (b,).
        table: s, shape (c, b); shape (0, 0) for none.
        table_context: tokens of context of each decode that the table was measured at.
    """

    alpha: float
    beta: float
    delta: float
    epsilon: float
    solo_alpha: float
    solo_delta: float
    solo_epsilon: float
    chunks: Any
    batches: Any
    table: Any
    table_context: float


def linear_law(
    alpha: float,
    beta: float,
    *,
    delta: float = 0.0,
    epsilon: float = 0.0,
    solo: tuple[float, float, float] | None = None,
) -> Law:
    """A law of four coefficients.

    Args:
        alpha, beta, delta, epsilon: as in `Law`.
        solo: intercept, slope a decode and slope a token of context without a chunk; those of the mixed law if None.

    Raises:
        FluidgateError: an iteration would take no time, or less for more work.
    """
    solo_alpha, solo_delta, solo_epsilon = solo if solo is not None else (alpha, delta, epsilon)
    slopes = {"beta": beta, "delta": delta, "epsilon": epsilon, "solo delta": solo_delta, "solo epsilon": solo_epsilon}
    for name, value in slopes.items():
        if not (np.isfinite(value) and value >= 0.0):
            raise FluidgateError(f"iteration time: {name} must be finite and at least 0, but is {value:g}")
    if alpha + beta <= 0.0 or solo_alpha + solo_delta <= 0.0:
        raise FluidgateError(
            f"iteration time: the smallest iteration takes {min(alpha + beta, solo_alpha + solo_delta):g} s, "
            "which must be above 0; raise alpha"
        )
    nowhere = np.zeros(0)
    return Law(
        float(alpha),
        float(beta),
        float(delta),
        float(epsilon),
        float(solo_alpha),
        float(solo_delta),
        float(solo_epsilon),
        nowhere,
        nowhere,
        np.zeros((0, 0)),
        0.0,
    )


def law_of(gpu: Gpu) -> Law:
    """The law of a scenario's GPU, for batches that are not full too.

    Where `gamma` is given it is the speed in a full batch, `B` decodes of mean context: a smaller batch takes less, by
    `delta` a decode and `epsilon` a token of context. Without these, `1/gamma` holds for every batch: the law of
    [LDHZ] (2)-(3).

    Raises:
        FluidgateError: an iteration would take no time.
    """
    iteration, epsilon = gpu.iteration, gpu.iteration.epsilon
    if (table := iteration.table) is not None:
        return table_law(table.chunk_sizes, table.batch_sizes, table.seconds, epsilon=epsilon, context=table.context)
    delta = iteration.delta if iteration.solo_delta is None else iteration.solo_delta
    solo_alpha = iteration.solo(0.0, 0.0)
    if iteration.gamma is not None:
        solo_alpha -= gpu.batch_size * (delta + epsilon * gpu.context_tokens)
    return linear_law(
        iteration.alpha, iteration.beta, delta=iteration.delta, epsilon=epsilon, solo=(solo_alpha, delta, epsilon)
    )


def paper_law(iteration: IterationTime) -> Law:
    """The law of [LDHZ] (2)-(3): `alpha + beta*chunk` with a chunk, `1/gamma` without one.

    Raises:
        FluidgateError: the iteration time depends on its batch; `law_of` reads that.
    """
    if iteration.by_batch:
        raise FluidgateError("iteration time: it depends on the batch, unlike the paper's; read it with law_of")
    return linear_law(iteration.alpha, iteration.beta, solo=(iteration.solo(0.0, 0.0), 0.0, 0.0))


def table_law(
    chunks: Sequence[float], batches: Sequence[float], seconds: Any, *, epsilon: float = 0.0, context: float = 0.0
) -> Law:
    """A law read off measured iteration times.

    Args:
        chunks, batches: nodes, increasing; a chunk of 0 is an iteration without one.
        seconds: of an iteration, shape (len(chunks), len(batches)).
        epsilon: s per token of context, beyond the context the table was measured at.
        context: tokens of context a decode that the table was measured at.

    Raises:
        FluidgateError: the shapes differ, the nodes don't increase, or a time is not above 0.
    """
    table = np.ascontiguousarray(seconds, dtype=np.float64)
    rows, columns = np.asarray(chunks, dtype=np.float64), np.asarray(batches, dtype=np.float64)
    if table.shape != (len(rows), len(columns)) or table.size == 0:
        raise FluidgateError(
            f"iteration times: {len(rows)} chunks and {len(columns)} batches, but a table of shape {table.shape}"
        )
    if np.any(np.diff(rows) <= 0) or np.any(np.diff(columns) <= 0):
        raise FluidgateError("iteration times: chunks and batches must increase; sort the table")
    rest = table - epsilon * context * columns
    if not (np.isfinite(table).all() and rest.min() > 0.0):
        raise FluidgateError(
            "iteration times: each must be above 0 s, and above the share that epsilon has in it; lower epsilon"
        )
    return Law(0.0, 0.0, 0.0, float(epsilon), 0.0, 0.0, float(epsilon), rows, columns, table, float(context))


_bilinear = inlined(bilinear)


@inlined
def base_time(law: Law, chunk: int, decodes: int) -> float:
    """Seconds of an iteration but for its context."""
    if law.chunks.size > 0:
        measured = law.table_context * max(float(decodes), law.batches[0])
        return _bilinear(law.chunks, law.batches, law.table, chunk, decodes) - law.epsilon * measured
    if chunk > 0:
        return law.alpha + law.beta * chunk + law.delta * decodes
    return law.solo_alpha + law.solo_delta * decodes


@inlined
def context_slope(law: Law, chunk: int) -> float:
    """Seconds of an iteration for each token of its context."""
    return law.epsilon if chunk > 0 else law.solo_epsilon


def seconds(law: Law, chunk: int, decodes: int, context: int) -> float:
    """Seconds of one iteration, outside compiled code."""
    if law.chunks.size > 0:
        table = bilinear(law.chunks, law.batches, law.table, chunk, decodes)
        return table + law.epsilon * (context - law.table_context * max(float(decodes), law.batches[0]))
    return float(base_time.py_func(law, chunk, decodes) + context_slope.py_func(law, chunk) * context)  # type: ignore[attr-defined]


@inlined
def span(first: float, step: float, iterations: int) -> float:
    """Seconds of consecutive iterations of one batch: the first takes `first`, each next `step` more."""
    return iterations * first + step * (0.5 * iterations * (iterations - 1.0))


@inlined
def boundary_from(origin: float, first: float, step: float, epoch: float) -> int:
    """The first end of an iteration at or after `epoch`: the least k >= 1 with `origin + span(k) >= epoch`.

    The root of a quadratic, in the form that loses no digits for small steps, then mended for rounding.
    """
    elapsed = epoch - origin
    k = 1
    if elapsed > first:
        slope = first - 0.5 * step
        k = max(int(2.0 * elapsed / (slope + np.sqrt(slope * slope + 2.0 * step * elapsed))), 1)
    while origin + span(first, step, k) < epoch:
        k += 1
    while k > 1 and origin + span(first, step, k - 1) >= epoch:
        k -= 1
    return k


@inlined
def ended_by(origin: float, first: float, step: float, epoch: float) -> int:
    """How many iterations have ended at or before `epoch`."""
    if origin + first > epoch:
        return 0
    k = boundary_from(origin, first, step, epoch)
    return k - 1 if origin + span(first, step, k) > epoch else k
