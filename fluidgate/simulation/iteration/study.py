"""Policies on the same requests, iteration by iteration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.policies import REPLAN, find_any_policy
from fluidgate.replanning import AnyPolicy, Replanning, find_replanned_policy, rule_named
from fluidgate.simulation.closed_loop import planned_load
from fluidgate.simulation.doubts import doubted
from fluidgate.simulation.iteration.behaviour import Behaviour, IterationOutcome, behaviour_of
from fluidgate.simulation.iteration.fleet import fleet_plan
from fluidgate.simulation.iteration.job import IterationJob, placement_seed, prepare, replicate
from fluidgate.simulation.iteration.other_load import other_pool
from fluidgate.simulation.iteration.results import (
    RequestResult,
    class_results,
    gpu_times,
    overall_result,
    revenue_rates,
)
from fluidgate.simulation.iteration.run import Run
from fluidgate.simulation.iteration.scenario_engine import targets_of
from fluidgate.simulation.iteration.source import Drawn, Source
from fluidgate.simulation.options import Options
from fluidgate.simulation.penalties import limited_indicators, penalty_rate
from fluidgate.simulation.plans import Plans
from fluidgate.simulation.results import samples_taken, trajectory
from fluidgate.simulation.statistics import ratio, statistic
from fluidgate.simulation.study import Study, Tell, refuse_duplicates

TakeRows = Callable[[str, int, Any], None]
"""Called with a policy's name, a replication and finished requests, dtype LOG, in the order in which they ended."""

TINY = np.finfo(float).tiny
"""In the place of a window of no time, in which nothing is counted."""


@dataclass(frozen=True)
class RequestStudy(Study[Behaviour, IterationJob, IterationOutcome, RequestResult]):
    """Policies on the same requests.

    Attributes:
        scenario: the load that is planned for.
        source: of the requests.
        seconds: that the requests arrive over; inf if unknown.
        most: requests of a replication; None if unknown.
        remarks: what to know of the requests.
        take_log: takes the requests as they end, in this process, one replication after the other.
    """

    by_iterations: ClassVar[bool] = True

    scenario: Scenario
    policies: tuple[Behaviour, ...]
    options: Options
    source: Source
    seconds: float
    most: int | None = None
    remarks: tuple[str, ...] = ()
    take_log: TakeRows | None = None

    @property
    def events(self) -> float:
        if self.most is not None:
            return 3.0 * self.most
        return 3.0 * self.options.gpus * float(self.scenario.rates.arrival.sum()) * self.seconds

    @property
    def steps(self) -> int:
        """Requests of a job where their number is known, else seconds."""
        return max(1, self.most if self.most is not None else math.ceil(self.seconds))

    @property
    def stays(self) -> bool:
        return self.take_log is not None

    @property
    def work(self) -> Callable[[IterationJob], IterationOutcome]:
        return replicate

    def run_here(self, job: IterationJob, tell: Tell | None) -> IterationOutcome:
        arrived = partial(self._tell, tell) if tell is not None else None
        take = partial(self.take_log, job.behaviour.name, job.replication) if self.take_log is not None else None
        return replicate(job, arrived, take)

    def ready(self, policy: Behaviour, plans: Plans) -> Behaviour:
        return policy.ready(self.scenario, self.source, plans, self.options.gpus)

    def job(self, policy: Behaviour, replication: int) -> IterationJob:
        options = self.options
        run = Run(
            gpus=options.gpus,
            classes=len(self.scenario.classes),
            horizon=options.horizon,
            warmup=options.warmup,
            seed=placement_seed(options.seed, replication),
            samples=samples_taken(options.samples) if self.seconds < math.inf else 0,
            sample_over=self.seconds,
            audited=options.audited,
            users=self.source.users,
            fleet=fleet_plan(self.scenario, options.seed, replication),
            **targets_of(self.scenario),
        )
        return IterationJob(self.scenario, policy.for_worker(), self.source, run, replication)

    def prepare(self, jobs: Sequence[IterationJob]) -> None:
        prepare(jobs)

    def result(self, policy: Behaviour, plans: Plans, measured: Sequence[IterationOutcome]) -> RequestResult:
        scenario, gpus = self.scenario, self.options.gpus
        runs = [outcome.measurement for outcome in measured]
        revenue = revenue_rates(scenario, runs)
        penalties = np.array(
            [penalty_rate(scenario, m.occupancy / gpus, m.completions / max(gpus * m.window, TINY)) for m in runs]
        )
        gaps = [math.nan if (mean := m.distribution("gap").mean) is None else mean for m in runs]
        closed = self.source.users > 0  # a load that waits for the cluster: no plan bounds it
        bounded = not (closed or scenario.engine.prefix_caching)  # what a cache finds is the policy's doing
        best = plans.unconstrained_if_feasible(policy.batching) if bounded else None
        own = plans.own_if_feasible(policy.batching) if bounded else None
        result = RequestResult(
            scenario=scenario.name,
            policy=policy.name,
            run=self.options,
            events=sum(m.total_events for m in runs),
            wall_seconds=sum(m.wall_seconds for m in runs),
            revenue_rate=statistic(revenue),
            optimality_ratio=statistic(ratio(revenue, best.revenue_rate if best else 0.0)),
            objective_ratio=statistic(ratio(revenue - penalties, own.objective if own else 0.0)),
            indicators=limited_indicators(scenario, [m.occupancy / gpus for m in runs], gaps),
            classes=class_results(scenario, runs),
            plan=policy.plan(plans),
            trajectory=trajectory(runs, self.options, self.seconds, scenario.class_names),
            batching=policy.batching,
            parameters=policy.bare.values,
            pilot=policy.pilot,
            overall=overall_result(scenario, runs),
            gpu_time=gpu_times(runs),
            kv_tokens=statistic([m.kv_mean for m in runs]),
            kv_peak=max(m.kv_peak for m in runs),
            iterations=sum(m.iterations for m in runs),
            window=float(np.mean([m.window for m in runs])),
            has_fleet=scenario.has_fleet,
            gpu_hours=statistic([m.gpu_hours for m in runs]),
            availability=statistic([m.availability for m in runs]),
            plan_path=policy.plan_path(gpus, measured),
        )
        known = (*policy.advice(plans), *policy.bare.remarks(scenario, gpus), *self.remarks)
        drawn = isinstance(self.source, Drawn) and not closed
        paths = [] if closed else [m.samples for m in runs]
        return doubted(result, scenario, known, paths, self.seconds, drawn=drawn)

    def _tell(self, tell: Tell, requests: int, epoch: float) -> None:
        if self.most is None and self.source.users > 0:  # whose requests have no epochs: at their greatest rate
            epoch = requests / (self.options.gpus * float(self.scenario.rates.arrival.sum()))
        tell(min(int(requests if self.most is not None else epoch), self.steps))


