"""How long an iteration of continuous batching takes: a law of few numbers, or measured times.

Source of the law: Lin, Ding, Han, Zhang, arXiv:2602.02987, cited below as [LDHZ], (2) and (3), with more terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from fluidgate.interpolation import multilinear
from fluidgate.noun import NonNegative, NonNegativeInt, Noun, Positive
from fluidgate.shown import Brief

Array = NDArray[np.float64]
Nodes = tuple[NonNegativeInt, ...]
Tokens = tuple[NonNegative, ...]


def _frozen(rows: Any) -> Any:
    """Nested lists of numbers as tuples."""
    return tuple(map(_frozen, rows)) if isinstance(rows, list | tuple) else float(rows)


Rows = Annotated[tuple[Any, ...], BeforeValidator(_frozen)]
NOWHERE = (0.0,)

Axes = tuple[Tokens, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Surface(Brief):
    """Iteration times at nodes; between and beyond them as `multilinear` says.

    Attributes:
        axes: contexts of a decode, which come first, so that a time is linear in them from node to node wherever the
            others lie; chunks, but for iterations without one; decodes; tokens read before, but without a chunk.
        times: s, one for each node, shape as the axes have nodes.
    """

    axes: Axes
    times: Array

    def headline(self) -> str:
        return f"of {' x '.join(str(len(nodes)) for nodes in self.axes)} nodes"

    def at(self, *place: float) -> float:
        return multilinear(self.axes, self._nested, place)

    @cached_property
    def _nested(self) -> Any:
        return self.times.tolist()

    def from_nothing(self, axis: int) -> Surface:
        """With a node at 0 on an axis that has several: its times go straight on down to there."""
        nodes = self.axes[axis]
        if len(nodes) == 1 or nodes[0] == 0.0:
            return self
        times = np.moveaxis(self.times, axis, 0)
        first = times[0] - nodes[0] / (nodes[1] - nodes[0]) * (times[1] - times[0])
        times = np.moveaxis(np.concatenate([first[None], times]), 0, axis)
        return Surface((*self.axes[:axis], (0.0, *nodes), *self.axes[axis + 1 :]), times)


class SoloTable(Noun):
    """Times of iterations without a chunk, linear between the nodes.

    They are constant below the least batch, and go straight on above the largest, as they do in the context; but they
    never fall beyond the last node.
    """

    batch_sizes: Nodes = Field(min_length=1, description="decodes, increasing")
    contexts: Tokens = Field(default=NOWHERE, min_length=1, description="context of each decode, tokens, increasing")
    seconds: Rows = Field(
        description="an iteration's, s: one for each batch size, or a row of them, one for each context"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_context(cls, data: Any) -> Any:
        return _with_contexts(data)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        _increasing(self, ("batch_sizes", "contexts"))
        _shaped(self.seconds, (len(self.batch_sizes),), self.contexts)
        return self

    @model_serializer(mode="wrap")
    def _briefly(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _brief(fields(self), self.contexts)

    @property
    def times(self) -> Array:
        """s, shape (batch sizes, contexts)."""
        return np.array(self.seconds, dtype=np.float64).reshape(len(self.batch_sizes), len(self.contexts))


class TimeTable(Noun):
    """Iteration times measured over chunk, decodes, context of a decode and tokens read before the chunk.

    Any of the last two may be absent: the table is then of the one value that was measured. Times are linear between
    the nodes, along each axis. They are constant below the least chunk and the least batch, and carried on in a
    straight line above the largest, and on both sides along the others. More context and more tokens read before never
    take less time, nor does the largest chunk or batch less than the one before it: where the numbers say so, by noise,
    the larger of them hold. Nor does anything take less beyond the nodes than at the nearest of them, where lines along
    several axes would fall together.

    Iterations without a chunk are those of `solo`; without it those of the chunk 0, or of the least there is. Between
    them and the least chunk the time is on the line from one to the other.
    """

    chunk_sizes: Nodes = Field(min_length=1, description="prompt tokens, 0 for none; increasing")
    batch_sizes: Nodes = Field(min_length=1, description="decodes, increasing")
    contexts: Tokens = Field(default=NOWHERE, min_length=1, description="context of each decode, tokens, increasing")
    read_before: Tokens = Field(
        default=NOWHERE,
        min_length=1,
        description="tokens of its prompt that each token of the chunk finds read, increasing",
    )
    seconds: Rows = Field(
        description="an iteration's, s: a row a chunk size, each with a time a batch size; or a row of them for each "
        "context, and in it a row for each number of tokens read before, where there are several"
    )
    solo: SoloTable | None = Field(
        default=None, description="iterations without a chunk, where they have nodes of their own"
    )

    def __repr__(self) -> str:
        nodes = (self.chunk_sizes, self.batch_sizes, self.contexts, self.read_before)
        return f"<TimeTable of {' x '.join(str(len(each)) for each in nodes)} nodes>"

    @model_validator(mode="before")
    @classmethod
    def _one_context(cls, data: Any) -> Any:
        return _with_contexts(data)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        _increasing(self, ("chunk_sizes", "batch_sizes", "contexts", "read_before"))
        _shaped(self.seconds, (len(self.chunk_sizes), len(self.batch_sizes)), self.contexts, self.read_before)
        if self.solo is not None and self.chunk_sizes[0] == 0:
            raise ValueError("the table says iterations without a chunk twice; remove the chunk size 0, or solo")
        return self

    @model_serializer(mode="wrap")
    def _briefly(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        kept = _brief(fields(self), self.contexts)
        return {k: v for k, v in kept.items() if not (k == "read_before" and self.read_before == NOWHERE)}

    @property
    def mixed_axes(self) -> tuple[Tokens, Tokens, Tokens, Tokens]:
        """Chunks, decodes, contexts and tokens read before; the least chunk is that of iterations without one, 0."""
        chunks = self.chunk_sizes if self.solo is None else (0, *self.chunk_sizes)
        return chunks, self.batch_sizes, self.contexts, self.read_before

    @property
    def mixed_times(self) -> Array:
        """s at those nodes, shape (chunks, decodes, contexts, read before)."""
        return np.array(self._mixed)

    @property
    def solo_axes(self) -> tuple[Tokens, Tokens]:
        """Decodes and contexts."""
        return (self.batch_sizes, self.contexts) if self.solo is None else (self.solo.batch_sizes, self.solo.contexts)

    @property
    def solo_times(self) -> Array:
        """s at those nodes, shape (decodes, contexts)."""
        return np.array(self._solo)

    def beside(self, chunk: float, decodes: float, context: float, read_before: float) -> float:
        """Seconds of an iteration with a chunk, `context` tokens a decode, `read_before` a token of the chunk."""
        return self.surface().at(context, chunk, decodes, read_before)

    def alone(self, decodes: float, context: float) -> float:
        """Seconds of an iteration without a chunk, `context` tokens a decode."""
        return self.solo_surface().at(context, decodes)

    def surface(self, per_context: float = 0.0, per_read: float = 0.0) -> Surface:
        """Of iterations with a chunk, down to no context and nothing read before.

        Args:
            per_context, per_read: s a token of context, and a pair of a token of the chunk and one read before, that
                are counted apart: the share that they have at the nodes is taken off. 0 for an axis of several nodes.
        """
        if per_context == per_read == 0.0:
            return self._surface
        shares = per_context * self.contexts[0] * np.array(self.batch_sizes, dtype=np.float64)
        reads = per_read * self.read_before[0] * np.array(self.mixed_axes[0], dtype=np.float64)
        taken = shares[None, None, :, None] + reads[None, :, None, None]
        return Surface(self._surface.axes, self._surface.times - taken)

    def solo_surface(self, per_context: float = 0.0) -> Surface:
        """The same of iterations without a chunk."""
        batches, contexts = self.solo_axes
        if per_context == 0.0:
            return self._solo_surface
        shares = per_context * contexts[0] * np.array(batches, dtype=np.float64)
        return Surface(self._solo_surface.axes, self._solo_surface.times - shares)

    @cached_property
    def _surface(self) -> Surface:
        chunks, batches, contexts, reads = self.mixed_axes
        times = np.moveaxis(self.mixed_times, 2, 0)
        return Surface((contexts, chunks, batches, reads), times).from_nothing(0).from_nothing(3)

    @cached_property
    def _solo_surface(self) -> Surface:
        batches, contexts = self.solo_axes
        return Surface((contexts, batches), self.solo_times.T).from_nothing(0)

    @cached_property
    def _mixed(self) -> Any:
        shape = (len(self.chunk_sizes), len(self.batch_sizes), len(self.contexts), len(self.read_before))
        times = _growing(np.array(self.seconds, dtype=np.float64).reshape(shape), sizes=2)
        if self.solo is None:
            return times.tolist()
        alone = [[self.alone(b, k) for k in self.contexts] for b in self.batch_sizes]
        return [np.repeat(np.array(alone)[:, :, None], shape[3], axis=2).tolist(), *times.tolist()]

    @cached_property
    def _solo(self) -> Any:
        if self.solo is None:
            return [[each[0] for each in row] for row in self._mixed[0]]
        return _growing(self.solo.times, sizes=1).tolist()


class IterationTime(Noun):
    """Duration of one iteration of continuous batching.

    With a chunk, `alpha + beta*chunk + delta*decodes + epsilon*context + zeta*read`, where `context` counts the tokens
    that the decodes of the batch have read and written before, and `read` the pairs of a token of the chunk and one of
    its prompt that was read before the chunk. Without one, `solo_alpha + solo_delta*decodes + solo_epsilon*context`, or
    `1/gamma` for a full batch.

    That of [LDHZ], (2)-(3), has no delta and no epsilon, so that `tau = alpha + beta*chunk` and `1/gamma` hold for
    every batch. With any of them, or with a solo time of its own, `gamma` follows from the batch size and may be
    left out: see `Gpu`.

    A `table` takes the place of all terms but those of what it was measured at one value of: `epsilon`, `solo_epsilon`
    and `zeta` count from there. `alpha`, `beta` and the others are then those of the law fitted to it, for who asks
    for them.

    An engine adds `overhead + overhead_per_decode*decodes` to each iteration.
    """

    alpha: float = Field(description="intercept of the mixed iteration time, s")
    beta: Positive = Field(description="slope of the mixed iteration time, s per prompt token")
    gamma: Positive | None = Field(
        default=None,
        description="speed of one decode on a solo GPU, tokens/s; None where it follows from the batch size",
    )
    delta: NonNegative = Field(default=0.0, description="what each decode of the batch adds to an iteration, s")
    epsilon: NonNegative = Field(default=0.0, description="what each token of context adds to an iteration, s")
    zeta: NonNegative = Field(
        default=0.0, description="what each pair of a token of the chunk and one of its prompt read before adds, s"
    )
    solo_alpha: NonNegative | None = Field(
        default=None, description="alpha without a chunk, s; that of mixed ones if None"
    )
    solo_delta: NonNegative | None = Field(
        default=None, description="delta without a chunk, s; that of mixed ones if None"
    )
    solo_epsilon: NonNegative | None = Field(
        default=None, description="epsilon without a chunk, s; that of mixed ones if None"
    )
    overhead: NonNegative = Field(default=0.0, description="what the engine adds to each iteration, s")
    overhead_per_decode: NonNegative = Field(default=0.0, description="what it adds for each decode, s")
    table: TimeTable | None = Field(
        default=None, description="measured times, in the place of the law; None for the law"
    )

    @model_validator(mode="after")
    def _solo_time_is_known_once(self) -> Self:
        given = any(each is not None for each in (self.solo_alpha, self.solo_delta, self.solo_epsilon))
        if self.gamma is not None and given:
            raise ValueError("gamma and solo_alpha, solo_delta, solo_epsilon say the same; leave gamma out, or those")
        if self.gamma is not None and self.table is not None:
            raise ValueError("gamma and a table say the same; leave gamma out")
        if self.gamma is None and not (given or self.delta or self.epsilon or self.table):
            raise ValueError("gamma is missing; give it, or delta or epsilon, from which it follows")
        return self

    @model_serializer(mode="wrap")
    def _what_is_set(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the terms that the law does not have."""
        kept = {key: value for key, value in fields(self).items() if key in ("alpha", "beta") or value is not None}
        return {key: value for key, value in kept.items() if key not in _ZERO_IF_ABSENT or value != 0.0}

    @property
    def by_batch(self) -> bool:
        """Whether an iteration's time depends on its decodes, or on what they and its chunk have read before."""
        terms = (self.delta, self.epsilon, self.zeta, self.overhead_per_decode)
        return self.gamma is None or any(term > 0.0 for term in terms)

    @property
    def by_context(self) -> bool:
        """Whether an iteration's time depends on the context of its decodes."""
        several = self.table is not None and (len(self.table.contexts) > 1 or len(self.table.solo_axes[1]) > 1)
        return several or self.epsilon > 0.0 or self.alone[2] > 0.0

    @property
    def alone(self) -> tuple[float, float, float]:
        """Intercept, slope a decode and slope a token of context of iterations without a chunk, with no table."""
        given = (self.solo_alpha, self.solo_delta, self.solo_epsilon)
        mixed = (self.alpha, self.delta, self.epsilon)
        alpha, delta, epsilon = (m if g is None else g for g, m in zip(given, mixed, strict=True))
        return alpha, delta, epsilon

    @property
    def context_slopes(self) -> tuple[float, float]:
        """s a token of context beside a chunk and without one, beyond what a table says of it."""
        mixed, solo = self.epsilon, self.alone[2]
        if self.table is not None:
            several = (len(self.table.contexts) > 1, len(self.table.solo_axes[1]) > 1)
            mixed, solo = (0.0 if many else slope for many, slope in zip(several, (mixed, solo), strict=True))
        return mixed, solo

    @property
    def read_slope(self) -> float:
        """s a pair of a token of the chunk and one read before, beyond what a table says of it."""
        return 0.0 if self.table is not None and len(self.table.read_before) > 1 else self.zeta

    def mixed(self, chunk_tokens: float, decodes: float = 0.0, context: float = 0.0, read: float = 0.0) -> float:
        """Seconds of an iteration that reads `chunk_tokens` of prompts beside `decodes`, (3).

        Args:
            context: tokens of the decodes, in all.
            read: sum over the tokens of the chunk of those of their prompt read before it.
        """
        if self.table is None:
            own = self.alpha + self.beta * chunk_tokens + self.delta * decodes
            return own + self.epsilon * context + self.zeta * read + self.added(decodes)
        table = self.table
        each = context / decodes if decodes > 0.0 else table.contexts[0]
        before = read / chunk_tokens if chunk_tokens > 0.0 else table.read_before[0]
        own = self.surface.at(each, chunk_tokens, decodes, before) + self.added(decodes)
        return own + self.context_slopes[0] * context + self.read_slope * read

    def solo(self, decodes: float, context: float) -> float:
        """Seconds of an iteration of `decodes` without a prefill, (2); with `gamma` those of a full batch."""
        if self.gamma is not None:
            return 1.0 / self.gamma + self.added(decodes)
        if self.table is None:
            alpha, delta, epsilon = self.alone
            return alpha + delta * decodes + epsilon * context + self.added(decodes)
        each = context / decodes if decodes > 0.0 else self.table.solo_axes[1][0]
        own = self.solo_surface.at(each, decodes) + self.added(decodes)
        return own + self.context_slopes[1] * context

    @cached_property
    def surface(self) -> Surface:
        """What a table says of iterations with a chunk, beside the slopes and what the engine adds."""
        assert self.table is not None
        return self.table.surface(self.context_slopes[0], self.read_slope)

    @cached_property
    def solo_surface(self) -> Surface:
        """The same without a chunk."""
        assert self.table is not None
        return self.table.solo_surface(self.context_slopes[1])

    def added(self, decodes: float) -> float:
        """Seconds that the engine adds to an iteration."""
        return self.overhead + self.overhead_per_decode * decodes

    def with_overhead(self, seconds: float, per_decode: float = 0.0) -> IterationTime:
        """The same with more overhead, s and s a decode."""
        return self.changed(overhead=self.overhead + seconds, overhead_per_decode=self.overhead_per_decode + per_decode)


