"""Runs that doubt themselves: what in a result a reader should not take as it stands. Each doubt has its criterion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array, Scenario
from fluidgate.planning.per_gpu_rates import looks_like_a_total
from fluidgate.policies.decisions.stages import MIXED_QUEUE, PREFILL_QUEUE, SOLO_QUEUE
from fluidgate.session_table import cluster_size
from fluidgate.simulation.options import Options
from fluidgate.simulation.results import ClassResult, SimulationResult
from fluidgate.simulation.statistics import Statistic
from fluidgate.wording import all_worded

ResultT = TypeVar("ResultT", bound=SimulationResult)

FAR = 0.1
"""Relative distance from the scenario's rates and lengths, which the plan and R* are for, that a reader is told of."""
BEYOND_CHANCE = 3.0
"""Standard deviations that are no chance."""
STILL_GROWING = 0.25
"""Least share of the growth that falls in the second half of the time: half of it in a steady one, less than this where
the queue settles in a quarter of the time or sooner."""
REQUESTS = 2.0
"""Mean times of a request that meets nobody, below which a run is too short to say anything of queues."""
EXPECTED = 10.0
"""Completions by the plan from which on none at all is no chance."""
MARGIN = 0.05
"""Excess of a share of R* over 1 that a single replication, which has no confidence, must show."""

Path = NDArray[np.int64]
"""Occupancies at even epochs from 0 on, shape (samples, 6, classes)."""


def doubted(
    result: ResultT,
    scenario: Scenario,
    known: Sequence[str],
    paths: Sequence[Path],
    seconds: float,
    *,
    drawn: bool = True,
) -> ResultT:
    """The result with all that a reader should know.

    Args:
        scenario: its load shared by the GPUs.
        known: what was known before the run.
        paths: one a replication, from 0 to `seconds`; empty where none was recorded.
        drawn: whether the requests are drawn by the scenario's laws.
    """
    run = result.run
    found = [
        *known,
        *(looks_like_a_total(scenario, run.gpus) if drawn else ()),
        *(other_arrivals(scenario, result) if drawn else ()),
        *growing_queues(scenario, run, paths, seconds),
        *nothing_completed(scenario, result),
        *more_than_the_bound(scenario, result),
    ]
    return replace(result, warnings=all_worded(found))


def growing_queues(scenario: Scenario, run: Options, paths: Sequence[Path], seconds: float) -> Iterator[str]:
    """Queues that grow over the window, or over the second half of the run where that is longer.

    A queue without drift is a random walk: over the window its change has mean 0 and the variance of its steps' squares
    taken together; one that comes back to its mean changes less. So the changes of all replications together, over the
    root of those squares, are beyond `BEYOND_CHANCE` where there is a drift, and much smaller in a stable run. A queue
    that fills up first and then settles does not grow in the second half. A time of fewer than `REQUESTS` requests, one
    after the other, shows neither.
    """
    if seconds < REQUESTS * alone(scenario):
        return
    samples = min(map(len, paths), default=0)
    first = math.ceil(min(run.warmup, seconds / 2) / seconds * (samples - 1)) if samples > 1 else 0
    if samples - first < 4:
        return
    waiting = np.stack([path[first:samples, [PREFILL_QUEUE, MIXED_QUEUE, SOLO_QUEUE]].sum(axis=1) for path in paths])
    classes = np.flatnonzero([_grows(waiting[..., i]) for i in range(waiting.shape[2])])
    if len(classes) == 0 and not _grows(waiting.sum(axis=2)):
        return
    some = 0 < len(classes) < len(scenario.classes)
    whose = f" of class {_names([scenario.class_names[i] for i in classes])}" if some else ""
    of = waiting[..., classes] if some else waiting
    before, after = of.sum(axis=2).mean(axis=0)[[0, -1]]
    since = first / (samples - 1) * seconds
    yield (
        f"the requests{whose} that wait grow in number, from {before:.4g} at {since:.4g} s to {after:.4g} at "
        f"{seconds:.4g} s: this run has no steady state, and its times depend on how long it is; give more GPUs or "
        "less load, or a longer run if the queues settle later"
    )


