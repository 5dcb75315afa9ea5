"""Simulate policies request by request: replications of the iteration model, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fluidgate.errors import InfeasiblePlanError
from fluidgate.model import Scenario
from fluidgate.planning import Plan
from fluidgate.planning.penalty import penalty
from fluidgate.policies import PlacedPolicy, Policy, find_any_policy
from fluidgate.simulation.executor import Executor, InProcess
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.published import check_pools
from fluidgate.simulation.markov.network import PREFILL, SOLO_DECODE
from fluidgate.simulation.requests.engine import batching_of, check_batching, engine_of
from fluidgate.simulation.requests.job import Job, prepare, replicate
from fluidgate.simulation.requests.pilot import Pilot, with_prompt_pool
from fluidgate.simulation.requests.results import (
    RequestResult,
    RequestRun,
    class_results,
    gpu_times,
    overall_result,
    revenue_rates,
)
from fluidgate.simulation.requests.source import Drawn, Source
from fluidgate.simulation.results import Run, trajectory
from fluidgate.simulation.simulate import Options, Plans, Progress, executor_for, ratio, refuse_twins
from fluidgate.simulation.statistics import statistic

TakeRows = Callable[[str, int, Any], None]
"""Called with a policy's name, a replication and finished requests, dtype LOG, in the order in which they ended."""


@dataclass(frozen=True)
class Study:
    """Policies on the same requests.

    Attributes:
        scenario: its load shared by the run's GPUs.
        seconds: that the requests arrive over; inf if unknown.
        most: requests of a replication; None if unknown.
        samples: occupancies recorded, evenly over `seconds`.
        remarks: what to know of the requests.
    """

    scenario: Scenario
    policies: tuple[Policy | PlacedPolicy, ...]
    source: Source
    run: Run
    seconds: float
    most: int | None = None
    samples: int = 0
    audited: bool = False
    remarks: tuple[str, ...] = ()

    def results(
        self,
        executor: Executor | None,
        workers: int | None,
        progress: Progress | None,
        take_log: TakeRows | None = None,
    ) -> list[RequestResult]:
        """Run all replications; a log is taken in this process, one replication after the other."""
        plans = Plans(self.scenario, self.run.gpus)
        ready = [self._ready(policy) for policy in self.policies]
        jobs = list(self._jobs([policy for policy, _ in ready], plans))
        if executor is None:
            executor = InProcess() if take_log else executor_for(self._events() * len(jobs), len(jobs), workers)
        prepare(jobs)
        measured = list(self._measured(jobs, executor, progress, take_log))
        size = self.run.replications
        return [
            self._result(policy, pilot, plans, measured[k * size : (k + 1) * size])
            for k, (policy, pilot) in enumerate(ready)
        ]

    def _ready(self, policy: Policy | PlacedPolicy) -> tuple[Policy | PlacedPolicy, Pilot | None]:
        """The policy as it runs, and the pilot run that it took."""
        if isinstance(policy, Policy):
            return policy, None
        return with_prompt_pool(policy, self.scenario, self.source, self.run.gpus)

    def _measured(
        self, jobs: list[Job], executor: Executor, progress: Progress | None, take_log: TakeRows | None
    ) -> Iterator[IterationMeasurement]:
        if not isinstance(executor, InProcess):
            for k, measurement in enumerate(executor.map(replicate, jobs)):
                yield measurement
                if progress is not None:
                    progress(k + 1, len(jobs))
            return
        for k, job in enumerate(jobs):
            taker = partial(take_log, job.policy.name, job.replication) if take_log is not None else None
            yield replicate(job, partial(self._tell, progress, k, len(jobs)) if progress else None, taker)
            if progress is not None:
                progress(self._extent * (k + 1), self._extent * len(jobs))

    def _tell(self, progress: Progress, done: int, jobs: int, requests: int, epoch: float) -> None:
        """Progress within a job, in requests where their number is known, else in seconds."""
        within = requests if self.most is not None else epoch
        progress(self._extent * done + min(int(within), self._extent), self._extent * jobs)

    @property
    def _extent(self) -> int:
        """Of a job, in requests or in seconds."""
        return max(1, self.most if self.most is not None else math.ceil(self.seconds))

    def _events(self) -> float:
        """Arrivals, prefills and decodes of a replication in which nobody leaves."""
        if self.most is not None:
            return 3.0 * self.most
        return 3.0 * self.run.gpus * float(self.scenario.rates.arrival.sum()) * self.seconds

    def _jobs(self, policies: Sequence[Policy | PlacedPolicy], plans: Plans) -> Iterator[Job]:
        run = self.run
        for policy in policies:
            tables, sent = None, policy
            if isinstance(policy, Policy):
                tables, sent = policy.tabulate(plans.of(policy), run.gpus), policy.for_worker()
            for replication in range(run.replications):
                yield Job(
                    scenario=self.scenario,
                    policy=sent,
                    tables=tables,
                    source=self.source,
                    gpus=run.gpus,
                    horizon=run.horizon,
                    warmup=run.warmup,
                    seed=run.seed,
                    replication=replication,
                    samples=self.samples,
                    sample_over=self.seconds if self.samples else None,
                    audited=self.audited,
                )

    def _result(
        self, policy: Policy | PlacedPolicy, pilot: Pilot | None, plans: Plans, measured: list[IterationMeasurement]
    ) -> RequestResult:
        scenario, gpus = self.scenario, self.run.gpus
        revenue = revenue_rates(scenario, measured)
        held = [m.occupancy / gpus for m in measured]
        penalties = np.array([penalty(scenario, each[PREFILL], each[SOLO_DECODE]) for each in held])
        best, own = _if_feasible(lambda: plans.unconstrained), _if_feasible(lambda: plans.own)
        return RequestResult(
            scenario=scenario.name,
            policy=policy.name,
            run=self.run,
            events=sum(m.total_events for m in measured),
            wall_seconds=sum(m.wall_seconds for m in measured),
            revenue_rate=statistic(revenue),
            optimality_ratio=statistic(ratio(revenue, best.revenue_rate if best else 0.0)),
            objective_ratio=statistic(ratio(revenue - penalties, own.objective if own else 0.0)),
            classes=class_results(scenario, measured),
            plan=plans.of(policy) if isinstance(policy, Policy) else own,
            trajectory=trajectory(measured, gpus, self.seconds),
            remarks=(*self.remarks, *policy.remarks(scenario, gpus)),
            batching=batching_of(policy),
            parameters=policy.values,
            pilot=pilot,
            overall=overall_result(scenario, measured),
            gpu_time=gpu_times(measured),
            kv_tokens=statistic([m.kv_mean for m in measured]),
            kv_peak=max(m.kv_peak for m in measured),
            iterations=sum(m.iterations for m in measured),
            window=float(np.mean([m.window for m in measured])),
        )


