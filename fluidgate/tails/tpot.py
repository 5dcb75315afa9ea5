"""How TPOT spreads over requests.

A request of `m` gaps between tokens lasts about `m t`. Four things make its mean gap differ from `t`:

- prompts that are read beside it: iterations with a chunk come in runs, of a prompt's chunks and of prompts that follow
  each other, so the request meets about `m/run` runs or gaps between them. For short outputs their number is binomial,
  and chunks differ, by a Gamma law; for long ones the sum is normal, of the variance of a compound Poisson process;
- where it begins: a run takes longer than as many gaps without a chunk, so that requests more often begin in one;
- prompts that came in the same burst: with gaps of squared CV `c^2` another `(c^2 - 1)/2` follow it soon, shared by the
  GPUs of a pool; fewer where arrivals are more regular than Poisson;
- the batch: decodes on a GPU vary, `Var b = b (1 + c^2)/2 / (1 - e)`, `e` the elasticity of an iteration in them (a
  longer iteration keeps its decodes longer). Averaged over the request this shrinks by `2 (x - 1 + exp(-x))/x^2`,
  `x` the request's length over the time in which the batch changes, `D t/(1 - e)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from fluidgate.batching import Batching
from fluidgate.model import Array
from fluidgate.tails.density import Grid
from fluidgate.tails.load import Load, Requests
from fluidgate.tails.operating import Engine, Operating

_OUTPUTS = 128
"""Output lengths of a class that stand for all."""
_FEW = 16
"""Runs of chunks that a request may meet, up to which they are counted one by one."""
_NODES, _WEIGHTS = (np.array(each) for each in np.polynomial.hermite_e.hermegauss(7))
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Spread:
    """What makes TPOT differ between requests of as many gaps.

    Attributes:
        tpot: mean, s.
        solo: s of a gap without a chunk beside it.
        share: of the gaps, with a chunk.
        extra, extra_square: what a chunk adds to a gap, s, and its mean square, s^2.
        most: what it adds at most, s.
        run: gaps with a chunk that follow each other.
        compound: variance that prompts add for each gap of a long request, s^2.
        mates: prompts of the same burst that a request meets, more than by chance.
        mate: what one adds, s; `soon`, s in which they come.
        batch: variance of the iteration time by the batch, s^2.
        lasting: s, in which the batch changes.
        stalls: whether a gap holds any number of prompts, which run alone; else at most a chunk.
    """

    tpot: float
    solo: float
    share: float
    extra: float
    extra_square: float
    most: float
    run: float
    compound: float
    mates: float
    mate: float
    soon: float
    batch: float
    lasting: float
    stalls: bool

    @property
    def share_of_time(self) -> float:
        """Share of the time in gaps with a chunk: what a request meets that comes in the middle of a run."""
        return self.share * (self.solo + self.extra) / (self.solo + self.share * self.extra)

    @staticmethod
    def of(load: Load, engine: Engine, point: Operating, arrival_square: float, shared: int) -> Spread:
        """
        Args:
            arrival_square: squared CV of the gaps between arrivals at a line.
            shared: GPUs behind it.
        """
        alone = engine.batching == Batching.PREFILL_FIRST
        beside, size = engine.times.beside(0.0 if alone else point.decodes), engine.chunk(point.decodes)
        solo = 0.0 if alone else point.solo  # a prompt that runs alone adds all of its time to a gap
        chunks = squares = added = added_square = 0.0
        for part, each in zip(load.rate / load.total, load.requests, strict=True):
            few = each.few
            number = np.ones(len(few.reading)) if alone else np.ceil(few.reading / size)
            seconds = np.maximum(beside.prompts(few.reading, few.found, size) - number * solo, 0.0)
            chunks += part * float(number.mean())
            squares += part * float((number**2).mean())
            added += part * float(seconds.mean())
            added_square += part * float((seconds**2).mean())
        extra = added / chunks
        gap = max(point.tpot - point.solo, 0.0)
        share = min(gap / extra, 0.98) if extra > 0.0 else 0.0
        dispersion = max(1.0 + (arrival_square - 1.0) / shared, 0.2)
        follows = min(share ** math.sqrt(shared), 0.95)
        _, output = load.decoding(engine.skipped)
        varied = point.decodes * (1.0 + (arrival_square - 1.0) / (2.0 * shared)) / (1.0 - point.elasticity)
        return Spread(
            tpot=point.tpot,
            solo=point.solo,
            share=share,
            extra=extra,
            extra_square=added_square / squares,
            most=float(beside.seconds(load.longest if alone else size)) - solo,
            run=squares / chunks * max(dispersion, 1.0) / (1.0 - follows),
            compound=share / chunks * (added_square + (dispersion - 1.0) * added**2),
            mates=(arrival_square - 1.0) / 2.0 / shared,
            mate=added,
            soon=max(arrival_square, 1.0) / (load.total * shared),
            batch=point.slope**2 * max(varied, 0.0),
            lasting=output * point.tpot / (1.0 - point.elasticity),
            stalls=alone,
        )

    def sums(self, gaps: Array, weights: Array) -> tuple[Array, Array, Array]:
        """Times of so many gaps together: for each a few, s, with their weights and the gaps they are of, flat."""
        last = gaps * self.tpot
        x = np.maximum(last / self.lasting, 1e-6)
        shrunk = np.where(x > 1e-3, 2.0 * (x + np.expm1(-x)) / x**2, 1.0 - x / 3.0)
        batch = self.batch * shrunk * gaps**2
        mates = self.mates * -np.expm1(-last / self.soon)
        first = (self.share_of_time - self.share) * np.maximum(np.minimum(gaps, self.run) - 1.0, 0.0)
        added = np.maximum(self.extra * (self.share * gaps + first) + mates * self.mate, 0.0)
        if self.stalls:
            runs = np.where(added < 0.5 * _FEW * self.extra, float(_FEW), _FEW + 1.0)
        else:
            added = np.minimum(added, 0.98 * self.extra * gaps)
            runs = np.maximum(np.ceil(gaps / self.run), 1.0)
        few = (runs <= _FEW) & (gaps > 0.0) & (self.extra > 0.0)
        parts = []
        for which, of in ((few, self._counted), (~few, self._normal)):
            if which.any():
                found, chance = of(gaps[which], added[which], batch[which], runs[which])
                owner = np.broadcast_to(gaps[which][:, None], found.shape)
                parts.append((found.ravel(), (weights[which][:, None] * chance).ravel(), owner.ravel()))
        times, shares, owners = (np.concatenate(each) for each in zip(*parts, strict=True))
        return np.maximum(times, 0.0), shares, owners

    def _normal(self, gaps: Array, added: Array, batch: Array, runs: Array) -> tuple[Array, Array]:
        middle = self.solo * gaps + added
        spread = np.sqrt(batch + self.compound * gaps)
        return middle[:, None] + spread[:, None] * _NODES, np.broadcast_to(_WEIGHTS, (len(gaps), len(_NODES)))

    def _counted(self, gaps: Array, added: Array, batch: Array, runs: Array) -> tuple[Array, Array]:
        """By the number of runs that are met: binomial, and what their chunks add a Gamma law."""
        number = np.arange(_FEW + 1)
        each = (np.ones(len(gaps)) if self.stalls else gaps / runs)[:, None]
        chance = np.clip((added / (self.extra * runs))[:, None] / each, 1e-9, 0.98)
        missed = np.maximum(runs[:, None] - number, 0.0)
        logs = gammaln(runs + 1.0)[:, None] - gammaln(number + 1.0) - gammaln(missed + 1.0)
        logs = logs + number * np.log(chance) + missed * np.log1p(-chance)
        met = np.where(number <= runs[:, None], np.exp(logs), 0.0)
        middle = number * each * self.extra
        variance = number * each**2 * max(self.extra_square - self.extra**2, 0.0) + batch[:, None]
        shape = np.maximum(middle**2 / np.maximum(variance, 1e-30), 1e-3)
        cube = 1.0 - 1.0 / (9.0 * shape)[:, :, None] + _NODES / (3.0 * np.sqrt(shape))[:, :, None]
        gamma = middle[:, :, None] * np.maximum(cube, 0.0) ** 3
        normal = middle[:, :, None] + np.sqrt(variance)[:, :, None] * _NODES
        steps = np.where((shape > 0.3)[:, :, None] & (number > 0)[None, :, None], gamma, normal)
        if not self.stalls:
            steps = np.minimum(steps, (self.most * gaps)[:, None, None] + 3.0 * np.sqrt(batch)[:, None, None])
        found = (self.solo * gaps)[:, None, None] + steps
        weights = met[:, :, None] * _WEIGHTS
        return found.reshape(len(gaps), -1), weights.reshape(len(gaps), -1)


def gaps_of(requests: Requests) -> tuple[Array, Array]:
    """Gaps between the tokens of a class's requests, and their weights: as few as will do, in order."""
    gaps = np.sort(requests.output) - 1.0
    if gaps[0] == gaps[-1]:
        return gaps[:1], np.ones(1)
    edges = np.unique(np.concatenate([np.linspace(0, len(gaps), _OUTPUTS + 1), len(gaps) - 2.0 ** np.arange(6)]))
    edges = edges[(edges >= 0) & (edges <= len(gaps))].astype(int)
    parts = [part for part in np.split(gaps, np.unique(edges)[1:-1]) if len(part)]
    return np.array([part.mean() for part in parts]), np.array([len(part) for part in parts]) / len(gaps)


def tpot_masses(spread: Spread, requests: Requests, grid: Grid) -> Array | None:
    """Masses of the TPOT of a class's requests of two tokens or more; None where it has none."""
    gaps, weights = gaps_of(requests)
    several = gaps > 0.0
    if not several.any():
        return None
    times, shares, of = spread.sums(np.maximum(gaps[several], 1.0), weights[several])
    least = 0.9 * spread.solo
    return grid.at(np.maximum(times / of, least), shares)
