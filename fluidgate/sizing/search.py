"""The least number of engines of each choice: all choices a step at a time, so that their replications run together."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fluidgate.errors import FluidgateError
from fluidgate.execution import Executor
from fluidgate.progress import Progress
from fluidgate.simulation.iteration.fleet import named_gpus
from fluidgate.simulation.iteration.job import IterationJob, prepare
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.load import Load
from fluidgate.sizing.parts import Outcome, Work
from fluidgate.sizing.runs import Runs
from fluidgate.sizing.trial import Trial

NEAR = 1.0 / 64.0
"""Share of the engines by which a search goes on from its guess at first: the theory of tails is about so right."""

Steps = Generator[list[IterationJob], Sequence[Outcome], None]
"""Asks for jobs and is sent what they gave."""


class Stepped(Protocol):
    """A search that asks for its jobs step by step."""

    def steps(self) -> Steps: ...


@dataclass
class Search:
    """Of one choice.

    Attributes:
        bound: fewest engines by the program on which the policy runs; none is tried below it.
        guess: where the search begins.
        most: engines beyond which it ends.
        spare: engines that may be gone.
        trials: by engines.
    """

    choice: Choice
    load: Load
    bound: int
    guess: int
    most: int
    spare: int
    trials: dict[int, Trial] = field(default_factory=dict)

    @property
    def found(self) -> Trial | None:
        """The fewest engines that keep all targets."""
        met = [trial for trial in self.trials.values() if trial.status == "met"]
        return min(met, key=lambda trial: trial.engines, default=None)

    def steps(self) -> Steps:
        """Widen until one number of engines keeps the targets, then halve what lies below it."""
        low, high = self.bound - 1, None
        tried = min(max(self.guess, self.bound), self.most)
        step = max(1, round(NEAR * tried))
        while tried > low and (high is None or tried < high):
            trial = yield from self._try(tried)
            if trial.status == "met":
                high = tried
            else:
                low = tried
            if high is None:
                tried, step = min(tried + step, self.most), 2 * step
            elif low < self.bound:
                tried, step = max(high - step, low + 1), 2 * step
            else:
                tried = (low + high) // 2
        if high is not None and self.spare:
            yield from self._try(high + self.spare)

    def _try(self, engines: int) -> Generator[list[IterationJob], Sequence[Outcome], Trial]:
        runs = Runs.of(self.choice, engines, self.load)
        while jobs := runs.next_jobs():
            outcomes = yield jobs
            trial = self.trials[engines] = runs.take(outcomes)
            if trial.status != "undecided":
                break
        return self.trials[engines]


def run(searches: Sequence[Stepped], work: Work, executor: Executor, progress: Progress | None = None) -> None:
    """Run all searches to their end, each round's replications together.

    Raises:
        FluidgateError: a policy does not run on its engines, or a request is wrong.
    """
    active: list[tuple[Steps, list[IterationJob]]] = []
    for search in searches:
        steps = search.steps()
        active += _next(steps, lambda steps=steps: next(steps))  # type: ignore[misc]
    while active:
        jobs = [job for _, asked in active for job in asked]
        prepare(jobs)
        outcomes = iter(list(_told(executor.map(work, jobs), len(jobs), progress)))
        before, active = active, []
        for steps, asked in before:
            given = [next(outcomes) for _ in asked]
            active += _next(steps, lambda steps=steps, given=given: steps.send(given))  # type: ignore[misc]


def _told(outcomes: Iterator[Any], expected: int, progress: Progress | None) -> Iterator[Any]:
    for done, outcome in enumerate(outcomes, 1):
        yield outcome
        if progress is not None:
            progress(done, expected)


def _next(steps: Steps, go: Callable[[], list[IterationJob]]) -> list[tuple[Steps, list[IterationJob]]]:
    try:
        return [(steps, go())]
    except StopIteration:
        return []


def least_engines(choice: Choice, load: Load, bound: int) -> int:
    """The fewest engines, from the bound on, that the policy runs on at all, with all GPUs that fail or are scheduled.

    Raises:
        FluidgateError: none, with the policy's own reason.
    """
    reason: FluidgateError | None = None
    bound = max(bound, math.ceil(named_gpus(choice.scenario) / choice.ranks))
    for engines in range(bound, bound + 4):
        try:
            Runs.of(choice, engines, load)
        except FluidgateError as error:
            reason = reason or error
            continue
        return engines
    assert reason is not None
    raise reason
