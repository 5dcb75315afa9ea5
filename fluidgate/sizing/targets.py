"""What a fleet must keep."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluidgate.errors import FluidgateError, UnitWarning, nearest
from fluidgate.model import Array, Scenario
from fluidgate.shown import Brief
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.target_table import SHARES, TARGET_KEYS
from fluidgate.unit_doubts import LONGEST, milliseconds

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
LEAST_SERVED = 0.99
"""Share of the requests that must be served where some may leave, or are longer than an engine's memory, and nothing
else is said of them: without it a fleet that turns most away would look fast."""

IN_TAIL = 100.0
"""Requests beyond a percentile in each replication, so that the percentile of one is hardly biased."""
FOR_MEAN = 2_000.0

IN_SECONDS = 10.0
"""s; from here on a time is shown in s, whatever its limit."""


@dataclass(frozen=True, repr=False)
class Target(Brief):
    """A limit on a statistic of the requests of a class, or of all.

    Attributes:
        cls: name of the class; None for all.
        measure: `ttft`, `tpot`, `latency`, s; or `goodput`, `served`, shares.
        statistic: `mean`, `p50`, `p90`, `p95`, `p99`; `share` for a share.
        limit: the most of a time, the least of a share.
        implied: whether nobody asked for it.
    """

    cls: str | None
    measure: str
    statistic: str
    limit: float
    implied: bool = False

    @property
    def name(self) -> str:
        """As tables and `binding` have it, e.g. `ttft p99`."""
        what = self.measure if self.is_share else f"{self.measure} {self.statistic}"
        return what if self.cls is None else f"{what} of {self.cls}"

    @property
    def is_share(self) -> bool:
        return self.statistic == "share"

    def value(self, measured: IterationMeasurement, cls: int | None) -> float:
        """Of one replication; nan where nothing was observed."""
        if self.is_share:
            return _share(measured, self.measure, cls)
        found = measured.distribution(self.measure, cls)
        value = found.mean if self.statistic == "mean" else found.quantile(QUANTILES[self.statistic])
        return math.nan if value is None else value

    def pooled(self, measured: Sequence[IterationMeasurement], cls: int | None) -> float:
        """Of all replications together."""
        whole = [each.distribution(self.measure, cls) for each in measured] if not self.is_share else []
        if not whole:
            return float(np.mean([self.value(each, cls) for each in measured]))
        together = type(whole[0])(np.sum([d.counts for d in whole], axis=0), float(sum(d.total for d in whole)))
        value = together.mean if self.statistic == "mean" else together.quantile(QUANTILES[self.statistic])
        return math.nan if value is None else value

    def keeps(self, value: float) -> bool:
        return value >= self.limit if self.is_share else value <= self.limit

    def possible(self, low: float, high: float) -> tuple[float, float]:
        """What of an interval it may come to: nothing below 0, nor a share above 1."""
        return max(low, 0.0), min(high, 1.0) if self.is_share else high

    def shown(self, value: float) -> str:
        """A time in s, or in ms beside a limit below 1 s; a share in percent."""
        if self.is_share:
            return f"{100 * value:.4g} %"
        return f"{1000 * value:.4g} ms" if self.limit < 1.0 and value < IN_SECONDS else f"{value:.4g} s"

    def excess(self, value: float) -> float:
        """How near a value is to the limit: 1 at it, above 1 beyond; of shares, the share that is lost counts."""
        if self.is_share:
            room = 1.0 - self.limit
            return (1.0 - value) / room if room > 0.0 else (1.0 if value >= 1.0 else math.inf)
        return value / self.limit

    @property
    def requests(self) -> float:
        """Of its class that a replication needs."""
        if self.statistic == "mean":
            return FOR_MEAN
        beyond = 1.0 - (self.limit if self.is_share else QUANTILES[self.statistic])
        return IN_TAIL / max(beyond, 1e-4)

    def to_dict(self) -> dict[str, Any]:
        known = {"class": self.cls, "measure": self.measure, "statistic": self.statistic, "limit": self.limit}
        return known | ({"implied": True} if self.implied else {})


def targets_of(scenario: Scenario) -> tuple[Target, ...]:
    """Those of all requests, then those of each class; where requests may leave, that most of them are served.

    Raises:
        FluidgateError: there is none, or goodput has nothing to be counted by.
    """
    found = [Target(None, *each) for each in scenario.targets.of_statistics]
    found += [Target(c.name, *each) for c in scenario.classes for each in c.of_statistics]
    if not found:
        raise FluidgateError(
            f"scenario '{scenario.name}': targets: none that a fleet could be sized for; add a table [targets] with "
            "e.g. ttft_p99 = 1.0 and tpot_p95 = 0.04, or --target ttft_p99=1.0"
        )
    per_request = (*scenario.ttft_targets, *scenario.tpot_targets)
    if any(each.measure == "goodput" for each in found) and not any(per_request):
        raise FluidgateError(
            f"scenario '{scenario.name}': targets.goodput: a share of the requests that keep ttft and tpot, but "
            "neither is there; add targets.ttft or targets.tpot, s"
        )
    some_leave = any(c.patience_rate > 0.0 for c in scenario.classes)
    return with_served(found) if some_leave else tuple(found)


def with_served(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The targets, and that most requests are served where nothing says how many of them."""
    if any(each.is_share and each.cls is None for each in targets):
        return tuple(targets)
    return (*targets, Target(None, "served", "share", LEAST_SERVED, implied=True))


