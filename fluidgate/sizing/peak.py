"""A load that rises and falls: what targets come to in each part of its period, and the part that binds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fluidgate.model import Array, Arrivals, Scenario
from fluidgate.shown import Brief
from fluidgate.sizing.observed import observed, statistic
from fluidgate.sizing.targets import Target

MOST = 48
"""Parts of a period that each are looked at; where there are more, some of them together."""
TOGETHER = 24
TRACED = 24
"""Parts of a trace, at most;"""
BEYOND = 0.1
"""each with this share of the requests that a replication needs for its targets."""


@dataclass(frozen=True, repr=False)
class Intervals(Brief):
    """Equal parts of a period.

    Attributes:
        period: s; of a trace its span.
        count: of the parts.
        repeats: whether another period follows.
        since: s; requests that came before are left out.
        periods: that pass after it.
    """

    period: float
    count: int
    repeats: bool
    since: float = 0.0
    periods: float = 1.0

    @staticmethod
    def of_arrivals(arrivals: Arrivals, since: float, horizon: float) -> Intervals | None:
        """Of a rate that repeats; None where it does not."""
        if arrivals.process != "daily" or len(set(arrivals.weights)) < 2:
            return None
        count = len(arrivals.weights) if len(arrivals.weights) <= MOST else TOGETHER
        return Intervals(arrivals.period, count, True, since, (horizon - since) / arrivals.period)

    @staticmethod
    def of_trace(span: float, requests: int, targets: Sequence[Target]) -> Intervals | None:
        """Of a trace, each with enough requests for the targets; None where that leaves fewer than two."""
        count = min(TRACED, int(requests / (BEYOND * max(each.requests for each in targets))))
        return Intervals(span, count, repeats=False) if count > 1 else None

    @property
    def seconds(self) -> float:
        return self.period / self.count

    def place(self, arrival: Array) -> Array:
        """The part in which each request came."""
        within = arrival % self.period if self.repeats else arrival
        return np.minimum((within / self.seconds).astype(np.int64), self.count - 1)


@dataclass
class Seen:
    """What targets look at, collected from a log block by block."""

    targets: tuple[Target, ...]
    scenario: Scenario
    intervals: Intervals
    places: list[Array] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)

    def take(self, log: Any) -> None:
        log = log[log["arrival"] >= self.intervals.since]
        self.places.append(self.intervals.place(log["arrival"]).astype(np.int16))
        self.values.append(np.array([observed(each, log, self.scenario) for each in self.targets], dtype=np.float32))

    def add(self, other: Seen) -> None:
        """What another fleet of the same load saw."""
        self.places += other.places
        self.values += other.values

    def course(self) -> Course:
        count = self.intervals.count
        if not self.places:
            return Course(self.intervals, np.full((len(self.targets), count), np.nan), np.zeros(count))
        places, values = np.concatenate(self.places), np.concatenate(self.values, axis=1)
        order = np.argsort(places, kind="stable")
        numbers = np.bincount(places, minlength=count)
        parts = np.split(values[:, order], np.cumsum(numbers)[:-1], axis=1)
        found = [[statistic(each, part[k]) for part in parts] for k, each in enumerate(self.targets)]
        return Course(self.intervals, np.array(found), numbers / (self.intervals.seconds * self.intervals.periods))


@dataclass(frozen=True, repr=False)
class Course(Brief):
    """What targets come to over a period.

    Attributes:
        values: of each target in each part, nan where nothing was observed; shape (targets, parts).
        rates: requests a second that came; shape (parts,).
    """

    intervals: Intervals
    values: Array
    rates: Array

    @staticmethod
    def of(courses: Sequence[Course]) -> Course:
        """The mean over replications, of those that have observed anything."""
        values = np.array([each.values for each in courses])
        seen = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            mean = np.where(seen, values, 0.0).sum(axis=0) / seen.sum(axis=0)
        return Course(courses[0].intervals, mean, np.mean([each.rates for each in courses], axis=0))

    def peak(self, target: Target, place: int) -> Peak | None:
        """Where a target, the `place`-th, is worst; None where it was nowhere observed."""
        values = self.values[place]
        worse = [target.excess(value) if math.isfinite(value) else -math.inf for value in values]
        k = int(np.argmax(worse))
        if not math.isfinite(values[k]):
            return None
        seconds = self.intervals.seconds
        return Peak(
            target, k * seconds, (k + 1) * seconds, self.intervals.period, float(values[k]), float(self.rates[k])
        )


@dataclass(frozen=True, repr=False)
class Peak(Brief):
    """The part of a period in which the target that binds is worst.

    Attributes:
        begins, ends: s from the start of the period.
        period: s; the span of a trace.
        value: of the target, over the requests that came in it.
        rate: requests a second that did, on the whole cluster.
    """

    target: Target
    begins: float
    ends: float
    period: float
    value: float
    rate: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "target": self.target.name,
            "begins": self.begins,
            "ends": self.ends,
            "period": self.period,
            "value": self.value,
            "rate": self.rate,
        }
