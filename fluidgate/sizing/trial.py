"""A number of engines put to the test, as many replications as it takes and no more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fluidgate.model import Array
from fluidgate.shown import Brief
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.results import RequestResult
from fluidgate.sizing.peak import Course, Peak
from fluidgate.sizing.targets import Target

LOOKS = (4, 8, 16, 32)
"""Replications after which it is asked whether each target is met or missed."""
SURE = 0.995
"""Confidence, on either side, at each look but the last, so that several of them err no more often than one."""
AT_LAST = 0.975
"""The same at the last look, and of the intervals that are shown."""

Status = Literal["met", "missed", "undecided"]


@dataclass(frozen=True, repr=False)
class Reading(Brief):
    """What a target came to.

    Attributes:
        value: over all replications together.
        ci95: 95 % confidence interval over the replications, Student t, and as far beyond as the value, which counts
            requests and not replications alike; None for fewer than two.
        status: `met` or `missed` where the interval lies on one side of the limit.
    """

    target: Target
    value: float
    ci95: tuple[float, float] | None
    status: Status

    @staticmethod
    def of(target: Target, measured: Sequence[IterationMeasurement], cls: int | None, sure: float) -> Reading:
        """Of some replications, with a confidence on either side."""
        each = np.array([target.value(one, cls) for one in measured])
        seen = each[np.isfinite(each)]
        value = target.pooled(measured, cls)
        if len(seen) < len(each) or len(seen) < 2:
            return Reading(target, value, None, "undecided" if len(seen) else "missed")
        low, high = interval(seen, sure)
        if target.keeps(low) == target.keeps(high) == target.keeps(value):
            status: Status = "met" if target.keeps(value) else "missed"
        else:
            status = "undecided"
        low, high = interval(seen, AT_LAST)
        return Reading(target, value, target.possible(min(low, value), max(high, value)), status)

    @staticmethod
    def of_parts(target: Target, measured: IterationMeasurement, cls: int | None, parts: Array) -> Reading:
        """Of a trace: it is what it is, and its parts say how far chance could move it; shape (parts,)."""
        value, seen = target.value(measured, cls), parts[np.isfinite(parts)]
        about = target.possible(*interval(seen, AT_LAST, value)) if len(seen) > 1 else None
        return Reading(target, value, about, "met" if target.keeps(value) else "missed")

    @property
    def excess(self) -> float:
        """How near to the limit: 1 at it, more beyond."""
        return self.target.excess(self.value) if math.isfinite(self.value) else math.inf


def interval(values: Array, sure: float, middle: float | None = None) -> tuple[float, float]:
    """About the mean of some values, or another middle."""
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, sure)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    centre = float(values.mean()) if middle is None else middle
    return centre - half, centre + half


@dataclass(frozen=True, repr=False)
class Trial(Brief):
    """What a number of engines came to.

    Attributes:
        readings: one a target, in their order.
        grows: whether those who wait grow in number, so that no time of theirs has a limit.
        replications: that it took.
        results: over all of them, of each kind of engines.
        course: of the targets over the period of the load; None where it has none.
        bought: of a mix, the engines of each type that were asked of, spare ones among them.
    """

    engines: int
    readings: tuple[Reading, ...]
    grows: bool
    replications: int
    results: tuple[RequestResult, ...]
    course: Course | None = None
    bought: tuple[int, ...] = ()

    @property
    def result(self) -> RequestResult:
        """Of a fleet of one kind of engines."""
        (only,) = self.results
        return only

    @property
    def status(self) -> Status:
        if self.grows or any(each.status == "missed" for each in self.readings):
            return "missed"
        return "met" if all(each.status == "met" for each in self.readings) else "undecided"

    @property
    def binding(self) -> Reading:
        """The target nearest to its limit, or farthest beyond it."""
        return max(self.readings, key=lambda each: each.excess)

    @property
    def peak(self) -> Peak | None:
        """Where in the period of the load the target that binds is worst."""
        if self.course is None:
            return None
        return self.course.peak(self.binding.target, self.readings.index(self.binding))
