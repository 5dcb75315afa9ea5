"""What has happened at a gateway between two readings, for `fluidgate watch` and the page alike."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fluidgate.gateway.samples import Samples

INTERVALS = 10
"""Rates are taken over so many intervals, once there are as many readings."""


@dataclass(frozen=True)
class Reading:
    """A group of a gateway's engines at one epoch.

    Attributes:
        at: s, of `time.monotonic`.
        state: its snapshot, as /v1/plan has it.
        samples: what the gateway has counted since it started, as /metrics has it.
    """

    at: float
    state: dict[str, Any]
    samples: Samples


@dataclass(frozen=True)
class Quantiles:
    """Of a time, s; None where nothing was observed."""

    p50: float | None
    p90: float | None


@dataclass(frozen=True)
class ClassRates:
    """One class between two readings.

    Attributes:
        arrivals, completions, revenue, output_tokens: 1/s; arrivals are what ended, however it did, and what was added
            to those that are here.
        ttft: arrival to first token; `tpot`, time per output token after it.
        outcomes: requests that ended otherwise than completed, by their outcome.
    """

    arrivals: float
    completions: float
    revenue: float
    output_tokens: float
    ttft: Quantiles
    tpot: Quantiles
    outcomes: dict[str, int]


@dataclass(frozen=True)
class Rates:
    """All classes between two readings.

    Attributes:
        seconds: between them.
        refusals: requests that were refused on arrival, by reason.
    """

    seconds: float
    classes: dict[str, ClassRates]
    refusals: dict[str, int]

    @property
    def revenue(self) -> float:
        """1/s."""
        return sum(each.revenue for each in self.classes.values())

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


class History:
    """The last readings, those of one life of the gateway."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque(maxlen=INTERVALS + 1)

    def add(self, reading: Reading) -> None:
        if self._readings and reading.state["uptime"] < self._readings[-1].state["uptime"]:
            self._readings.clear()
        self._readings.append(reading)

    @property
    def last(self) -> Reading | None:
        return self._readings[-1] if self._readings else None

    @property
    def rates(self) -> Rates | None:
        """Over the readings there are; None for less than two."""
        return rates_between(self._readings[0], self._readings[-1]) if len(self._readings) > 1 else None


def rates_between(old: Reading, new: Reading) -> Rates:
    seconds = new.at - old.at

    def grown(label: str, name: str, **labels: str) -> dict[str, float]:
        before = old.samples.by(label, name, **labels)
        now = new.samples.by(label, name, **labels)
        return {key: value - before.get(key, 0.0) for key, value in now.items()}

    def grown_of(cls: str, label: str, name: str) -> dict[str, float]:
        return grown(label, name, **{"model": new.state["model"], "class": cls})

    def rate(name: str, cls: str) -> float:
        return sum(grown_of(cls, "class", name).values()) / seconds

    def quantiles(name: str, cls: str) -> Quantiles:
        buckets = {float(le): n for le, n in grown_of(cls, "le", f"{name}_bucket").items()}
        return Quantiles(quantile(buckets, 0.5), quantile(buckets, 0.9))

    def of(cls: str) -> ClassRates:
        outcomes = grown_of(cls, "outcome", "fluidgate_requests_total")
        arrivals = sum(outcomes.values()) + present(new, cls) - present(old, cls)
        return ClassRates(
            arrivals=max(0.0, arrivals) / seconds,
            completions=outcomes.pop("completed", 0.0) / seconds,
            revenue=rate("fluidgate_revenue_total", cls),
            output_tokens=rate("fluidgate_output_tokens_total", cls),
            ttft=quantiles("fluidgate_ttft_seconds", cls),
            tpot=quantiles("fluidgate_tpot_seconds", cls),
            outcomes=_some(outcomes),
        )

    refusals = grown("reason", "fluidgate_refusals_total")
    return Rates(seconds, {cls: of(cls) for cls in new.state["classes"]}, _some(refusals))


def present(reading: Reading, cls: str) -> int:
    """Requests of a class that are here, at whatever stage."""
    return sum(reading.state["classes"].get(cls, {}).values())


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """The quantile of a distribution, linear within a bucket; beyond the last finite bound, that bound.

    Args:
        buckets: observations at or below each bound; the last bound is infinite.
    """
    rank = share * buckets.get(math.inf, 0.0)
    if rank <= 0.0:
        return None
    start = below = 0.0
    for bound, count in sorted(buckets.items()):
        if count >= rank:
            return start if bound == math.inf else start + (bound - start) * (rank - below) / (count - below)
        start, below = bound, count
    return None


def _some(counts: Mapping[str, float]) -> dict[str, int]:
    return {key: round(count) for key, count in sorted(counts.items()) if count > 0}
