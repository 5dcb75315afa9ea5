"""How long a replication is simulated for a set of targets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fluidgate.batching import Batching
from fluidgate.model import Array, Scenario
from fluidgate.planning.batches.need import need
from fluidgate.planning.lengths import lengths_of
from fluidgate.shown import Brief
from fluidgate.simulation.doubts import alone_by_class
from fluidgate.sizing.targets import Target, least_served

REQUESTS = (4_000.0, 400_000.0)
"""Of a replication, at least and at most."""
STAYS = 20.0
"""Mean times of a request alone that the window holds at least, unless they bring more than"""
PLENTY = 100_000.0
"""requests: then so many, or `SETTLES` such times."""
SETTLES = 5.0
"""Mean times of a request alone that go before it, and more where few answers are much longer than the others:"""
UNSETTLED = 0.041
"""until no more than this share of the memory that answers hold in the long run is still missing, which is after
`SETTLES` means of an exponential law,"""
FOR_SETTLING = 50_000.0
"""unless that took more requests than these."""
LONGEST_OF = 65_536
"""Answers of a class, of which the longest is looked at."""
SOJOURNS = 20.0
"""Rounds of all phases, where arrivals have phases, that the window holds at least."""
FAILURES = 20.0
"""Of the units of the fewest GPUs that serve the load, that a run holds,"""
FEWEST_FAILURES = 5.0
"""or at least so many: where not even these happen in"""
FOR_FAILURES = 150_000.0
"""requests, a run is not made longer for them."""
SESSIONS = 4.0
"""Mean lives of a session, which the warm-up holds."""


@dataclass(frozen=True, repr=False)
class Window(Brief):
    """Statistics are taken over (warmup, horizon], s."""

    warmup: float
    horizon: float

    @staticmethod
    def of(scenario: Scenario, load: int, targets: Sequence[Target]) -> Window:
        """So long that percentiles have their tail, by a load that `load` GPUs of the scenario share.

        A rate that repeats does so a whole number of times. GPUs fail often enough to count as they do in the long run,
        and whatever happens at given times is seen, unless that takes too many requests.

        Raises:
            FluidgateError: a trace of empirical lengths is wrong.
        """
        rate = float(scenario.rates.arrival.sum()) * load
        stay = float(alone_by_class(scenario).max())
        needed = max(each.requests * _rarity(scenario, each) for each in targets)
        seconds = float(np.clip(needed, *REQUESTS)) / rate
        seconds = max(seconds, min(STAYS * stay, max(PLENTY / rate, SETTLES * stay)))
        before = max(
            SETTLES * (stay + scenario.arrivals.think),
            min(_settling(scenario), FOR_SETTLING / rate),
            0.1 * seconds,
            SESSIONS * _session(scenario),
        )
        arrivals = scenario.arrivals
        if arrivals.process == "mmpp":
            seconds = max(seconds, SOJOURNS * sum(arrivals.sojourns))
        most, told = FOR_FAILURES / rate, _told(scenario)
        between = _between_failures(scenario, load, targets)
        fails = min(FAILURES * between, most) if FEWEST_FAILURES * between <= most else 0.0
        whole = max(before + seconds, fails, told if told <= most else 0.0)
        if whole > before + seconds:
            failing = scenario.failures
            before = max(before, min(SETTLES * (failing.mttr or 0.0) if failing else 0.0, whole / 4.0))
            seconds = whole - before
        if arrivals.process == "daily":
            seconds = arrivals.period * math.ceil(seconds / arrivals.period * (1.0 - 1e-9))
        return Window(_digits(before), _digits(before) + seconds)


def _settling(scenario: Scenario) -> float:
    """Seconds in which a fleet that begins empty comes to hold what answers hold in the long run.

    `E[X^2; X > x] - x^2 P(X > x)`, over `E X^2`, is the share that those of the last `x` have yet to write.
    """
    sizes, seconds = lengths_of(scenario), 1.0 / scenario.rates.solo_decode
    return max(float(mean) * _means(each.requests(LONGEST_OF)[1]) for each, mean in zip(sizes, seconds, strict=True))


def _means(answers: Array) -> float:
    """After so many means of a law all but `UNSETTLED` of what its answers hold is there."""
    lengths = np.sort(answers)
    squares = np.cumsum(lengths[::-1] ** 2)[::-1]
    missing = (squares - lengths**2 * np.arange(len(lengths), 0, -1)) / squares[0]
    return float(lengths[np.argmax(missing <= UNSETTLED)] / lengths.mean())


def _between_failures(scenario: Scenario, load: int, targets: Sequence[Target]) -> float:
    """The mean seconds from one random failure to the next of the fewest GPUs that serve a load; 0 where none fails."""
    failures = scenario.failures
    if failures is None or failures.mtbf is None or failures.mttr is None:
        return 0.0
    least = need(scenario, Batching.TOKEN_BUDGET, least_served(scenario, targets)).engines(load)
    return (failures.mtbf + failures.mttr) / math.ceil(least / max(failures.units, scenario.engine.data_parallel))


def _told(scenario: Scenario) -> float:
    """The seconds after which all that happens to GPUs at given times has happened."""
    ends = [step.time + step.start_up for step in scenario.schedule]
    for each in scenario.failures.at if scenario.failures is not None else ():
        ends.append(each.time + (each.seconds or 0.0))
    return max(ends, default=0.0)


def unsettled(scenario: Scenario, window: Window) -> Iterator[str]:
    """That a fleet which begins empty is not yet as in the long run when the window begins, and the mend."""
    if _settling(scenario) > window.warmup * (1.0 + 1e-2):
        yield (
            f"lengths: few answers are so much longer than the others that after {window.warmup:.4g} s, where the "
            "window begins, those in progress still grow in number: a longer run may need more GPUs; give lengths that "
            "end where the engine's context does"
        )


def unseen(scenario: Scenario, targets: Sequence[Target], seconds: float) -> Iterator[str]:
    """What a replication of so many seconds does not show of failures and schedule, and the mend."""
    if FEWEST_FAILURES * _between_failures(scenario, scenario.cluster_gpus or 1, targets) > seconds * (1.0 + 1e-2):
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
