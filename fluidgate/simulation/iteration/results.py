"""Results of a simulation of requests: statistics, distributions of times, goodput, GPU time, KV memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.policies.decisions.stages import (
    MIXED_DECODE,
    MIXED_QUEUE,
    PREFILL,
    PREFILL_QUEUE,
    SOLO_DECODE,
    SOLO_QUEUE,
)
from fluidgate.simulation.events import PREFILL_END
from fluidgate.simulation.iteration.kernel.cluster import PROMPT_READ
from fluidgate.simulation.iteration.logged import THROUGHPUT, Agreement, LoggedRun, Summary, agreement
from fluidgate.simulation.iteration.measure import Distribution, IterationMeasurement
from fluidgate.simulation.iteration.pilot import Pilot
from fluidgate.simulation.iteration.plan_path import PlanPath
from fluidgate.simulation.iteration.times import TIMES
from fluidgate.simulation.results import ClassResult, Comparison, SimulationResult, measures_of, named_one
from fluidgate.simulation.statistics import Statistic, statistic

QUANTILES = ("p50", "p90", "p95", "p99")
EVERY = "all"
"""Name of the result over all classes."""


@dataclass(frozen=True, repr=False)
class TimeStatistic(Statistic):
    """A time in s: its mean over replications, and the quantiles of all its observations.

    Attributes:
        p50, p90, p95, p99: within 0.2 %; None if nothing was observed.
        quantile_ci95: of each of those, by name, the 95 % confidence interval of its mean over replications.
        quantile_values: of each of those, by name, one a replication, nan where nothing was observed.
        count: observations in all replications.
        distribution: all of them.
    """

    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    quantile_ci95: dict[str, tuple[float, float] | None]
    quantile_values: dict[str, tuple[float, ...]] = field(repr=False, compare=False)
    count: int
    distribution: Distribution = field(repr=False, compare=False)

    @staticmethod
    def of(parts: Sequence[Distribution]) -> TimeStatistic:
        """One distribution a replication."""
        whole = Distribution(np.sum([part.counts for part in parts], axis=0), float(sum(part.total for part in parts)))
        mean = statistic([np.nan if part.mean is None else part.mean for part in parts])
        quantiles = {name: _quantile(parts, name) for name in QUANTILES}
        return TimeStatistic(
            **vars(mean),
            **{name: getattr(whole, name) for name in QUANTILES},
            quantile_ci95={name: each.ci95 for name, each in quantiles.items()},
            quantile_values={name: each.values for name, each in quantiles.items()},
            count=whole.observations,
            distribution=whole,
        )

    def parts(self) -> dict[str, Statistic]:
        """Its percentiles: of all observations, with the spread of those of the replications."""
        return {
            name: replace(statistic(list(values)), mean=getattr(self, name))
            for name, values in self.quantile_values.items()
        }

    def to_dict(self) -> dict[str, object]:
        intervals = {name: None if found is None else list(found) for name, found in self.quantile_ci95.items()}
        return {
            **super().to_dict(),
            **{name: getattr(self, name) for name in QUANTILES},
            **{f"{name}_ci95": interval for name, interval in intervals.items()},
            "count": self.count,
        }


def _quantile(parts: Sequence[Distribution], name: str) -> Statistic:
    found = [getattr(part, name) for part in parts]
    return statistic([np.nan if each is None else each for each in found])


@dataclass(frozen=True, repr=False)
class RequestClassResult(ClassResult):
    """Statistics of one class, or of all: what the Markov network has, after the tokens themselves, and more.

    Attributes:
        ttft: arrival to first token.
        decode_wait: end of the prefill to the decode's first iteration.
        tpot: (last token - first token)/(tokens - 1), of requests with two tokens or more.
        prefill_wait: arrival to the iteration that reads the first chunk.
        gap: between two tokens of a request.
        stall: the gaps that a prefill lengthened.
        latency: arrival to last token.
        goodput: completions within the targets, per GPU and second; no mean where there is no target.
        prompt_token_rate, output_token_rate: prompts read and outputs of completed requests, tokens/s per GPU.
        preemption_rate: preemptions, 1/s per GPU.
        rejection_rate: requests that no GPU's memory could hold, 1/s per GPU.
        loss_rate: requests that went elsewhere because their GPU failed, 1/s per GPU.
        prefix_hit_rate: tokens of prompts that were in memory when these were given theirs, over all of their tokens;
            no mean without prefix caching.
    """

    ttft: TimeStatistic
    decode_wait: TimeStatistic
    tpot: TimeStatistic
    prefill_wait: TimeStatistic
    gap: TimeStatistic
    stall: TimeStatistic
    latency: TimeStatistic
    goodput: Statistic
    prompt_token_rate: Statistic
    output_token_rate: Statistic
    preemption_rate: Statistic
    rejection_rate: Statistic
    loss_rate: Statistic
    prefix_hit_rate: Statistic


@dataclass(frozen=True, kw_only=True, repr=False)
class RequestResult(SimulationResult):
    """A policy simulated request by request.

    Attributes:
        batching: how its GPUs form batches.
        parameters: values of what the policy leaves open.
        pilot: the run that found the size of its prompt pool, if one did.
        overall: over all classes.
        gpu_time: shares of the GPUs' time: idle, solo, mixed (a chunk beside decodes), prefill (a chunk alone).
        kv_tokens: tokens of KV held by a GPU, time average.
        kv_peak: most that a GPU held, in any replication.
        iterations: in all replications.
        window: s, from the warm-up to the end, mean over replications.
        plan_path: how the plan followed the load; None where it stands.
        gpu_hours: in the window, of GPUs that are up, start, or finish what they have.
        availability: share of the time for which GPUs are meant to be up that they take requests.
        has_fleet: whether GPUs may fail, or are started and drained.
    """

    batching: str
    parameters: dict[str, float]
    pilot: Pilot | None
    overall: RequestClassResult
    classes: tuple[RequestClassResult, ...]
    gpu_time: dict[str, Statistic]
    kv_tokens: Statistic
    kv_peak: float
    iterations: int
    window: float
    gpu_hours: Statistic
    availability: Statistic
    plan_path: PlanPath | None = None
    has_fleet: bool = False

    @property
    def window_seconds(self) -> float:
        return self.window

    def body(self) -> dict[str, Any]:
        return {
            **super().body(),
            "batching": self.batching,
            "parameters": self.parameters,
            "pilot": None if self.pilot is None else self.pilot.to_dict(),
            "overall": self.overall.to_dict(),
            "gpu_time": {mode: share.to_dict() for mode, share in self.gpu_time.items()},
            "kv_tokens": {**self.kv_tokens.to_dict(), "peak": self.kv_peak},
            "iterations": self.iterations,
            "window": self.window,
            "gpu_hours": self.gpu_hours.to_dict(),
            "availability": self.availability.to_dict(),
            **({"replanning": self.plan_path.to_dict()} if self.plan_path is not None else {}),
        }

    @property
    def summary(self) -> Summary:
        """As of a logged run."""
        found: dict[tuple[str, str], float | None] = {}
        times = {"TTFT": self.overall.ttft, "TPOT": self.overall.tpot, "latency": self.overall.latency}
        for quantity, time in times.items():
            for name in ("mean", *QUANTILES):
                found[quantity, name] = getattr(time, name)
        rate = self.overall.output_token_rate.mean
        found[THROUGHPUT] = None if rate is None else rate * self.run.gpus
        return found

    def measures(self) -> Iterator[tuple[str | None, str, Statistic]]:
        yield from super().measures()
        yield from measures_of(self.overall)
        for mode, share in self.gpu_time.items():
            yield None, f"{mode}_time", share
        yield None, "kv_tokens", self.kv_tokens
        yield None, "gpu_hours", self.gpu_hours
        yield None, "availability", self.availability


@dataclass(frozen=True, repr=False)
class ReplayComparison(Comparison):
    """Policies on the requests of traces.

    Attributes:
        logged: what became of the requests of the traces, where they say it and were played as they were.
    """

    policies: tuple[RequestResult, ...]
    logged: LoggedRun | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, name: str) -> RequestResult:
        """The result of a policy, by its name."""
        return named_one(self.policies, "policy", "policy", name)

    def __iter__(self) -> Iterator[RequestResult]:
        return iter(self.policies)

    @property
    def agreement(self) -> tuple[tuple[str, Agreement], ...]:
        """By policy, the statistics measured and simulated; empty where nothing was measured."""
        if self.logged is None:
            return ()
        measured = self.logged.summary
        return tuple((each.policy, row) for each in self.policies for row in agreement(measured, each.summary))

    def to_dict(self) -> dict[str, Any]:
        rows = [{"policy": name, **asdict(row), "relative": row.relative} for name, row in self.agreement]
        return {**super().to_dict(), "clock": self.logged.clock if rows and self.logged else None, "agreement": rows}


def revenue_rates(scenario: Scenario, measurements: Sequence[IterationMeasurement]) -> Array:
    """Revenue per GPU and second of each replication, at each request's own lengths; shape (replications,).

    nan without prices.
    """
    if not scenario.priced:
        return np.full(len(measurements), np.nan)
    earned = np.array([m.revenue(scenario.pricing).sum() for m in measurements])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(earned / np.array([m.gpus * m.window for m in measurements]))


def class_results(scenario: Scenario, measurements: Sequence[IterationMeasurement]) -> tuple[RequestClassResult, ...]:
    """Statistics of every class over the replications."""
    targets = zip(scenario.ttft_targets, scenario.tpot_targets, strict=True)
    return tuple(
        _class_result(name, measurements, k, any(target), scenario.engine.prefix_caching)
        for k, (name, target) in enumerate(zip(scenario.class_names, targets, strict=True))
    )


def overall_result(scenario: Scenario, measurements: Sequence[IterationMeasurement]) -> RequestClassResult:
    """The same over all classes; its goodput takes a class without targets as always good."""
    has_target = any((*scenario.ttft_targets, *scenario.tpot_targets))
    return _class_result(EVERY, measurements, None, has_target, scenario.engine.prefix_caching)


def gpu_times(measurements: Sequence[IterationMeasurement]) -> dict[str, Statistic]:
    """Share of the GPUs' time in each mode."""
    shares = [m.gpu_time for m in measurements]
    return {mode: statistic([share[mode] for share in shares]) for mode in shares[0]}


