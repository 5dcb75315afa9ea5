"""What is read off a replication: the run, its targets part by part of a trace, and over the period of its load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.shown import Brief
from fluidgate.simulation.iteration.behaviour import IterationOutcome
from fluidgate.simulation.iteration.job import IterationJob, replicate
from fluidgate.sizing.observed import observed, statistic
from fluidgate.sizing.peak import Course, Intervals, Seen
from fluidgate.sizing.targets import Target

PARTS = 10
"""Of a trace, of as many requests each, one after the other: they take the place of replications."""


@dataclass(frozen=True)
class Outcome:
    """What a replication gave.

    Attributes:
        parts: of each target by part, shape (targets, parts), nan where nothing was observed; None where replications
            are independent.
        log: of its requests, dtype LOG; None where nobody reads it.
        course: of the targets over the period of the load; None where it has none.
        seen: what targets look at in a period, where several fleets are judged together; None where it has none.
    """

    run: IterationOutcome
    parts: Array | None = None
    log: Any = None
    course: Course | None = None
    seen: Seen | None = None


@dataclass(frozen=True, repr=False)
class Whole(Brief):
    """Runs a job as it is."""

    def __call__(self, job: IterationJob) -> Outcome:
        return Outcome(replicate(job))


@dataclass(frozen=True, repr=False)
class Watched(Brief):
    """Runs a job whose load repeats, one of several fleets that are judged together."""

    targets: tuple[Target, ...]
    intervals: Intervals

    def __call__(self, job: IterationJob) -> Outcome:
        seen = Seen(self.targets, job.scenario, self.intervals)
        return Outcome(replicate(job, None, seen.take), seen=seen)


@dataclass(frozen=True, repr=False)
class ByInterval(Watched):
    """Runs a job whose load repeats, of a fleet that is judged alone."""

    def __call__(self, job: IterationJob) -> Outcome:
        watched = super().__call__(job)
        return Outcome(watched.run, course=watched.seen.course() if watched.seen is not None else None)


@dataclass(frozen=True, repr=False)
class InParts(Brief):
    """Runs a job and reads its targets part by part, in order of arrival."""

    targets: tuple[Target, ...]
    intervals: Intervals | None

    def __call__(self, job: IterationJob) -> Outcome:
        done = Logged()(job)
        logs = [] if done.log is None else [done.log]
        course = None
        if logs and self.intervals is not None:
            seen = Seen(self.targets, job.scenario, self.intervals)
            seen.take(done.log)
            course = seen.course()
        return Outcome(done.run, in_parts(self.targets, logs, job.scenario), course=course)


@dataclass(frozen=True, repr=False)
class Logged(Brief):
    """Runs a job and brings the log of its requests."""

    def __call__(self, job: IterationJob) -> Outcome:
        blocks: list[Any] = []
        run = replicate(job, None, blocks.append)
        return Outcome(run, log=np.concatenate(blocks) if blocks else None)


Work = Whole | ByInterval | Watched | InParts | Logged


def in_parts(targets: Sequence[Target], logs: Sequence[Any], scenario: Scenario) -> Array:
    """Each target by part of all the requests of some logs, in order of arrival; shape (targets, parts)."""
    if not logs:
        return np.full((len(targets), PARTS), np.nan)
    log = np.concatenate(logs)
    parts = np.array_split(log[np.argsort(log["arrival"], kind="stable")], PARTS)
    return np.array([[statistic(each, observed(each, part, scenario)) for part in parts] for each in targets])