def _grows(waiting: NDArray[np.int64]) -> bool:
    """Whether those who wait grow in number; shape (replications, samples)."""
    steps = np.diff(waiting, axis=1).astype(np.float64)
    growth = float(steps.sum())
    late = float((waiting[:, -1] - waiting[:, waiting.shape[1] // 2]).sum())
    return growth > BEYOND_CHANCE * math.sqrt(float((steps**2).sum())) and late > STILL_GROWING * growth


def other_arrivals(scenario: Scenario, result: SimulationResult) -> Iterator[str]:
    """Arrivals of the window that are not those of the long run, which the plan and R* are for.

    A rate that repeats must do so a whole number of times, in the run or in its window. Otherwise the count in the
    window must lie within `FAR` of the scenario's rates, or within the chance of independent gaps between sessions.
    """
    run, arrivals = result.run, scenario.arrivals
    cluster, window = run.gpus, run.horizon - run.warmup
    seen, planned = cluster * _sum(result.classes, "arrival_rate"), cluster * float(scenario.rates.arrival.sum())
    said = (
        f"{seen:.4g} requests/s arrive in its window, {planned:.4g} by the scenario's rates, which the plan, and R*, "
        "are for"
    )
    if arrivals.process == "daily" and not (_whole(run.horizon, arrivals.period) or _whole(window, arrivals.period)):
        periods = math.ceil(run.horizon / arrivals.period)
        yield (
            f"the horizon of {run.horizon:.6g} s is no whole number of the arrivals' periods of "
            f"{arrivals.period:.6g} s: {said}; give --horizon {periods * arrivals.period:.10g}"
        )
        return
    sessions = planned * window * run.replications / cluster_size(scenario.of_sessions)
    chance = arrivals.cv / math.sqrt(sessions)
    if abs(seen / planned - 1.0) > max(FAR, BEYOND_CHANCE * chance):
        mend = (
            "a --warmup of whole periods, or of 0"
            if arrivals.process == "daily"
            else "a --horizon that is long against the arrivals' changes, or more --replications"
        )
        yield f"the run is short for its arrivals: {said}; give {mend}"


def nothing_completed(scenario: Scenario, result: SimulationResult) -> Iterator[str]:
    """No completion in the window; or none of a class of which the plan completes `EXPECTED` or more."""
    window = result.window_seconds
    if _sum(result.classes, "arrival_rate") == 0.0:
        yield f"no request arrives in the window of {window:.4g} s; give a longer --horizon, or a shorter --warmup"
        return
    if _sum(result.classes, "completion_rate") == 0.0:
        yield f"no request is completed in the window of {window:.4g} s: {_why(scenario, result)}"
        return
    if result.plan is None:
        return
    scale = result.run.gpus * window * result.run.replications
    expected = result.plan.completion_rate * scale
    without = [
        each.name
        for each, count in zip(result.classes, expected, strict=True)
        if each.arrival_rate.mean and not each.completion_rate.mean and count >= EXPECTED
    ]
    if without:
        yield (
            f"no request of class {_names(without)} is completed in the window of {window:.4g} s, though the plan "
            "serves some; name another policy, or give a longer --horizon"
        )


def _why(scenario: Scenario, result: SimulationResult) -> str:
    seconds = alone(scenario)
    placed = _sum(result.classes, "mixed_decode") + _sum(result.classes, "solo_decode")
    if scenario.gpu.batch_size == 1 and placed == 0.0 and _sum(result.classes, "prefill_completion_rate") > 0.0:
        return (
            "with batch_size 1 a GPU of the mixed group keeps its one slot for prefills and takes B - 1 = 0 decodes, "
            "and there is no other; raise batch_size or --gpus, or name another policy, e.g. index-and-pool"
        )
    if _sum(result.classes, "rejection_rate") > 0.0:
        return "requests are rejected, for the KV memory of a GPU holds none of them; raise [engine] kv_tokens"
    if result.window_seconds < REQUESTS * seconds:
        return f"one of mean lengths takes {seconds:.4g} s where it meets nobody; give a longer --horizon"
    return "the policy serves nobody; name another, or look where requests wait"


def more_than_the_bound(scenario: Scenario, result: SimulationResult) -> Iterator[str]:
    """A share of R* above 1 beyond its confidence, and beyond the chance of so many completions.

    Without replications there is no confidence: then by `MARGIN`.
    """
    ratio = result.optimality_ratio
    if ratio.mean is None:
        return
    observed = result.run.gpus * result.window_seconds * result.run.replications
    completed = _sum(result.classes, "completion_rate") * observed
    least, low, sure = MARGIN, ratio.mean, ""
    if ratio.ci95 is not None:
        least, low, sure = 0.0, ratio.ci95[0], f" ({ratio.ci95[0]:.4g} to {ratio.ci95[1]:.4g})"
    if low <= 1.0 or ratio.mean - 1.0 <= max(least, BEYOND_CHANCE / math.sqrt(max(completed, 1.0))):
        return
    load = _sum(result.classes, "arrival_rate") / float(scenario.rates.arrival.sum())
    brought = f"; here {load:.3g} times as many requests arrive" if load > 1.005 else ""
    yield (
        f"the share of R* is {ratio.mean:.4g}{sure}, above 1: R* is for the scenario's mean rates and lengths, and for "
        f"its iteration times as the plan reads them, and does not bound a run that has others{brought}"
    )


def alone(scenario: Scenario) -> float:
    """Seconds that a request of mean lengths takes where it meets nobody, on average over those who arrive."""
    arrival = scenario.rates.arrival
    return float((arrival / arrival.sum() * alone_by_class(scenario)).sum())


def alone_by_class(scenario: Scenario) -> Array:
    """The same by class."""
    rates = scenario.rates
    return 1.0 / rates.prefill + 1.0 / rates.solo_decode


def _whole(seconds: float, period: float) -> bool:
    periods = seconds / period
    return round(periods) >= 1 and abs(periods - round(periods)) < 1e-6 * periods


def _sum(classes: Sequence[ClassResult], quantity: str) -> float:
    """Over the classes that have the quantity, the means together."""
    found: list[Any] = [getattr(each, quantity, None) for each in classes]
    return sum(value.mean for value in found if isinstance(value, Statistic) and value.mean is not None)


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