def _class_result(
    name: str, measurements: Sequence[IterationMeasurement], cls: int | None, has_target: bool, caches: bool
) -> RequestClassResult:
    every = slice(None) if cls is None else slice(cls, cls + 1)
    scale = np.array([m.gpus * m.window for m in measurements])
    gpus = np.array([m.gpus for m in measurements])

    def held(*stages: int) -> Statistic:
        return statistic(np.array([m.occupancy[list(stages), every].sum() for m in measurements]) / gpus)

    def rate(counts: Sequence[Any]) -> Statistic:
        with np.errstate(invalid="ignore", divide="ignore"):
            return statistic(np.array([count[every].sum() for count in counts]) / scale)

    times = {what: TimeStatistic.of([m.distribution(what, cls) for m in measurements]) for what in TIMES}
    nothing = statistic(np.full(len(measurements), np.nan))
    with np.errstate(invalid="ignore"):
        found = np.array([m.prompt_found[every].sum() / m.prompt_admitted[every].sum() for m in measurements])
    return RequestClassResult(
        name=name,
        prefill=held(PREFILL),
        mixed_decode=held(MIXED_DECODE),
        solo_decode=held(SOLO_DECODE),
        prefill_queue=held(PREFILL_QUEUE),
        decode_queue=held(MIXED_QUEUE, SOLO_QUEUE),
        arrival_rate=rate([m.arrivals for m in measurements]),
        prefill_completion_rate=rate([m.events[PREFILL_END] for m in measurements]),
        completion_rate=rate([m.completions for m in measurements]),
        prefill_abandonment_rate=rate([m.prefill_abandonments for m in measurements]),
        decode_abandonment_rate=rate([m.decode_abandonments for m in measurements]),
        goodput=rate([m.within_targets for m in measurements]) if has_target else nothing,
        prompt_token_rate=rate([m.tokens[PROMPT_READ] for m in measurements]),
        output_token_rate=rate([m.output_tokens for m in measurements]),
        preemption_rate=rate([m.preemptions for m in measurements]),
        rejection_rate=rate([m.rejections for m in measurements]),
        loss_rate=rate([m.losses for m in measurements]),
        prefix_hit_rate=statistic(found) if caches else nothing,
        **times,
    )
