"""The replications of one choice at one number of engines, and what they say of the targets so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fluidgate.simulation.doubts import growing_queues
from fluidgate.simulation.iteration.behaviour import Behaviour
from fluidgate.simulation.iteration.job import IterationJob
from fluidgate.simulation.iteration.study import RequestStudy
from fluidgate.simulation.plans import Plans
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.load import Load
from fluidgate.sizing.parts import Outcome
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
        study = load.study(choice.scenario, choice.policy, engines * choice.ranks)
        plans = Plans(study.scenario, study.options.gpus, by_iterations=study.by_iterations)
        return Runs(choice, engines, load, study, plans, study.ready(study.policies[0], plans))

    def next_jobs(self) -> list[IterationJob]:
        """Up to the next look; none where there is no further one."""
        looks = [look for look in self.load.looks if look > len(self.outcomes)]
        return [self.study.job(self.behaviour, k) for k in range(len(self.outcomes), looks[0])] if looks else []

    def take(self, outcomes: Sequence[Outcome]) -> Trial:
        """What is known with these replications."""
        self.outcomes.extend(outcomes)
        runs = [outcome.run for outcome in self.outcomes]
        measured, parts = [each.measurement for each in runs], self.outcomes[0].parts
        sure = AT_LAST if len(measured) == self.load.looks[-1] else SURE
        names = self.study.scenario.class_names
        targets = [(each, None if each.cls is None else names.index(each.cls)) for each in self.load.targets]
        readings = tuple(
            Reading.of(target, measured, cls, sure)
            if parts is None
            else Reading.of_parts(target, measured[0], cls, parts[place])
            for place, (target, cls) in enumerate(targets)
        )
        paths = [] if self.study.source.users else [m.samples for m in measured]
        grows = parts is None and any(
            True for _ in growing_queues(self.study.scenario, self.study.options, paths, self.study.seconds)
        )
        study = replace(self.study, options=replace(self.study.options, replications=len(measured)))
        result = study.result(self.behaviour, self.plans, runs)
        return Trial(self.engines, readings, grows, len(measured), result)
