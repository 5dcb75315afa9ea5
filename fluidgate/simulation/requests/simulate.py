"""Simulate policies request by request: replications of the iteration model, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fluidgate.errors import FluidgateError, InfeasiblePlanError
from fluidgate.model import Scenario
from fluidgate.planning import Plan
from fluidgate.planning.penalty import penalty
from fluidgate.policies import REPLAN, PlacedPolicy, Policy, find_any_policy
from fluidgate.replanning import ReplannedPolicy, Replanning, find_replanned_policy
from fluidgate.simulation.executor import Executor, InProcess
from fluidgate.simulation.iteration.published import check_pools
from fluidgate.simulation.markov.network import PREFILL, SOLO_DECODE
from fluidgate.simulation.requests.engine import batching_of, check_batching, engine_of
from fluidgate.simulation.requests.job import Job, Outcome, prepare, replicate
from fluidgate.simulation.requests.pilot import Pilot, with_prompt_pool
from fluidgate.simulation.requests.plan_path import PlanPath
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

AnyPolicy = Policy | PlacedPolicy | ReplannedPolicy
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
    policies: tuple[AnyPolicy, ...]
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

    def _ready(self, policy: AnyPolicy) -> tuple[AnyPolicy, Pilot | None]:
        """The policy as it runs, and the pilot run that it took."""
        if not isinstance(policy, PlacedPolicy):
            return policy, None
        return with_prompt_pool(policy, self.scenario, self.source, self.run.gpus)

    def _measured(
        self, jobs: list[Job], executor: Executor, progress: Progress | None, take_log: TakeRows | None
    ) -> Iterator[Outcome]:
        if not isinstance(executor, InProcess):
            for k, outcome in enumerate(executor.map(replicate, jobs)):
                yield outcome
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

    def _jobs(self, policies: Sequence[AnyPolicy], plans: Plans) -> Iterator[Job]:
        run = self.run
        for policy in policies:
            bare = without_rule(policy)
            tables = bare.tabulate(plans.of(bare), run.gpus) if isinstance(bare, Policy) else None
            sent = policy if isinstance(policy, PlacedPolicy) else policy.for_worker()
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
                    replanning=policy.replanning if isinstance(policy, ReplannedPolicy) else None,
                )

    def _result(self, policy: AnyPolicy, pilot: Pilot | None, plans: Plans, outcomes: list[Outcome]) -> RequestResult:
        scenario, gpus = self.scenario, self.run.gpus
        bare, measured = without_rule(policy), [outcome.measurement for outcome in outcomes]
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
            plan=plans.of(bare) if isinstance(bare, Policy) else own,
            trajectory=trajectory(measured, gpus, self.seconds),
            remarks=(*self.remarks, *bare.remarks(scenario, gpus)),
            batching=batching_of(bare),
            parameters=bare.values,
            pilot=pilot,
            overall=overall_result(scenario, measured),
            gpu_time=gpu_times(measured),
            kv_tokens=statistic([m.kv_mean for m in measured]),
            kv_peak=max(m.kv_peak for m in measured),
            iterations=sum(m.iterations for m in measured),
            window=float(np.mean([m.window for m in measured])),
            plan_path=plan_path(policy, gpus, outcomes),
        )


def run_drawn(
    scenario: Scenario,
    policies: Sequence[str | AnyPolicy],
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
        policies=chosen_policies(scenario, policies, run.gpus, options.replanning),
        source=Drawn(scenario, run.gpus, run.seed, run.horizon),
        run=RequestRun(run.gpus, run.horizon, run.warmup, run.replications, run.seed),
        seconds=run.horizon,
        samples=options.samples,
        audited=options.audited,
    )
    return study.results(executor, workers, progress)


def chosen_policies(
    scenario: Scenario, policies: Sequence[str | AnyPolicy], gpus: int, replanning: Replanning | None = None
) -> tuple[AnyPolicy, ...]:
    """The policies by name, each fit for the scenario's engines and for `gpus` of them.

    Args:
        replanning: the rule of those whose name ends in `+replan`; None for the default one.

    Raises:
        FluidgateError: a policy is unknown, named twice, or needs another engine, or a target, or more GPUs; or none
            follows the rule.
    """
    chosen = [_found(p, replanning or Replanning()) if isinstance(p, str) else p for p in policies]
    refuse_twins([policy.name for policy in chosen])
    if replanning is not None and not any(isinstance(policy, ReplannedPolicy) for policy in chosen):
        raise FluidgateError(
            f"replanning: a rule is given, but no policy follows the load; name one with {REPLAN}, "
            f"e.g. index-and-pool{REPLAN}"
        )
    for policy in map(without_rule, chosen):
        check_batching(scenario, policy)
        engine_of(scenario, batching_of(policy))
        if isinstance(policy, PlacedPolicy):
            check_pools(policy, gpus)
    return tuple(chosen)


def without_rule(policy: AnyPolicy) -> Policy | PlacedPolicy:
    """The policy itself, whether its plan follows the load or not."""
    return policy.policy if isinstance(policy, ReplannedPolicy) else policy


def plan_path(policy: AnyPolicy, gpus: int, outcomes: Sequence[Outcome]) -> PlanPath | None:
    """How the plan of a policy followed the load; None where it stands."""
    if not isinstance(policy, ReplannedPolicy):
        return None
    return PlanPath.of(policy.replanning, gpus, [o.replanned for o in outcomes if o.replanned is not None])


def _found(name: str, replanning: Replanning) -> AnyPolicy:
    return find_replanned_policy(name, replanning) if name.endswith(REPLAN) else find_any_policy(name)


def _if_feasible(solve: Callable[[], Plan]) -> Plan | None:
    """A plan that nothing but the report needs."""
    try:
        return solve()
    except InfeasiblePlanError:
        return None
