"""The prompt tokens that wait for a GPU with a budget of them an iteration: a Markov chain at the ends of iterations.

Of `Q` tokens an iteration reads `min(Q, K)`, and takes as long as that asks; what arrives meanwhile is compound
Poisson. The chain is solved on a grid of tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fluidgate.model import Array
from fluidgate.tails.load import Load
from fluidgate.tails.operating import Engine, Operating, mean_read
from fluidgate.tails.times import Beside

LEVELS = 320
"""Of the grid."""
_PARTS = 48
"""Of a budget, where the queue is short enough."""
_REACH = 10.0
"""Decay lengths of the queue that the grid holds."""
_LEAST_DISPERSION = 0.1


@dataclass(frozen=True, eq=False)
class TokenQueue:
    """Tokens that wait as an iteration of a GPU begins.

    Attributes:
        unit: tokens of a level.
        size: levels that an iteration reads, K.
        tokens: K itself.
        chance: of each level, over iterations, shape (LEVELS,).
        seconds: of the iteration that begins there, shape (LEVELS,).
        beside: iterations beside the decodes.
        read: tokens of its prompt that a token of a chunk finds read.
        prompts: transforms of the law of a prompt over the grid, of each class.
        rate: requests/s of each class.
        dispersion: variance of their number over its mean.
        pooled: GPUs that share the queue: their iterations end one after the other.
    """

    unit: float
    size: int
    tokens: float
    chance: Array
    seconds: Array
    beside: Beside
    read: float
    prompts: tuple[Array, ...]
    rate: Array
    dispersion: float
    pooled: int

    @staticmethod
    def of(load: Load, engine: Engine, point: Operating, arrival_square: float, pooled: int) -> TokenQueue:
        """The queue of a GPU under `load`, or of one of `pooled` that share it."""
        tokens = engine.chunk(point.decodes)
        beside, read = engine.times.beside(point.decodes), mean_read(load, tokens)
        mean = load.prompt_rate / load.total
        square = float(load.rate @ [r.reading_square for r in load.requests]) / load.total
        decay = (square / mean + (arrival_square - 1.0) * mean) / (2.0 * max(1.0 - point.load, 0.02))
        most = max(4.0 * tokens, tokens + _REACH * max(decay, mean))
        unit = min(max(most / LEVELS, tokens / _PARTS), tokens)
        size = max(round(tokens / unit), 1)
        unit = tokens / size
        prompts = tuple(_transform(r.reading / unit) for r in load.requests)
        dispersion = max(arrival_square, _LEAST_DISPERSION)
        chunk = np.minimum(np.arange(LEVELS), size)
        own = np.where(chunk > 0, beside.seconds(np.maximum(chunk * unit, 1.0), read), point.solo)
        queue = TokenQueue(
            unit, size, tokens, np.zeros(LEVELS), own, beside, read, prompts, load.rate, dispersion, pooled
        )
        arrivals = np.array([queue.arriving(float(own[c])) for c in range(size + 1)])
        masses = np.fft.irfft(arrivals, 2 * LEVELS)[:, :LEVELS]
        chain = np.zeros((LEVELS, LEVELS))
        for level in range(LEVELS):
            read_now = min(level, size)
            left = level - read_now
            chain[level, left:] = np.maximum(masses[read_now, : LEVELS - left], 0.0)
        chain[:, -1] += np.maximum(1.0 - chain.sum(axis=1), 0.0)
        return TokenQueue(
            unit, size, tokens, _stationary(chain, size), own, beside, read, prompts, load.rate, dispersion, pooled
        )

    def arriving(self, seconds: float) -> Array:
        """Transform of the law of the tokens that arrive in some time."""
        rate = float(self.rate.sum())
        prompt = sum(r * p for r, p in zip(self.rate / rate, self.prompts, strict=True))
        if self.dispersion >= 1.0:
            group = 0.5 * (1.0 + self.dispersion)  # of a geometric number of requests that arrive together
            together = prompt / (group - (group - 1.0) * prompt)
            known = np.exp(rate * seconds / group * (together - 1.0))
            varied = 1.0 / (1.0 - rate * seconds / group * (together - 1.0))
        else:
            trials = max(math.ceil(rate * seconds / (1.0 - self.dispersion)), 1)  # a whole number, or it is no law
            known = (1.0 + rate * seconds / trials * (prompt - 1.0)) ** trials
            varied = 1.0 / (1.0 - rate * seconds * (prompt - 1.0))
        return np.asarray((known + (self.pooled - 1.0) * varied) / self.pooled)

    @property
    def ahead(self) -> Array:
        """Transform of the law of the tokens of those who arrive together with a request, before it."""
        group = 0.5 * (1.0 + self.dispersion)
        if group <= 1.0:
            return np.ones(LEVELS + 1)
        rate = float(self.rate.sum())
        prompt = sum(r * p for r, p in zip(self.rate / rate, self.prompts, strict=True))
        return np.asarray(1.0 / (group - (group - 1.0) * prompt))

    def read_within(self, levels: Array, behind: float) -> Array:
        """Seconds until so many levels are read, `behind` tokens going along in the last iteration."""
        full = np.floor(levels / self.size + 1e-9)
        rest = levels - full * self.size
        whole = float(self.beside.seconds(self.tokens, self.read))
        last = np.minimum(rest * self.unit + behind, self.tokens)
        return np.asarray(
            full * whole + np.where(rest > 1e-6, self.beside.seconds(np.maximum(last, 1.0), self.read), 0)
        )


def _transform(levels: Array) -> Array:
    """Transform of the law of some levels, those beyond the grid at its end."""
    place = np.clip(levels, 0.0, LEVELS - 1.0)
    low = np.minimum(place.astype(np.int64), LEVELS - 2)
    share = place - low
    masses = np.bincount(low, 1.0 - share, LEVELS) + np.bincount(low + 1, share, LEVELS)
    return np.asarray(np.fft.rfft(masses / len(levels), 2 * LEVELS))


def _stationary(chain: Array, most_down: int) -> Array:
    """The stationary law of a chain that falls by so many levels at most, without subtractions.

    W. K. Grassmann, M. I. Taksar, D. P. Heyman, Regenerative analysis and steady state distributions for Markov chains,
    Operations Research 33(5), 1985. States are left out from the highest down; each returns to those below it.
    """
    size = len(chain)
    for k in range(size - 1, 0, -1):
        low = max(k - most_down, 0)
        down = chain[k, low:k]
        chain[:k, k] /= down.sum()
        chain[:k, low:k] += chain[:k, k, None] * down
    found = np.zeros(size)
    found[0] = 1.0
    for k in range(1, size):
        found[k] = found[:k] @ chain[:k, k]
    return np.asarray(found / found.sum())


def all_read(servers: float, offered: float, together: float) -> float:
    """Probability that each of the GPUs reads, where one that ends takes as many who wait as its budget holds.

    M/M[L]/n: `sum over q of a^n/n! r^q` against the states with fewer, `r` the root of `n r^(L+1) - (a + n) r + a = 0`
    (for L = 1 Erlang's C).

    Args:
        servers: n.
        offered: a, prompts that would be read at a time were each alone in its iterations.
        together: L, prompts that a budget holds.
    """
    from fluidgate.tails.erlang import erlang_b

    together = max(together, 1.0)
    if offered >= servers * together:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        r = 0.5 * (low + high)
        # dividing out the root r = 1: n r (1 + ... + r^(L-1)) = a
        series = together if r >= 1.0 - 1e-12 else r * (1.0 - r**together) / (1.0 - r)
        low, high = (r, high) if servers * series < offered else (low, r)
    blocked = erlang_b(servers, offered)
    if blocked <= 0.0:
        return 0.0
    return 1.0 / (1.0 + (1.0 - r) * (1.0 / blocked - 1.0))


def boundary_between(gpus: int, seconds: float, points: int) -> tuple[Array, Array]:
    """When the first of several GPUs ends its iteration, each somewhere within one of `seconds`: times and weights."""
    share = (np.arange(points) + 0.5) / points
    return seconds * (1.0 - (1.0 - share) ** (1.0 / gpus)), np.full(points, 1.0 / points)
