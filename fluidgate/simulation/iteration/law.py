"""How long an iteration takes, and how long many of the same batch take together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fluidgate.compiled import by_reference, inlined, kept
from fluidgate.errors import FluidgateError
from fluidgate.policies.decisions.edpp import Coefficients

if TYPE_CHECKING:
    from fluidgate.model import Gpu, IterationTime


class Law(NamedTuple):
    """Seconds of one iteration, for its actual batch; see `fluidgate.iteration_time.IterationTime`.

    With a chunk, `alpha + beta*chunk + delta*decodes + epsilon*context + zeta*read`; without one, `solo_alpha +
    solo_delta*decodes + solo_epsilon*context`. `chunk` counts the prompt tokens read in the iteration, `decodes` the
    requests that gain a token, `context` the tokens these have read and written before it (prompt and output), `read`
    the pairs of a token of the chunk and one of its prompt that was read before the chunk. What the tokens of a chunk
    read of each other is not in it: a slope `beta` measured over whole chunks holds it.

    Where `table` is not empty times measured are added to these terms: linear between the nodes along each axis, as in
    `TimeTable`; `epsilon`, `solo_epsilon` and `zeta` then count from the one context and the one number of tokens read
    before that it was measured at, and are 0 where it has several.

    Attributes:
        alpha, solo_alpha: s.
        beta: s per prompt token.
        delta, solo_delta: s per decode.
        epsilon, solo_epsilon: s per token of context.
        zeta: s per pair of tokens.
        chunks, batches, contexts, reads: nodes of the table, increasing; shapes (c,), (b,), (k,), (r,). The first chunk
            is that of iterations without one, 0, or the least there is.
        table: s, shape (c, b, k, r); of no size for none.
        solo_batches, solo_contexts: nodes without a chunk, shapes (d,), (l,).
        solo_table: s, shape (d, l).
    """

    alpha: float
    beta: float
    delta: float
    epsilon: float
    zeta: float
    solo_alpha: float
    solo_delta: float
    solo_epsilon: float
    chunks: Any
    batches: Any
    contexts: Any
    reads: Any
    table: Any
    solo_batches: Any
    solo_contexts: Any
    solo_table: Any


def linear_law(
    alpha: float,
    beta: float,
    *,
    delta: float = 0.0,
    epsilon: float = 0.0,
    zeta: float = 0.0,
    solo: tuple[float, float, float] | None = None,
) -> Law:
    """A law of a few coefficients.

    Args:
        alpha, beta, delta, epsilon, zeta: as in `Law`.
        solo: intercept, slope a decode and slope a token of context without a chunk; those of the mixed law if None.

    Raises:
        FluidgateError: an iteration would take no time, or less for more work.
    """
    solo_alpha, solo_delta, solo_epsilon = solo if solo is not None else (alpha, delta, epsilon)
    slopes = {
        "beta": beta,
        "delta": delta,
        "epsilon": epsilon,
        "zeta": zeta,
        "solo delta": solo_delta,
        "solo epsilon": solo_epsilon,
    }
    for name, value in slopes.items():
        if not (np.isfinite(value) and value >= 0.0):
            raise FluidgateError(f"iteration time: {name} must be finite and at least 0, but is {value:g}")
    if alpha + beta <= 0.0 or solo_alpha + solo_delta <= 0.0:
        raise FluidgateError(
            f"iteration time: the smallest iteration takes {min(alpha + beta, solo_alpha + solo_delta):g} s, "
            "which must be above 0; raise alpha"
        )
    none = np.zeros(0)
    return Law(
        alpha=float(alpha),
        beta=float(beta),
        delta=float(delta),
        epsilon=float(epsilon),
        zeta=float(zeta),
        solo_alpha=float(solo_alpha),
        solo_delta=float(solo_delta),
        solo_epsilon=float(solo_epsilon),
        chunks=none,
        batches=none,
        contexts=none,
        reads=none,
        table=np.zeros((0, 0, 0, 0)),
        solo_batches=none,
        solo_contexts=none,
        solo_table=np.zeros((0, 0)),
    )


def law_of(gpu: Gpu) -> Law:
    """The law of a scenario's GPU, for batches that are not full too.

    Where `gamma` is given it is the speed in a full batch, `B` decodes of mean context: a smaller batch takes less, by
    `delta` a decode and `epsilon` a token of context. Without these, `1/gamma` holds for every batch: the law of
    [LDHZ] (2)-(3).

    Raises:
        FluidgateError: an iteration would take no time.
    """
    iteration = gpu.iteration
    if iteration.table is not None:
        return table_law(iteration)
    overhead, per_decode = iteration.overhead, iteration.overhead_per_decode
    solo_alpha, solo_delta, solo_epsilon = gpu.alone
    return linear_law(
        iteration.alpha + overhead,
        iteration.beta,
        delta=iteration.delta + per_decode,
        epsilon=iteration.epsilon,
        zeta=iteration.zeta,
        solo=(solo_alpha + overhead, solo_delta + per_decode, solo_epsilon),
    )


def paper_law(iteration: IterationTime) -> Law:
    """The law of [LDHZ] (2)-(3): `alpha + beta*chunk` with a chunk, `1/gamma` without one.

    Raises:
        FluidgateError: the iteration time depends on its batch; `law_of` reads that.
    """
    if iteration.by_batch:
        raise FluidgateError("iteration time: it depends on the batch, unlike the paper's; read it with law_of")
    return linear_law(iteration.alpha + iteration.overhead, iteration.beta, solo=(iteration.solo(0.0, 0.0), 0.0, 0.0))


def table_law(iteration: IterationTime) -> Law:
    """The law of an iteration time that holds measured times.

    Raises:
        FluidgateError: an iteration would take no time.
    """
    table = iteration.table
    assert table is not None
    chunks, batches, contexts, reads = (np.array(nodes, dtype=np.float64) for nodes in table.mixed_axes)
    solo_batches, solo_contexts = (np.array(nodes, dtype=np.float64) for nodes in table.solo_axes)
    epsilon, solo_epsilon = iteration.context_slopes
    law = Law(
        alpha=iteration.overhead,
        beta=0.0,
        delta=iteration.overhead_per_decode,
        epsilon=epsilon,
        zeta=iteration.read_slope,
        solo_alpha=iteration.overhead,
        solo_delta=iteration.overhead_per_decode,
        solo_epsilon=solo_epsilon,
        chunks=chunks,
        batches=batches,
        contexts=contexts,
        reads=reads,
        table=np.ascontiguousarray(table.mixed_times),
        solo_batches=solo_batches,
        solo_contexts=solo_contexts,
        solo_table=np.ascontiguousarray(table.solo_times),
    )
    least = min(iteration.mixed(chunk, batch, 0.0) for chunk in chunks for batch in batches)
    if min(least, *(iteration.solo(max(batch, 1.0), 0.0) for batch in solo_batches)) <= 0.0:
        raise FluidgateError(
            "iteration times: each must be above 0 s, and above the share that the context has in it; lower epsilon"
        )
    return law


ENDLESS = 1 << 30
"""Iterations of a segment that nothing ends."""


@inlined
def low_node(nodes: Any, place: float) -> int:
    """The node before a place, of two around it; the first below all of them, the last but one above."""
    low = 0
    while low + 2 < len(nodes) and nodes[low + 1] <= place:
        low += 1
    return low


@inlined
def share_after(nodes: Any, low: int, place: float) -> float:
    """How far a place lies from the node `low` on to the next: below 0 before it, above 1 beyond the next."""
    if len(nodes) == 1:
        return 0.0
    return (place - nodes[low]) / (nodes[low + 1] - nodes[low])


@inlined
def between(table: Any, i: int, j: int, k: int, l: int, u: float, v: float) -> float:  # noqa: E741
    """The table at chunk `i` and batch `j`, `u` of the way to the next context, `v` to the next number read before."""
    found = table[i, j, k, l]
    if v != 0.0:
        found += v * (table[i, j, k, l + 1] - found)
    if u != 0.0:
        more = table[i, j, k + 1, l]
        if v != 0.0:
            more += v * (table[i, j, k + 1, l + 1] - more)
        found += u * (more - found)
    return found


@inlined
def table_beside(law: Law, chunk: float, decodes: float, k: int, u: float, read: float) -> float:
    """Measured seconds of an iteration with a chunk, `u` of the way from context node `k` to the next."""
    i, j, m = low_node(law.chunks, chunk), low_node(law.batches, decodes), low_node(law.reads, read)
    s = max(share_after(law.chunks, i, chunk), 0.0)
    t = max(share_after(law.batches, j, decodes), 0.0)
    v = share_after(law.reads, m, read)
    found = between(law.table, i, j, k, m, u, v)
    if t > 0.0:
        found += t * (between(law.table, i, j + 1, k, m, u, v) - found)
    if s > 0.0:
        more = between(law.table, i + 1, j, k, m, u, v)
        if t > 0.0:
            more += t * (between(law.table, i + 1, j + 1, k, m, u, v) - more)
        found += s * (more - found)
    return found


@inlined
def table_alone(law: Law, decodes: float, k: int, u: float) -> float:
    """Measured seconds of an iteration without a chunk, `u` of the way from context node `k` to the next."""
    table = law.solo_table
    j = low_node(law.solo_batches, decodes)
    t = max(share_after(law.solo_batches, j, decodes), 0.0)
    found = table[j, k]
    if u != 0.0:
        found += u * (table[j, k + 1] - found)
    if t > 0.0:
        more = table[j + 1, k]
        if u != 0.0:
            more += u * (table[j + 1, k + 1] - more)
        found += t * (more - found)
    return found


@inlined
def seconds(law: Law, chunk: int, decodes: int, context: int, read: int) -> float:
    """Seconds of one iteration.

    Args:
        chunk: prompt tokens read.
        decodes: requests that gain a token.
        context: tokens that these have read and written, in all.
        read: sum over the tokens of the chunk of those of their prompt read before it.
    """
    if chunk > 0:
        own = law.alpha + law.beta * chunk + law.delta * decodes + law.epsilon * context + law.zeta * read
        if law.table.size > 0:
            each = context / decodes if decodes > 0 else law.contexts[0]
            k = low_node(law.contexts, each)
            own += table_beside(law, chunk, decodes, k, share_after(law.contexts, k, each), read / chunk)
            own -= law.epsilon * law.contexts[0] * max(float(decodes), law.batches[0])
            own -= law.zeta * law.reads[0] * chunk
        return own
    own = law.solo_alpha + law.solo_delta * decodes + law.solo_epsilon * context
    if law.table.size > 0:
        each = context / decodes if decodes > 0 else law.solo_contexts[0]
        k = low_node(law.solo_contexts, each)
        own += table_alone(law, decodes, k, share_after(law.solo_contexts, k, each))
        own -= law.solo_epsilon * law.solo_contexts[0] * max(float(decodes), law.solo_batches[0])
    return own


def _seconds_kernel(law, chunk, decodes, context, read):
    return seconds(law, chunk, decodes, context, read)


_seconds = kept(_seconds_kernel)


def peak_prefill(law: Law, tokens: int) -> float:
    """Prompt tokens a second that a GPU reads which reads nothing but the first chunks of prompts, `tokens` each."""
    return tokens / float(_seconds(by_reference(law), tokens, 0, 0, 0))


def linear_terms(law: Law, tokens: int, batch_size: int) -> Coefficients:
    """The terms of a law; one with measured times as it grows from small to whole chunks and batches."""
    if law.table.size == 0:
        return Coefficients(law.alpha, law.beta, law.zeta, law.solo_alpha, law.solo_delta, law.solo_epsilon)
    state = by_reference(law)

    def time(chunk: int, decodes: int, context: int, read: int) -> float:
        return float(_seconds(state, chunk, decodes, context, read))

    beta = (time(tokens, 0, 0, 0) - time(1, 0, 0, 0)) / max(tokens - 1, 1)
    read = int(law.reads[-1]) if law.reads[-1] > law.reads[0] else 1024
    zeta = (time(tokens, 0, 0, read * tokens) - time(tokens, 0, 0, 0)) / (read * tokens)
    delta = (time(0, batch_size, 0, 0) - time(0, 1, 0, 0)) / max(batch_size - 1, 1)
    each = int(law.solo_contexts[-1]) if law.solo_contexts[-1] > law.solo_contexts[0] else 1024
    epsilon = (time(0, batch_size, each * batch_size, 0) - time(0, batch_size, 0, 0)) / (each * batch_size)
    alpha, solo_alpha = time(tokens, 0, 0, 0) - beta * tokens, time(0, 1, 0, 0) - delta
    return Coefficients(*(max(term, 0.0) for term in (alpha, beta, zeta, solo_alpha, delta, epsilon)))


@inlined
def growth(law: Law, chunk: int, decodes: int, context: int, read: int) -> float:
    """Seconds that the next iteration of the same batch takes more: its decodes have a token more, its prompt a chunk.

    It stays so for as many iterations as `alike` says.
    """
    if chunk > 0:
        step = law.epsilon * decodes + law.zeta * float(chunk) * chunk
        if law.table.size > 0 and len(law.contexts) > 1 and decodes > 0:
            k = low_node(law.contexts, context / decodes)
            apart = law.contexts[k + 1] - law.contexts[k]
            low = table_beside(law, chunk, decodes, k, 0.0, read / chunk)
            step += (table_beside(law, chunk, decodes, k, 1.0, read / chunk) - low) / apart
        return step
    step = law.solo_epsilon * decodes
    if law.table.size > 0 and len(law.solo_contexts) > 1 and decodes > 0:
        k = low_node(law.solo_contexts, context / decodes)
        apart = law.solo_contexts[k + 1] - law.solo_contexts[k]
        step += (table_alone(law, decodes, k, 1.0) - table_alone(law, decodes, k, 0.0)) / apart
    return step


@inlined
def alike(law: Law, chunk: int, decodes: int, context: int) -> int:
    """For how many iterations of one batch each takes as much more as the next: up to the next node of the context.

    A prompt that is read in chunks has found more read each time: where a table says so it is one iteration.
    """
    if law.table.size == 0:
        return ENDLESS
    if chunk > 0 and len(law.reads) > 1:
        return 1
    if decodes == 0:
        return ENDLESS
    if chunk > 0:
        return until_next(law.contexts, context / decodes)
    return until_next(law.solo_contexts, context / decodes)


@inlined
def until_next(nodes: Any, context: float) -> int:
    """Iterations up to the next node, each with a token of context more: beyond the last two it is straight on."""
    following = low_node(nodes, context) + 1
    if following + 1 >= len(nodes):
        return ENDLESS
    return min(int(nodes[following] - context), ENDLESS - 1) + 1


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
