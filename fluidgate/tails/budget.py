"""TTFT where GPUs fill a budget of tokens with decodes first, then with chunks of as many prompts as it holds.

Placed on a GPU as it arrives, a request waits there for the end of the iteration under way and for the tokens before
it. Where GPUs share a queue, one that reads nothing takes it at once; while all read it waits for the first to end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammainc

from fluidgate.model import Array
from fluidgate.tails.density import POINTS, Grid, back, transform
from fluidgate.tails.erlang import peakedness
from fluidgate.tails.load import Load
from fluidgate.tails.operating import Engine, Operating
from fluidgate.tails.pool import Wait, slot_wait
from fluidgate.tails.tokens import LEVELS, TokenQueue, all_read, boundary_between

_ELAPSED = (np.polynomial.legendre.leggauss(4)[0] + 1.0) / 2.0
_WEIGHTS = np.polynomial.legendre.leggauss(4)[1] / 2.0
_ELAPSED_IN_POOL = np.array([0.5 - 0.5 / math.sqrt(3.0), 0.5 + 0.5 / math.sqrt(3.0)])
_SHORT = 2
"""Iterations, or mean prompts, of a queue that one prompt makes; longer ones are of several."""
_GROUPS, _GROUPS_IN_POOL = 5, 3
"""Of iterations by their length, each with its mean."""


@dataclass(frozen=True, eq=False)
class Under:
    """An iteration that a request finds under way.

    Attributes:
        chance: that it does.
        seconds: of the iteration.
        left: law of the levels that it leaves, as a transform.
    """

    chance: float
    seconds: float
    left: Array


@dataclass(frozen=True, eq=False)
class BudgetQueue:
    """The wait, the reading, and what happens to a request under a budget.

    Attributes:
        queue: of tokens.
        under: iterations that a request finds.
        slot: wait for a slot.
        taken: probability that a GPU of the pool reads nothing, and takes the request at once; 0 for one GPU.
        gpus: that share the queue.
        solo: s of an iteration without a chunk; `busy`, share of GPUs that decode.
        alone: seconds in which the prompts of each class are read by themselves, shape (requests,) each.
        mean_prompt: tokens.
        square: squared CV of the gaps between arrivals at the line.
    """

    queue: TokenQueue
    under: tuple[Under, ...]
    slot: Wait
    taken: float
    gpus: int
    solo: float
    busy: float
    alone: tuple[Array, ...]
    mean_prompt: float
    square: float

    @staticmethod
    def of(load: Load, engine: Engine, point: Operating, gpus: int, arrival_square: float, sharing: int) -> BudgetQueue:
        """The queue of a GPU (`gpus` 1), or of as many that share it; slots are those of as many as are `sharing`."""
        queue = TokenQueue.of(load, engine, point, arrival_square, gpus)
        beside = engine.times.beside(point.decodes)
        alone = tuple(beside.prompts(r.reading, r.found, queue.tokens) for r in load.requests)
        mean = float(load.rate @ [s.mean() for s in alone])
        busy = float(-np.expm1(-point.decodes))
        taken = 0.0
        if gpus > 1:
            prompts = load.prompt_rate / load.total
            z = peakedness(arrival_square)
            taken = 1.0 - all_read(gpus / z, gpus * mean / z, queue.tokens / prompts)
        return BudgetQueue(
            queue=queue,
            under=_under_way(queue, busy, _meets(load, alone, arrival_square), gpus, load.prompt_rate / load.total),
            slot=slot_wait(load, engine, point, sharing, arrival_square, alone),
            taken=taken,
            gpus=gpus,
            solo=point.solo,
            busy=busy,
            alone=alone,
            mean_prompt=load.prompt_rate / load.total,
            square=max(arrival_square, 1e-3),
        )

    def ttft(self, cls: int, grid: Grid) -> Array:
        """Masses of the TTFT of a class."""
        found = np.zeros(POINTS)
        if self.taken > 0.0:
            residual = self.busy * grid.uniform(0.0, self.solo) + (1.0 - self.busy) * grid.at(np.zeros(1))
            found += self.taken * grid.sum_of(residual, grid.at(self.alone[cls]))
        if self.taken < 1.0 - 1e-9:
            found += (1.0 - self.taken) * self._queued(cls, grid)
        return grid.sum_of(found, self.slot.masses(grid)) if self.slot.chance > 1e-6 else found

    def _queued(self, cls: int, grid: Grid) -> Array:
        """Masses where the request finds a queue, or a GPU that it must wait for."""
        queue, found, product = self.queue, np.zeros(POINTS), np.zeros(POINTS + 1, complex)
        times, weights = (_ELAPSED, _WEIGHTS) if self.gpus == 1 else (_ELAPSED_IN_POOL, np.full(2, 0.5))
        levels, prompt = np.arange(LEVELS, dtype=float), queue.prompts[cls]
        rate = float(queue.rate.sum())
        for under in self.under:
            for elapsed, weight in zip(times, weights, strict=True):
                before = self._met_in(elapsed * under.seconds)
                after = self._met_in((1.0 - elapsed) * under.seconds)
                ahead = under.left * queue.arriving(before) * queue.ahead
                behind = self.mean_prompt * rate * after
                if self.gpus == 1:
                    masses = np.maximum(np.fft.irfft(ahead * prompt, 2 * LEVELS)[:LEVELS], 0.0)
                    ends = (1.0 - elapsed) * under.seconds + queue.read_within(levels, behind)
                    found += under.chance * weight * grid.at(ends, masses)
                else:
                    product = product + under.chance * weight * self._from_pool(
                        ahead, prompt, behind, under.seconds, grid
                    )
        if self.gpus > 1:
            return back(product)
        return np.asarray(found / found.sum())

    def _met_in(self, seconds: float) -> float:
        """Seconds by chance in which as many arrive as so soon before or after a request: fewer come where gaps are
        regular.
        """
        offered = float(self.queue.rate.sum()) * seconds
        if self.gpus > 1 or self.square >= 1.0 or offered <= 0.0:
            return seconds
        return seconds * float(gammainc(1.0 / self.square, offered / self.square)) / -math.expm1(-offered)

    def _from_pool(self, ahead: Array, prompt: Array, behind: float, seconds: float, grid: Grid) -> Array:
        """Transform where all GPUs read: the first to end takes who waits, as many as it has room for, and so on."""
        queue, levels = self.queue, np.arange(LEVELS)
        waiting = np.maximum(np.fft.irfft(ahead, 2 * LEVELS)[:LEVELS], 0.0)
        boundaries = levels // queue.size
        share = np.bincount(levels % queue.size, waiting, LEVELS)
        own = np.fft.irfft(np.fft.rfft(share, 2 * LEVELS) * prompt, 2 * LEVELS)[:LEVELS]
        first, chance = boundary_between(self.gpus, seconds, 16)
        whole = float(queue.beside.seconds(queue.tokens, queue.read))
        wait = grid.at(boundaries * whole / self.gpus, waiting)
        reading = grid.at(queue.read_within(levels.astype(float), behind), np.maximum(own, 0.0))
        return transform(grid.at(first, chance)) * transform(wait) * transform(reading)

    def longest(self, cls: int) -> float:
        """s, that hardly any TTFT of a class exceeds."""
        queue = self.queue
        far = float(np.searchsorted(np.cumsum(queue.chance), 1.0 - 1e-6)) * queue.unit
        whole = float(queue.beside.seconds(queue.tokens, queue.read))
        slots = 14.0 * self.slot.mean if self.slot.chance > 1e-4 else 0.0
        return slots + (far / queue.tokens + 4.0) * whole + 2.0 * float(self.alone[cls].max())


def _meets(load: Load, alone: tuple[Array, ...], arrival_square: float) -> float:
    """How much more often than by chance a request comes while the one before it is read, with Gamma gaps."""
    shape = 1.0 / max(arrival_square, 1e-3)
    met = by_chance = 0.0
    for rate, seconds in zip(load.rate, alone, strict=True):
        offered = load.total * seconds[:: max(len(seconds) // 64, 1)]
        met += rate * float(gammainc(shape, shape * offered).mean())
        by_chance += rate * float(-np.expm1(-offered).mean())
    return met / by_chance


def _under_way(queue: TokenQueue, busy: float, meets: float, gpus: int, mean_prompt: float) -> tuple[Under, ...]:
    """The iterations that requests find, in groups: those without a chunk, and the others by their length.

    A share `busy` of the GPUs that read nothing decode; the others begin at once.
    """
    chance = queue.chance * queue.seconds
    if gpus == 1 and chance[0] > 0.0:
        whole, few = (
            float(chance.sum()),
            slice(1, max(_SHORT * queue.size, math.ceil(_SHORT * mean_prompt / queue.unit))),
        )
        first = float(chance[few].sum())
        moved = min(max(float(chance[1:].sum()) * (meets - 1.0), -0.8 * first), 0.5 * float(chance[0]))
        chance[few] *= 1.0 + moved / max(first, 1e-300)
        chance[0] = max(whole - float(chance[1:].sum()), 0.0)
    levels = np.arange(LEVELS)
    left = np.maximum(levels - queue.size, 0)
    found = []
    if gpus == 1:
        nothing = _law(left[:1], np.ones(1))
        found.append(Under(busy * float(chance[0]), float(queue.seconds[0]), nothing))
        found.append(Under((1.0 - busy) * float(chance[0]), 0.0, nothing))
    mixed = chance[1:]
    below = np.cumsum(mixed) - 0.5 * mixed
    groups = _GROUPS if gpus == 1 else _GROUPS_IN_POOL
    group = np.minimum((below / max(float(mixed.sum()), 1e-300) * groups).astype(int), groups - 1)
    for k in range(groups):
        here = np.flatnonzero(group == k) + 1
        weight = chance[here]
        if weight.sum() > 0.0:
            seconds = float(weight @ queue.seconds[here] / weight.sum())
            found.append(Under(float(weight.sum()), seconds, _law(left[here], weight)))
    total = sum(each.chance for each in found)
    return tuple(Under(each.chance / total, each.seconds, each.left) for each in found)


def _law(levels: Array, weights: Array) -> Array:
    masses = np.bincount(levels.astype(int), weights, LEVELS)
    total = float(masses.sum())
    return np.asarray(np.fft.rfft(masses / total if total > 0.0 else np.eye(1, LEVELS)[0], 2 * LEVELS))
