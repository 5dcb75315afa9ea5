"""How long a replication is simulated for a set of targets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fluidgate.model import Scenario
from fluidgate.simulation.doubts import alone_by_class
from fluidgate.sizing.targets import Target

REQUESTS = (4_000.0, 400_000.0)
"""Of a replication, at least and at most."""
STAYS = 20.0
"""Mean times of a request alone that the window holds at least,"""
SETTLES = 5.0
"""and that go before it."""
SOJOURNS = 20.0
"""Rounds of all phases, where arrivals have phases, that the window holds at least."""
ROUNDS = 20.0
"""Failures and repairs of a unit, one after the other, that a run holds at least,"""
FOR_FAILURES = 250_000.0
"""unless it were of more requests than these."""
SESSIONS = 4.0
"""Mean lives of a session, which the warm-up holds."""


@dataclass(frozen=True)
class Window:
    """Statistics are taken over (warmup, horizon], s."""

    warmup: float
    horizon: float

    @staticmethod
    def of(scenario: Scenario, load: int, targets: Sequence[Target]) -> Window:
        """So long that percentiles have their tail, by a load that `load` GPUs of the scenario share.

        A rate that repeats does so a whole number of times. GPUs fail often enough to count as they do in the long run,
        and whatever happens at given times is seen, unless that takes too many requests.
        """
        rate = scenario.rates.arrival * load
        stay = float(alone_by_class(scenario).max())
        needed = max(each.requests * _rarity(scenario, each) for each in targets)
        seconds = float(np.clip(needed, *REQUESTS)) / float(rate.sum())
        seconds = max(seconds, STAYS * stay)
        before = max(SETTLES * (stay + scenario.arrivals.think), 0.1 * seconds, SESSIONS * _session(scenario))
        arrivals = scenario.arrivals
        if arrivals.process == "mmpp":
            seconds = max(seconds, SOJOURNS * sum(arrivals.sojourns))
        most = FOR_FAILURES / float(rate.sum())
        whole = max(
            before + seconds, *(each if each <= most else 0.0 for each in (_failing(scenario), _told(scenario)))
        )
        if whole > before + seconds:
            failing = scenario.failures
            before = max(before, min(SETTLES * (failing.mttr or 0.0) if failing else 0.0, whole / 4.0))
            seconds = whole - before
        if arrivals.process == "daily":
            seconds = arrivals.period * math.ceil(seconds / arrivals.period * (1.0 - 1e-9))
        return Window(_digits(before), _digits(before) + seconds)


def _failing(scenario: Scenario) -> float:
    """The seconds in which units fail often at random."""
    failures = scenario.failures
    return 0.0 if failures is None else ROUNDS * ((failures.mtbf or 0.0) + (failures.mttr or 0.0))


def _told(scenario: Scenario) -> float:
    """The seconds after which all that happens to GPUs at given times has happened."""
    ends = [step.time + step.start_up for step in scenario.schedule]
    for each in scenario.failures.at if scenario.failures is not None else ():
        ends.append(each.time + (each.seconds or 0.0))
    return max(ends, default=0.0)


def unseen(scenario: Scenario, seconds: float) -> Iterator[str]:
    """What a replication of so many seconds does not show of failures and schedule, and the mend."""
    if _failing(scenario) > seconds * (1.0 + 1e-9):
        assert scenario.failures is not None
        yield (
            f"failures: each run is of {seconds:.4g} s, too short for failures every {scenario.failures.mtbf:g} s of a "
            "GPU to count as they do in the long run; --spare K keeps the targets with K engines gone"
        )
    if _told(scenario) > seconds:
        yield f"failures.at, schedule: each run ends at {seconds:.4g} s, and what is to happen later is not seen"


def _rarity(scenario: Scenario, target: Target) -> float:
    """Requests for each of the target's class."""
    if target.cls is None:
        return 1.0
    rates = scenario.rates.arrival
    return float(rates.sum() / rates[scenario.class_names.index(target.cls)])


def _session(scenario: Scenario) -> float:
    """The longest mean life of a session of several turns, s."""
    alone = alone_by_class(scenario)
    lives = [
        (each.turns - 1.0) * (each.think_mean + seconds)
        for each, seconds in zip(scenario.classes, alone, strict=True)
        if each.turns > 1.0
    ]
    return float(max(lives, default=0.0))


def _digits(seconds: float) -> float:
    """The next number with three digits."""
    step = 10.0 ** (math.floor(math.log10(seconds)) - 2)
    return round(math.ceil(seconds / step) * step, 9)
