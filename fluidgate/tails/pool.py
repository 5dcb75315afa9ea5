"""TTFT where a pool of GPUs reads one prompt each at a time, first come first served, and moves decodes where it likes.

The prompts are an M/G/n queue: a wait with Erlang's probability, exponential where there is one. What iterations add: a
GPU that decodes finishes its own before it takes a prompt, and so does the one that takes the decode, where the first
token comes. Slots are a queue of the same kind behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fluidgate.batching import Batching
from fluidgate.model import Array
from fluidgate.tails.density import Grid, back, transform
from fluidgate.tails.erlang import by_priority, erlang_c, mean_wait, peakedness
from fluidgate.tails.load import Load
from fluidgate.tails.operating import Engine, Operating

_STEPS = 100


@dataclass(frozen=True, eq=False)
class Wait:
    """A wait: with probability `chance` of mean `mean`, s; else none.

    Behind many servers it is exponential. Behind one it is that of Pollaczek and Khinchine: a geometric number of what
    is left of services.

    Attributes:
        load: of one server.
        services: and their weights, shape (2, services); None for many servers.
    """

    chance: float
    mean: float
    load: float = 0.0
    services: Array | None = None

    def masses(self, grid: Grid, otherwise: Array | None = None) -> Array:
        """On a grid; `otherwise` is the law of who need not wait."""
        none = grid.at(np.zeros(1)) if otherwise is None else otherwise
        return self.chance * self._waiting(grid) + (1.0 - self.chance) * none

    def _waiting(self, grid: Grid) -> Array:
        if self.services is None or self.load >= 1.0:
            return grid.exponential(self.mean)
        longer = np.cumsum(grid.at(*self.services)[::-1])[::-1]
        left = grid.mean_of(longer)
        rest = transform(grid.at(grid.times * (self.mean * (1.0 - self.load) / max(left, 1e-12)), longer))
        return back(rest * (1.0 - self.load) / (1.0 - self.load * rest))


@dataclass(frozen=True, eq=False)
class PoolQueue:
    """The queue of a pool with one prompt a GPU.

    Attributes:
        waits: for a GPU, of each class.
        slot: for a slot.
        busy: share of GPUs that decode and would have to finish an iteration.
        solo, mixed: s of iterations.
        seconds: of the prompts of each class, shape (requests,) each.
        ready: probability that fewer than two GPUs could start a prompt: a decode then runs beside one.
        sooner: probability that a new prompt starts where a decode is about to.
        at_the_end: whether the first token comes with the end of the prompt.
    """

    waits: tuple[Wait, ...]
    slot: Wait
    busy: float
    solo: float
    mixed: float
    seconds: tuple[Array, ...]
    ready: float
    sooner: float
    at_the_end: bool

    @staticmethod
    def of(
        load: Load, engine: Engine, point: Operating, gpus: int, arrival_square: float, order: Array | None
    ) -> PoolQueue:
        """The queue of `gpus` GPUs, each under `load`; classes in `order`, larger first, None for FCFS."""
        rate, n, z = load.total, float(gpus), peakedness(arrival_square)
        alone = engine.batching == Batching.PREFILL_FIRST
        beside = engine.times.beside(0.0 if alone else point.decodes)
        seconds = tuple(beside.prompts(r.reading, r.found, engine.tokens) for r in load.requests)
        share = load.rate / rate
        mean = float(share @ [s.mean() for s in seconds])
        square = float(share @ [(s * s).mean() for s in seconds])
        busy = -math.expm1(-point.decodes)
        residual = busy * point.solo / 2.0
        chance = 0.0
        for _ in range(_STEPS):
            offered = n * rate * (mean + (1.0 - chance) * residual)
            fresh = erlang_c(n, offered, z)
            if abs(fresh - chance) < 1e-9:
                break
            chance = 0.5 * (chance + fresh)
        wait = mean_wait(n, mean, rate * mean, arrival_square + square / mean**2 - 1.0)
        factors = np.ones(len(share)) if order is None else by_priority(load.rate * [s.mean() for s in seconds], order)
        single = None
        if gpus == 1:
            weights = np.concatenate([np.full(len(s), p / len(s)) for s, p in zip(seconds, share, strict=True)])
            single = np.stack([np.concatenate(seconds), weights])
        startable = max(n - offered, 1e-3)
        return PoolQueue(
            waits=tuple(Wait(chance, wait * float(factor), rate * mean, single) for factor in factors),
            slot=slot_wait(load, engine, point, gpus, arrival_square, seconds),
            busy=busy,
            solo=point.solo,
            mixed=point.mixed,
            seconds=seconds,
            ready=_at_most_one(n, offered),
            at_the_end=alone,
            sooner=-math.expm1(-n * rate * (1.0 - chance) * residual / startable),
        )

    def ttft(self, cls: int, grid: Grid) -> Array:
        """Masses of the TTFT of a class."""
        residual = self.busy * grid.uniform(0.0, self.solo) + (1.0 - self.busy) * grid.at(np.zeros(1))
        parts = [self.waits[cls].masses(grid, residual), self.slot.masses(grid), grid.at(self.seconds[cls])]
        return grid.sum_of(*parts) if self.at_the_end else grid.sum_of(*parts, self._first_token(grid))

    def _first_token(self, grid: Grid) -> Array:
        """Masses from the end of the prompt to the first token."""
        beside = grid.uniform(self.mixed, 2.0 * self.mixed)
        after_prompt = self._ended(grid, self.mixed)
        alone = self._ended(grid, self.solo)
        return self.ready * beside + (1.0 - self.ready) * (self.sooner * after_prompt + (1.0 - self.sooner) * alone)

    def _ended(self, grid: Grid, iteration: float) -> Array:
        """An iteration, after the one that is under way."""
        return self.busy * grid.uniform(iteration, iteration + self.solo) + (1.0 - self.busy) * grid.at(
            np.array([iteration])
        )

    def longest(self, cls: int) -> float:
        """s, that hardly any TTFT of a class exceeds."""
        waits = 14.0 * self.waits[cls].mean * min(1.0, 0.3 + self.waits[cls].chance)
        slots = 14.0 * self.slot.mean if self.slot.chance > 1e-4 else 0.0
        return waits + slots + float(self.seconds[cls].max()) + 4.0 * (self.solo + self.mixed)


def _at_most_one(servers: float, offered: float) -> float:
    """Probability that at most one of the GPUs could start a prompt; those that read are about Poisson, cut at n."""
    from scipy.special import gammaincc, pdtr

    whole = float(gammaincc(servers + 1.0, offered))
    below = float(pdtr(max(math.floor(servers) - 2.0, 0.0), offered)) if servers >= 2.0 else 0.0
    return min(max(1.0 - below / whole if whole > 1e-280 else 1.0, 0.0), 1.0)


def slot_wait(
    load: Load, engine: Engine, point: Operating, gpus: int, arrival_square: float, seconds: tuple[Array, ...]
) -> Wait:
    """The wait for a slot of the pool: a queue of as many servers as slots, or as memory has room for."""
    rate, slots = load.total, gpus * min(float(engine.most), float(engine.batch_size))
    mean = square = 0.0
    for own, each, read in zip(load.rate, load.requests, seconds, strict=True):
        held = read + point.mixed + np.maximum(each.output - engine.skipped, 0.0) * point.tpot
        mean += own * float(held.mean()) / rate
        square += own * float((held * held).mean()) / rate
    offered = gpus * rate * mean
    if offered >= slots:
        return Wait(1.0, math.inf)
    chance = erlang_c(slots, offered, peakedness(arrival_square))
    return Wait(chance, mean_wait(slots, mean, offered / slots, arrival_square + square / mean**2 - 1.0))
