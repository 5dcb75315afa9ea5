"""The cheapest fleet of several types that keeps the targets, among those that the program proposes."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.model import Array
from fluidgate.planning.batches.mixed import losses
from fluidgate.simulation.iteration.job import IterationJob
from fluidgate.sizing.guess import FULL
from fluidgate.sizing.mix import MixPlan
from fluidgate.sizing.mixed_runs import MixedRuns, MixedTrial
from fluidgate.sizing.parts import Outcome
from fluidgate.sizing.search import Steps

ROUNDS = 24
"""Fleets that are tried before one keeps the targets."""
STEP, LARGEST_STEP = 0.05, 0.5
"""By how much more room a type that is short is given at first, and at most; twice as much each time."""
LEAST_USE = 0.05
_SHORT = 1e-9

Engines = tuple[int, ...]
Trying = Generator[list[IterationJob], Sequence[Outcome], "Tried"]


@dataclass(frozen=True)
class Tried:
    """A fleet, and what is left of it, put to the test.

    Attributes:
        engines: of each type.
        proof: the trial that decides: of those that are left with the spare engines gone the first that does not keep
            the targets, else the nearest to it; None where a class has nowhere to go.
        lost: engines of each type that are gone in it.
    """

    engines: Engines
    proof: MixedTrial | None
    lost: Engines

    @property
    def met(self) -> bool:
        return self.proof is not None and self.proof.status == "met"


@dataclass
class MixedSearch:
    """Of one mix.

    Attributes:
        use: share to which each type is used at most, as the program plans.
        trials: simulated, by engines and shares.
        tried: by engines, at the use of the last round.
        missed: those of the rounds before.
        found: the fleet that keeps all targets; none that is cheaper beside it does.
        whole: its trial with the spare engines there.
    """

    plan: MixPlan
    use: Array = field(init=False)
    trials: dict[tuple[Engines, Engines], MixedTrial] = field(default_factory=dict)
    tried: dict[Engines, Tried] = field(default_factory=dict)
    missed: list[Tried] = field(default_factory=list)
    found: Tried | None = None
    whole: MixedTrial | None = None

    def __post_init__(self) -> None:
        self.use = np.full(len(self.plan.mix.choices), FULL)

    def steps(self) -> Steps:
        """Give more room to the types that are short until a fleet keeps the targets, then go to cheaper ones beside
        it that do."""
        met = yield from self._widened()
        while met is not None:
            self.found, met = met, None
            for engines in self._cheaper(self.found.engines):
                if engines in self.tried:
                    continue
                tried = yield from self._try(engines)
                if tried.met:
                    met = tried
                    break
        if self.found is not None:
            self.whole = yield from self._trial(self.found.engines)

    def less(self, kind: int) -> Tried | None:
        """The fleet that was found with an engine of a type less."""
        fewer = None if self.found is None else _changed(self.found.engines, kind, -1)
        return None if fewer is None else self.tried.get(fewer)

    def _widened(self) -> Generator[list[IterationJob], Sequence[Outcome], Tried | None]:
        steps = np.full(len(self.use), STEP)
        for _ in range(ROUNDS):
            proposed = self.plan.cheapest(self.use)
            if proposed is None and not self.missed:  # all there are, to the full
                proposed = self.plan.cheapest(np.ones(len(self.use)))
            if proposed is None:
                return None
            self.tried.clear()
            tried = yield from self._try(tuple(int(count) for count in proposed.engines))
            if tried.met:
                return tried
            self.missed.append(tried)
            short = self._short(tried)
            self.use[short] = np.maximum(self.use[short] / (1.0 + steps[short]), LEAST_USE)
            steps[short] = np.minimum(2.0 * steps[short], LARGEST_STEP)
        return None

    def _short(self, tried: Tried) -> list[int]:
        """Types that need more engines."""
        if tried.proof is None:
            return list(range(len(self.use)))
        short = np.array(tried.proof.short)
        beyond = [int(kind) for kind in np.flatnonzero(short > 1.0 + _SHORT)]
        return beyond or [int(np.argmax(short))]

    def _cheaper(self, engines: Engines) -> Iterator[Engines]:
        """An engine less, of the dearest first; then one of a type for some of another, or some for one, for less."""
        prices = np.array([each.hourly(1) for each in self.plan.mix.choices])
        dearest = [int(kind) for kind in np.argsort(-prices, kind="stable")]
        for kind in dearest:
            if (fewer := _changed(engines, kind, -1)) is not None:
                yield fewer
        for dear, cheap in combinations(dearest, 2):
            ratio = float(prices[dear] / prices[cheap])
            for of_dear, of_cheap in ((-1, math.ceil(ratio) - 1), (1, -math.floor(ratio) - 1)):
                part = _changed(engines, dear, of_dear)
                other = None if part is None or of_cheap == 0 else _changed(part, cheap, of_cheap)
                if other is not None and self.plan.has(other):
                    yield other

    def _try(self, engines: Engines) -> Trying:
        """The fleet with any of its spare engines gone."""
        proofs: list[tuple[MixedTrial, Engines]] = []
        for lost in losses(engines, self.plan.spare):
            left = tuple(there - gone for there, gone in zip(engines, lost, strict=True))
            trial = yield from self._trial(left)
            if trial is None or trial.status != "met":
                proof = None if trial is None else replace(trial, bought=engines)
                self.tried[engines] = Tried(engines, proof, lost)
                return self.tried[engines]
            proofs.append((replace(trial, bought=engines), lost))
        proof, lost = max(proofs, key=lambda each: each[0].binding.excess)
        self.tried[engines] = Tried(engines, proof, lost)
        return self.tried[engines]

    def _trial(self, engines: Engines) -> Generator[list[IterationJob], Sequence[Outcome], MixedTrial | None]:
        """None where the engines can't serve the load at all."""
        for use in (self.use, np.ones(len(self.use))):
            split = self.plan.split(engines, use)
            if split is None or split.growth < self.plan.least_growth * float(use.min()):
                return None
            key = (engines, tuple(np.round(split.shares * 1e6).astype(int).ravel().tolist()))
            if key in self.trials:
                return self.trials[key]
            try:
                runs = MixedRuns.of(self.plan.mix, engines, self.plan.load, split.shares)
            except FluidgateError:  # too few of a type for what it is given
                continue
            while jobs := runs.next_jobs():
                outcomes = yield jobs
                trial = self.trials[key] = runs.take(outcomes)
                if trial.status != "undecided":
                    break
            return self.trials[key]
        return None


def _changed(engines: Engines, kind: int, by: int) -> Engines | None:
    """More or fewer of a type; None where there are not so many, or none would be left."""
    changed = (*engines[:kind], engines[kind] + by, *engines[kind + 1 :])
    return changed if changed[kind] >= 0 and sum(changed) > 0 else None