def with_targets(scenario: Scenario, given: Sequence[str] | Mapping[str, float]) -> Scenario:
    """The scenario with targets of all requests as `KEY=VALUE`, or by key, on top of its own.

    Raises:
        FluidgateError: a key or a value is wrong.
    """
    if isinstance(given, Mapping):
        given = [f"{key}={value}" for key, value in given.items()]
    keys: dict[str, float] = {}
    known = sorted({*TARGET_KEYS, "ttft", "tpot"})
    for each in given:
        key, equals, text = each.partition("=")
        if key.strip() not in known:
            hint = nearest(key.strip(), known) or f"; the keys are {', '.join(known)}"
            raise FluidgateError(f"--target: must be KEY=VALUE such as ttft_p99=1.0, but is '{each}'{hint}")
        if not equals:
            raise FluidgateError(f"--target: must be KEY=VALUE such as {key.strip()}=1.0, but is '{each}'")
        if key.strip() in keys:
            raise FluidgateError(f"--target: {key.strip()} is given twice; give it once")
        try:
            keys[key.strip()] = value = float(text)
        except ValueError:
            value = math.nan
        most = 1.0 if key.strip() in SHARES else math.inf
        if not 0.0 < value <= most or math.isinf(value):
            raise FluidgateError(
                f"--target: {key.strip()} must be a "
                f"{'share above 0 and at most 1' if most == 1.0 else 'time above 0 s'}, but is '{text}'"
            )
        if value >= LONGEST.get(key.strip().partition("_")[0], math.inf):
            warnings.warn(f"--target: {milliseconds(key.strip(), value)}", UnitWarning, stacklevel=2)
    found = scenario.replace(targets=scenario.targets.model_copy(update=keys)) if keys else scenario
    for key in {"ttft", "tpot"} & set(keys):
        if not any(each[0] == "goodput" for part in (found.targets, *found.classes) for each in part.of_statistics):
            raise FluidgateError(
                f"--target: {key} is the limit that goodput counts by, and no goodput is asked for; give a statistic, "
                f"such as --target {key}_p99={keys[key]:g}, or a goodput too"
            )
    return found


def least_served(scenario: Scenario, targets: Sequence[Target]) -> Array:
    """The share of each class that must be served for the targets to be kept, at least; shape (classes,).

    A share of all requests leaves each class what the others can't make up for.
    """
    arrival = scenario.rates.arrival
    least = np.array([1.0 if c.patience_rate == 0.0 else 0.0 for c in scenario.classes])
    for each in targets:
        if not each.is_share:
            continue
        if each.cls is None:
            least = np.maximum(least, 1.0 - (1.0 - each.limit) * arrival.sum() / arrival)
        else:
            place = scenario.class_names.index(each.cls)
            least[place] = max(least[place], each.limit)
    return np.asarray(np.maximum(least, 0.0))


def _share(measured: IterationMeasurement, measure: str, cls: int | None) -> float:
    """Of the requests that ended in the window: completed or lost."""
    every = slice(None) if cls is None else slice(cls, cls + 1)
    done = measured.completions[every].sum()
    lost = (measured.prefill_abandonments + measured.decode_abandonments + measured.rejections)[every].sum()
    good = measured.within_targets[every].sum() if measure == "goodput" else done
    return float(good / (done + lost)) if done + lost else math.nan
