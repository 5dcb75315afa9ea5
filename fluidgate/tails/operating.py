"""Where a GPU stands under its load: the decodes in its batch, the shares of its iterations, the mean TPOT.

All are fixed points of `t`, the mean time between two tokens of a request, as decodes feel it: `b = t` times the decode
tokens of a second run beside each other, and each of them meets the others beside itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fluidgate.batching import Batching
from fluidgate.model import Array
from fluidgate.tails.load import Load, Requests
from fluidgate.tails.times import Times, full_chunks

_STEPS = 400
_SAME = 1e-7
_LEAST_REST = 0.2
_MOST_ELASTIC = 0.8
_NODES = 7
"""Of the number of decodes, between which mean times of prompts are straight."""


@dataclass(frozen=True)
class Engine:
    """What a GPU is to the theory.

    Attributes:
        times: of its iterations.
        batching: how it forms a batch.
        tokens: of an iteration: the chunk C, or the budget.
        batch_size: B.
        most: decodes that it has slots and memory for.
        ranks: that step together.
    """

    times: Times
    batching: Batching
    tokens: int
    batch_size: int
    most: float
    ranks: int = 1

    @property
    def skipped(self) -> int:
        """Tokens of an output that no decode iteration brings: the first, where it comes with the last chunk."""
        return 0 if self.batching == Batching.SINGLE_PREFILL else 1

    @property
    def budgeted(self) -> bool:
        """Whether decodes and prompts share the tokens of an iteration."""
        return self.batching in (Batching.TOKEN_BUDGET, Batching.LAST_SCHEDULABLE)

    def chunk(self, decodes: float) -> float:
        """Prompt tokens of an iteration beside so many decodes, at most."""
        if self.budgeted:
            return max(self.tokens - decodes, 1.0)
        return float(self.tokens)


@dataclass(frozen=True, eq=False)
class Reading:
    """What reading prompts takes, each alone in its iterations, over the number of decodes beside.

    Attributes:
        batches: decodes, shape (b,).
        seconds, chunks: mean of each class, shape (b, classes).
    """

    batches: Array
    seconds: Array
    chunks: Array

    @staticmethod
    @lru_cache(maxsize=64)
    def of(requests: tuple[Requests, ...], engine: Engine) -> Reading:
        """Of the prompts of some classes."""
        batches = np.unique(np.append(np.linspace(0.0, engine.batch_size, _NODES), 1.0))
        seconds, chunks = [], []
        for b in batches:
            beside, size = engine.times.beside(float(b)), engine.chunk(float(b))
            few = [each.few for each in requests]
            seconds.append([float(beside.prompts(r.reading, r.found, size).mean()) for r in few])
            chunks.append([float(_chunks(r.reading, size).mean()) for r in few])
        return Reading(batches, np.array(seconds), np.array(chunks))

    def at(self, decodes: float) -> tuple[Array, Array]:
        """Seconds and chunks of each class, shape (classes,) both."""
        k = min(max(int(np.searchsorted(self.batches, decodes, side="right")) - 1, 0), len(self.batches) - 2)
        share = min(max((decodes - self.batches[k]) / (self.batches[k + 1] - self.batches[k]), 0.0), 1.0)
        return (
            self.seconds[k] + share * (self.seconds[k + 1] - self.seconds[k]),
            self.chunks[k] + share * (self.chunks[k + 1] - self.chunks[k]),
        )


def _chunks(reading: Array, size: float) -> Array:
    full, rest = full_chunks(reading, size)
    return full + (rest > 0.0)


@dataclass(frozen=True, eq=False)
class Operating:
    """Where a GPU stands.

    Attributes:
        tpot: mean seconds between two tokens of a request, t.
        decodes: in its batch, on average, b.
        mixed_share: of its iterations, with a chunk.
        solo, mixed: seconds of an iteration without a chunk and with one.
        slope: what another decode adds to `tpot` in the end, s: longer iterations meet more prompts.
        prompts: mean seconds in which a prompt of each class is read, shape (classes,).
        load: prompt tokens, or the time that reading takes, over what there is room for.
        slots: decodes over those that it has slots and memory for.
    """

    tpot: float
    decodes: float
    mixed_share: float
    solo: float
    mixed: float
    slope: float
    prompts: Array
    load: float
    slots: float

    @property
    def elasticity(self) -> float:
        """By how many percent `tpot` grows with a percent more decodes, under 1."""
        return min(self.slope * self.decodes / self.tpot, _MOST_ELASTIC)

    def batch_variance(self, arrival_square: float, shared: int) -> float:
        """Variance of the decodes of a GPU, averaged over those behind a line."""
        return self.decodes * (1.0 + arrival_square) / 2.0 / (1.0 - self.elasticity) / shared

    @property
    def stable(self) -> bool:
        """Whether it serves all that comes."""
        return max(self.load, self.slots) < 1.0


def operating(load: Load, engine: Engine, pooled: int, arrival_square: float = 1.0) -> Operating:
    """The least fixed point; of more load than can be served one with `load` or `slots` of 1 or more.

    Args:
        load: of a GPU.
        pooled: GPUs that share a queue, so that a prompt goes where none is read.
        arrival_square: squared CV of the gaps between arrivals at that queue.
    """
    reading = Reading.of(load.requests, engine)
    found = _fixed_point(load, engine, reading, pooled, 1.0)
    if not found.stable:
        return found
    together = (1.0 + arrival_square) / 2.0 / (1.0 - found.elasticity)
    beside = max(1.0 + (together - 1.0) / pooled, 0.0)
    return _fixed_point(load, engine, reading, pooled, beside)


def serves(load: Load, engine: Engine, pooled: int) -> bool:
    """Whether a GPU serves all that comes."""
    return _fixed_point(load, engine, Reading.of(load.requests, engine), pooled, 1.0).stable


def _fixed_point(load: Load, engine: Engine, reading: Reading, pooled: int, met: float) -> Operating:
    """The fixed point where a decode meets `met` others, itself among them, beyond the mean number."""
    step = _iteration_of(load, engine, reading, pooled, met)
    tokens = load.decode_rate(engine.skipped)
    t = engine.times.alone(1.0)
    top = 4.0 * (engine.batch_size + 1.0) / tokens if tokens > 0.0 else math.inf
    for _ in range(_STEPS):
        fresh = step(t)[0]
        if fresh > top:
            t = math.inf
            break
        if abs(fresh - t) <= _SAME * t:
            break
        t = fresh
    decodes = min(t * tokens, float(engine.batch_size))
    seconds, _ = reading.at(decodes)
    if engine.batching == Batching.PREFILL_FIRST:
        seconds, _ = reading.at(0.0)
    if math.isinf(t):
        return Operating(t, decodes, 1.0, t, t, 0.0, seconds, _load(load, engine, seconds, decodes), math.inf)
    found, share, solo, mixed = step(t)
    more = max(step(t, 1.0)[0] - found, 0.0) / max(1.0 - share * (mixed - solo) / found, _LEAST_REST)
    return Operating(
        tpot=found,
        decodes=decodes,
        mixed_share=share,
        solo=solo,
        mixed=mixed,
        slope=more,
        prompts=seconds,
        load=_load(load, engine, seconds, decodes),
        slots=t * tokens / engine.most,
    )


def drifted(load: Load, engine: Engine, point: Operating, decodes: float, most_load: float) -> Operating:
    """Where a GPU stands while its batch is another than on average: at most one of that load."""
    low, high = point.decodes, min(max(decodes, 0.0), float(engine.batch_size))
    found = _with_batch(load, engine, point, high)
    if found.load <= max(most_load, point.load):
        return found
    for _ in range(12):
        middle = 0.5 * (low + high)
        found = _with_batch(load, engine, point, middle)
        low, high = (middle, high) if found.load <= max(most_load, point.load) else (low, middle)
    return _with_batch(load, engine, point, low)


def _with_batch(load: Load, engine: Engine, point: Operating, decodes: float) -> Operating:
    at = 0.0 if engine.batching == Batching.PREFILL_FIRST else decodes
    seconds, _ = Reading.of(load.requests, engine).at(at)
    solo = engine.times.alone(1.0 + decodes)
    return replace(
        point,
        decodes=decodes,
        solo=solo,
        mixed=point.mixed * solo / point.solo,
        prompts=seconds,
        load=_load(load, engine, seconds, decodes),
    )


def _load(load: Load, engine: Engine, seconds: Array, decodes: float) -> float:
    """Of reading: the share of time that it takes, or under a budget what full iterations would leave of it."""
    if engine.budgeted:
        size = engine.chunk(decodes)
        return load.prompt_rate * float(engine.times.beside(decodes).seconds(size, mean_read(load, size))) / size
    return float(load.rate @ seconds)


def mean_read(load: Load, size: float) -> float:
    """Tokens of its prompt that a token of a chunk finds read, on average."""
    pairs = 0.0
    for rate, each in zip(load.rate, load.requests, strict=True):
        few = each.few
        full, rest = full_chunks(few.reading, size)
        own = size * size * full * (full - 1.0) / 2.0 + rest * full * size
        pairs += rate * float((own + few.found * few.reading).mean())
    return pairs / load.prompt_rate if load.prompt_rate > 0.0 else 0.0


Step = Callable[..., tuple[float, float, float, float]]


def _iteration_of(load: Load, engine: Engine, reading: Reading, pooled: int, met: float) -> Step:
    """`step(t, more=0)`: the mean iteration where decodes are `t` apart and `met + more` run beside the mean, the share
    of mixed ones, and the times of both kinds, s."""
    tokens, most, times = load.decode_rate(engine.skipped), float(engine.batch_size), engine.times
    first = times.mixed[0, 0]

    def step(t: float, more: float = 0.0) -> tuple[float, float, float, float]:
        decodes = min(met + t * tokens, most) + more
        solo = times.alone(decodes)
        if engine.batching == Batching.PREFILL_FIRST:
            seconds, chunks = reading.at(0.0)
            busy = min(float(load.rate @ seconds), 1.0 - 1e-6)
            apart = float(load.rate @ chunks)
            mixed = busy / apart if apart > 0.0 else 0.0
            return solo / (1.0 - busy), min(t * apart, 1.0), solo, mixed
        seconds, chunks = reading.at(min(decodes, most - 1.0))
        own = t * float(load.rate @ chunks)
        if own <= 0.0:
            return solo, 0.0, solo, solo
        alone = t * float(load.rate @ seconds)
        share = min(own, 1.0)
        if engine.budgeted:
            by_chance = -math.expm1(-own)
            share = by_chance + (share - by_chance) * (1.0 - 1.0 / pooled)
            alone -= (own - share) * float(np.interp(decodes, times.batches, first))
        elif own > 1.0:
            alone /= own
        mixed = alone / share
        if engine.ranks > 1:
            share = 1.0 - (1.0 - share) ** engine.ranks
        return (1.0 - share) * solo + share * mixed, share, solo, mixed

    return step