def drawn_study(scenario: Scenario, policies: Sequence[str | AnyPolicy], options: Options) -> RequestStudy:
    """Policies on requests drawn from the scenario.

    Raises:
        FluidgateError: as `behaviours`.
    """
    scenario = scenario.for_gpus(options.gpus)
    load = planned_load(scenario, options.gpus)
    return RequestStudy(
        scenario=load,
        policies=behaviours(load, policies, options.gpus, options.replanning),
        options=options,
        source=Drawn(scenario, options.gpus, options.seed, options.horizon),
        seconds=options.horizon,
        remarks=tuple(other_pool(scenario)),
    )


def behaviours(
    scenario: Scenario, policies: Sequence[str | AnyPolicy], gpus: int, replanning: Replanning | None = None
) -> tuple[Behaviour, ...]:
    """The policies by name, or themselves, each fit for the scenario's engines and for `gpus` of them.

    Args:
        replanning: the rule of those whose name ends in `+replan`; None for the default one.

    Raises:
        FluidgateError: a policy is unknown, named twice, or needs another engine, or a target, or more GPUs; or none
            follows the rule.
    """
    found = [_found(p, replanning or Replanning()) if isinstance(p, str) else p for p in policies]
    chosen = tuple(behaviour_of(policy.on(scenario)) for policy in found)
    refuse_duplicates([policy.name for policy in chosen])
    if replanning is not None and not any(policy.follows for policy in chosen):
        raise FluidgateError(
            f"{rule_named()}: a rule is given, but no policy follows the load; name one with {REPLAN}, "
            f"e.g. index-and-pool{REPLAN}"
        )
    for policy in chosen:
        policy.check(scenario, gpus)
    return chosen


def _found(name: str, replanning: Replanning) -> AnyPolicy:
    return find_replanned_policy(name, replanning) if name.endswith(REPLAN) else find_any_policy(name)
