"""The replications of a fleet of several types: each type on its part of the requests, judged over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.simulation.iteration.job import IterationJob
from fluidgate.simulation.iteration.source import Part
from fluidgate.sizing.load import Load
from fluidgate.sizing.mix import Mix, part_of
from fluidgate.sizing.parts import Logged, Outcome, in_parts
from fluidgate.sizing.peak import Course, Seen
from fluidgate.sizing.runs import Runs, readings_of
from fluidgate.sizing.trial import Reading, Trial


@dataclass(frozen=True)
class MixedTrial(Trial):
    """What a fleet of several types came to.

    Attributes:
        short: by type, how far its own requests are beyond their limits: 1 at them, inf where they wait in growing
            numbers, 0 for a type without requests; shape (types,).
        kinds: types that have requests, one a result.
        shares: of each class by type, shape (classes, types).
    """

    short: tuple[float, ...] = ()
    kinds: tuple[int, ...] = ()
    shares: Array | None = None


@dataclass
class MixedRuns:
    """Grows by replications until every target is settled or the last look is taken.

    Attributes:
        engines: of each type.
        shares: of each class by type, shape (classes, types).
        runs: of the types that have requests, by their place.
    """

    mix: Mix
    engines: tuple[int, ...]
    load: Load
    shares: Array
    runs: dict[int, Runs]

    @staticmethod
    def of(mix: Mix, engines: Sequence[int], load: Load, shares: Array) -> MixedRuns:
        """None of them yet.

        Raises:
            FluidgateError: a policy does not run on so many engines.
        """
        edges = np.hstack([np.zeros((len(shares), 1)), np.cumsum(shares, axis=1)])
        edges[:, -1] = 1.0
        runs = {}
        for kind, (choice, count) in enumerate(zip(mix.choices, engines, strict=True)):
            if count == 0 or not (shares[:, kind] > 0.0).any():
                continue
            own = load.study(part_of(choice.scenario, shares[:, kind]), choice.policy, count * choice.ranks)
            low, high = (tuple(map(float, edges[:, kind + side])) for side in (0, 1))
            study = replace(own, source=Part(load.source(choice.scenario), low, high, load.seed))
            runs[kind] = Runs.of_study(choice, count, load, study)
        return MixedRuns(mix, tuple(engines), load, shares, runs)

    def next_jobs(self) -> list[IterationJob]:
        """Up to the next look, type by type; none where there is no further one."""
        return [job for each in self.runs.values() for job in each.next_jobs()]

    def take(self, outcomes: Sequence[Outcome]) -> MixedTrial:
        """What is known with these replications."""
        each = len(outcomes) // len(self.runs)
        for place, own in enumerate(self.runs.values()):
            own.outcomes.extend(outcomes[place * each : (place + 1) * each])
        runs = list(self.runs.values())
        scenario, logged = runs[0].study.scenario, isinstance(self.load.logged_work, Logged)
        logs = [outcome.log for own in runs for outcome in own.outcomes if outcome.log is not None]
        parts = in_parts(self.load.targets, logs, scenario) if logged else None
        together = [first.and_of(others) for first, *others in zip(*(own.measured for own in runs), strict=True)]
        readings = readings_of(self.load, scenario, together, parts)
        growing = {kind: parts is None and own.grows for kind, own in self.runs.items()}
        return MixedTrial(
            engines=sum(self.engines),
            readings=readings,
            grows=any(growing.values()),
            replications=len(together),
            results=tuple(own.result for own in runs),
            course=self._course(scenario),
            bought=self.engines,
            short=tuple(self._short(kind, growing, readings, parts is not None) for kind in range(len(self.engines))),
            kinds=tuple(self.runs),
            shares=self.shares,
        )

    def _course(self, scenario: Scenario) -> Course | None:
        """Over the requests of all types together."""
        if self.load.over is None:
            return None
        courses = []
        for outcomes in zip(*(own.outcomes for own in self.runs.values()), strict=True):
            seen = Seen(self.load.targets, scenario, self.load.over)
            for outcome in outcomes:
                if outcome.seen is not None:
                    seen.add(outcome.seen)
                elif outcome.log is not None:
                    seen.take(outcome.log)
            courses.append(seen.course())
        return Course.of(courses)

    def _short(self, kind: int, growing: dict[int, bool], readings: Sequence[Reading], traced: bool) -> float:
        """Of the targets that all together do not keep for sure; of all of them where all do."""
        if kind not in self.runs:
            return 0.0
        if growing[kind]:
            return np.inf
        own = self.runs[kind]
        places = [k for k, reading in enumerate(readings) if reading.status != "met"] or list(range(len(readings)))
        none = np.full((len(readings), 1), np.nan) if traced else None
        found = readings_of(self.load, own.study.scenario, own.measured, none)
        names = own.study.scenario.class_names
        here = [t.cls is None or self.shares[names.index(t.cls), kind] > 0.0 for t in self.load.targets]
        return max((found[k].excess for k in places if here[k]), default=0.0)