def run_drawn(
    scenario: Scenario,
    policies: Sequence[str | Policy | PlacedPolicy],
    options: Options,
    executor: Executor | None,
    workers: int | None,
    progress: Progress | None,
) -> list[RequestResult]:
    """Simulate policies on requests drawn from the scenario; see `fluidgate.simulation.simulate`."""
    run = options.run(scenario)
    scenario = scenario.for_gpus(run.gpus)
    study = Study(
        scenario=scenario,
        policies=chosen_policies(scenario, policies, run.gpus),
        source=Drawn(scenario, run.gpus, run.seed, run.horizon),
        run=RequestRun(run.gpus, run.horizon, run.warmup, run.replications, run.seed),
        seconds=run.horizon,
        samples=options.samples,
        audited=options.audited,
    )
    return study.results(executor, workers, progress)


def chosen_policies(
    scenario: Scenario, policies: Sequence[str | Policy | PlacedPolicy], gpus: int
) -> tuple[Policy | PlacedPolicy, ...]:
    """The policies by name, each fit for the scenario's engines and for `gpus` of them.

    Raises:
        FluidgateError: a policy is unknown, named twice, or needs another engine, or a target, or more GPUs.
    """
    chosen = [find_any_policy(p) if isinstance(p, str) else p for p in policies]
    refuse_twins([policy.name for policy in chosen])
    for policy in chosen:
        check_batching(scenario, policy)
        engine_of(scenario, batching_of(policy))
        if isinstance(policy, PlacedPolicy):
            check_pools(policy, gpus)
    return tuple(chosen)


def _if_feasible(solve: Callable[[], Plan]) -> Plan | None:
    """A plan that nothing but the report needs."""
    try:
        return solve()
    except InfeasiblePlanError:
        return None
