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

    Where `table` is not empty its times are added to these terms: those of `IterationTime.surface`, between and beyond
    whose nodes it is as `fluidgate.interpolation.multilinear` says. `epsilon`, `solo_epsilon` and `zeta` are 0 where it
    has several contexts, or numbers of tokens read before.

    Attributes:
        alpha, solo_alpha: s.
        beta: s per prompt token.
        delta, solo_delta: s per decode.
        epsilon, solo_epsilon: s per token of context.
        zeta: s per pair of tokens.
        first_context, first_solo_context: of a decode, tokens, where there are no decodes.
        contexts, chunks, batches, reads: nodes of the table, increasing; shapes (k,), (c,), (b,), (r,). The first chunk
            is that of iterations without one, 0, or the least there is; of several contexts or reads the first is 0.
        table: s, shape (k, c, b, r); of no size for none.
        solo_contexts, solo_batches: nodes without a chunk, shapes (l,), (d,).
        solo_table: s, shape (l, d).
    """

    alpha: float
    beta: float
    delta: float
    epsilon: float
    zeta: float
    solo_alpha: float
    solo_delta: float
    solo_epsilon: float
    first_context: float
    first_solo_context: float
    contexts: Any
    chunks: Any
    batches: Any
    reads: Any
    table: Any
    solo_contexts: Any
    solo_batches: Any
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
        first_context=0.0,
        first_solo_context=0.0,
        contexts=none,
        chunks=none,
        batches=none,
        reads=none,
        table=np.zeros((0, 0, 0, 0)),
        solo_contexts=none,
        solo_batches=none,
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
    mixed, solo = iteration.surface, iteration.solo_surface
    contexts, chunks, batches, reads = (np.array(nodes, dtype=np.float64) for nodes in mixed.axes)
    solo_contexts, solo_batches = (np.array(nodes, dtype=np.float64) for nodes in solo.axes)
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
        first_context=float(table.contexts[0]),
        first_solo_context=float(table.solo_axes[1][0]),
        contexts=contexts,
        chunks=chunks,
        batches=batches,
        reads=reads,
        table=np.ascontiguousarray(mixed.times),
        solo_contexts=solo_contexts,
        solo_batches=solo_batches,
        solo_table=np.ascontiguousarray(solo.times),
    )
    least = iteration.overhead + min(
        float((mixed.times + iteration.overhead_per_decode * batches[:, None]).min()),
        float((solo.times + iteration.overhead_per_decode * solo_batches).min()),
    )
    if least <= 0.0:
        raise FluidgateError(
            "iteration times: each must be above 0 s, and above the share in it of the context and of the tokens read "
            "before, at all nodes of the table; lower epsilon, solo_epsilon or zeta, or mend the times of few tokens"
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
    """How far a place lies from the node `low` on to the next: 0 before it, above 1 beyond the next."""
    if len(nodes) == 1:
        return 0.0
    return max((place - nodes[low]) / (nodes[low + 1] - nodes[low]), 0.0)


@inlined
def gained(share: float, more: float) -> float:
    """As `fluidgate.interpolation.onward`."""
    return share * more if share <= 1.0 or more >= 0.0 else more


@inlined
def read_on(table: Any, k: int, i: int, j: int, m: int, v: float) -> float:
    """The table at context `k`, chunk `i` and batch `j`, `v` of the way from node `m` of what was read before on."""
    found = table[k, i, j, m]
    if v > 0.0:
        found += gained(v, table[k, i, j, m + 1] - found)
    return found


@inlined
def table_at(law: Law, chunk: float, decodes: float, k: int, read: float) -> float:
    """The table at context node `k`, s."""
    i, j, m = low_node(law.chunks, chunk), low_node(law.batches, decodes), low_node(law.reads, read)
    s, t = share_after(law.chunks, i, chunk), share_after(law.batches, j, decodes)
    v = share_after(law.reads, m, read)
    found = read_on(law.table, k, i, j, m, v)
    if t > 0.0:
        found += gained(t, read_on(law.table, k, i, j + 1, m, v) - found)
    if s > 0.0:
        more = read_on(law.table, k, i + 1, j, m, v)
        if t > 0.0:
            more += gained(t, read_on(law.table, k, i + 1, j + 1, m, v) - more)
        found += gained(s, more - found)
    return found


@inlined
def table_beside(law: Law, chunk: float, decodes: float, each: float, read: float) -> float:
    """What the table says of an iteration with a chunk, s, `each` tokens of context a decode."""
    k = low_node(law.contexts, each)
    u = share_after(law.contexts, k, each)
    found = table_at(law, chunk, decodes, k, read)
    if u > 0.0:
        found += gained(u, table_at(law, chunk, decodes, k + 1, read) - found)
    return found


@inlined
def solo_table_at(law: Law, decodes: float, k: int) -> float:
    """The table without a chunk at context node `k`, s."""
    j = low_node(law.solo_batches, decodes)
    t = share_after(law.solo_batches, j, decodes)
    found = law.solo_table[k, j]
    if t > 0.0:
        found += gained(t, law.solo_table[k, j + 1] - found)
    return found


@inlined
def table_alone(law: Law, decodes: float, each: float) -> float:
    """What the table says of an iteration without a chunk, s."""
    k = low_node(law.solo_contexts, each)
    u = share_after(law.solo_contexts, k, each)
    found = solo_table_at(law, decodes, k)
    if u > 0.0:
        found += gained(u, solo_table_at(law, decodes, k + 1) - found)
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
            each = context / decodes if decodes > 0 else law.first_context
            own += table_beside(law, chunk, decodes, each, read / chunk)
        return own
    own = law.solo_alpha + law.solo_delta * decodes + law.solo_epsilon * context
    if law.table.size > 0:
        each = context / decodes if decodes > 0 else law.first_solo_context
        own += table_alone(law, decodes, each)
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
            more = table_at(law, chunk, decodes, k + 1, read / chunk) - table_at(law, chunk, decodes, k, read / chunk)
            step += slope_after(law.contexts, k, context / decodes, more)
        return step
    step = law.solo_epsilon * decodes
    if law.table.size > 0 and len(law.solo_contexts) > 1 and decodes > 0:
        k = low_node(law.solo_contexts, context / decodes)
        more = solo_table_at(law, decodes, k + 1) - solo_table_at(law, decodes, k)
        step += slope_after(law.solo_contexts, k, context / decodes, more)
    return step


@inlined
def slope_after(nodes: Any, low: int, place: float, more: float) -> float:
    """What a step of 1 from a place adds where the node after `low` has `more`; beyond it never less than nothing."""
    if place >= nodes[low + 1]:
        more = max(more, 0.0)
    return more / (nodes[low + 1] - nodes[low])


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
    """Iterations up to the next node, each with a token of context more: beyond the last it is straight on."""
    following = low_node(nodes, context) + 1
    if following >= len(nodes) or context >= nodes[following]:
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