_ZERO_IF_ABSENT = ("delta", "epsilon", "zeta", "overhead", "overhead_per_decode")


def _with_contexts(data: Any) -> Any:
    """A table of one context may say it as `context`; None is as good as left out."""
    if not isinstance(data, Mapping):
        return data
    given = {key: value for key, value in data.items() if value is not None}
    if "context" not in given:
        return given
    if "contexts" in given:
        raise ValueError("context and contexts say the same; leave one of them out")
    context = given.pop("context")
    return {**given, "contexts": (context,)}


def _brief(kept: dict[str, Any], contexts: Tokens) -> dict[str, Any]:
    """A table's fields as files hold them: one context as a number, none that there is not."""
    found = {key: value for key, value in kept.items() if value is not None and key != "contexts"}
    return {**found, **({"context": contexts[0]} if len(contexts) == 1 else {"contexts": contexts})}


def _increasing(table: Noun, names: tuple[str, ...]) -> None:
    for name in names:
        nodes = getattr(table, name)
        if list(nodes) != sorted(set(nodes)):
            raise ValueError(f"{name} of a table must increase")


def _growing(times: Array, sizes: int) -> Array:
    """The first `sizes` axes, of chunk and batch, at their end; the others, of what was read before, all along."""
    times = times.copy()
    for axis in range(sizes):
        along = np.moveaxis(times, axis, 0)
        along[-1] = along[-2:].max(axis=0)
    for axis in range(sizes, times.ndim):
        times = np.maximum.accumulate(times, axis=axis)
    return times


def _shaped(seconds: tuple[Any, ...], sizes: tuple[int, ...], *further: Tokens) -> None:
    """Refuse times that are not one for each node: axes of one value are left out of the rows."""
    shape = (*sizes, *(len(nodes) for nodes in further if len(nodes) > 1))
    try:
        times = np.array(seconds, dtype=np.float64)
    except (TypeError, ValueError):
        times = np.zeros(0)
    if times.shape != shape:
        raise ValueError(
            f"the seconds of a table must have {' x '.join(map(str, shape))} numbers: a row a chunk size, but in solo, "
            "in it a row or a time a batch size, then a row or a time for each of several contexts, and for each of "
            "several read_before"
        )
    if not (np.isfinite(times).all() and (times > 0.0).all()):
        raise ValueError("the seconds of a table must be greater than 0 and finite")
