"""The replications of one choice at one number of engines, and what they say of the targets so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fluidgate.model import Array, Scenario
from fluidgate.simulation.doubts import growing_queues
from fluidgate.simulation.iteration.behaviour import Behaviour
from fluidgate.simulation.iteration.job import IterationJob
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.results import RequestResult
from fluidgate.simulation.iteration.study import RequestStudy
from fluidgate.simulation.plans import Plans
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.load import Load
from fluidgate.sizing.parts import Outcome
from fluidgate.sizing.peak import Course
from fluidgate.sizing.trial import AT_LAST, SURE, Reading, Trial


@dataclass
class Runs:
    """Grows by replications until every target is settled or the last look is taken.

    Attributes:
        study: of the choice on these engines.
        plans, behaviour: of the study, ready.
        outcomes: so far, one a replication.
    """

    choice: Choice
    engines: int
    load: Load
    study: RequestStudy
    plans: Plans
    behaviour: Behaviour
    outcomes: list[Outcome] = field(default_factory=list)

    @staticmethod
    def of(choice: Choice, engines: int, load: Load) -> Runs:
        """None of them yet.

        Raises:
            FluidgateError: the policy does not run on so many engines.
        """
        return Runs.of_study(choice, engines, load, load.study(choice.scenario, choice.policy, engines * choice.ranks))

    @staticmethod
    def of_study(choice: Choice, engines: int, load: Load, study: RequestStudy) -> Runs:
        """The same of requests of its own.

        Raises:
            FluidgateError: as `of`.
        """
        plans = Plans(study.scenario, study.options.gpus, by_iterations=study.by_iterations)
        return Runs(choice, engines, load, study, plans, study.ready(study.policies[0], plans))

    def next_jobs(self) -> list[IterationJob]:
        """Up to the next look; none where there is no further one."""
        looks = [look for look in self.load.looks if look > len(self.outcomes)]
        return [self.study.job(self.behaviour, k) for k in range(len(self.outcomes), looks[0])] if looks else []

    def take(self, outcomes: Sequence[Outcome]) -> Trial:
        """What is known with these replications."""
        self.outcomes.extend(outcomes)
        parts = self.outcomes[0].parts
        readings = readings_of(self.load, self.study.scenario, self.measured, parts)
        grows = parts is None and self.grows
        courses = [outcome.course for outcome in self.outcomes if outcome.course is not None]
        course = Course.of(courses) if courses else None
        return Trial(self.engines, readings, grows, len(self.outcomes), (self.result,), course)

    @property
    def measured(self) -> list[IterationMeasurement]:
        return [outcome.run.measurement for outcome in self.outcomes]

    @property
    def grows(self) -> bool:
        """Whether those who wait grow in number."""
        study = self.study
        paths = [] if study.source.users else [each.samples for each in self.measured]
        return any(True for _ in growing_queues(study.scenario, study.options, paths, study.seconds))

    @property
    def result(self) -> RequestResult:
        """Over the replications so far."""
        study = replace(self.study, options=replace(self.study.options, replications=len(self.outcomes)))
        return study.result(self.behaviour, self.plans, [outcome.run for outcome in self.outcomes])


def readings_of(
    load: Load, scenario: Scenario, measured: Sequence[IterationMeasurement], parts: Array | None
) -> tuple[Reading, ...]:
    """What the targets came to, one measurement a replication; `parts` as in `Outcome`."""
    sure = AT_LAST if len(measured) == load.looks[-1] else SURE
    names = scenario.class_names
    targets = [(each, None if each.cls is None else names.index(each.cls)) for each in load.targets]
    return tuple(
        Reading.of(target, measured, cls, sure)
        if parts is None
        else Reading.of_parts(target, measured[0], cls, parts[place])
        for place, (target, cls) in enumerate(targets)
    )
