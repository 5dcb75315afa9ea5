"""Simulate policies on a scenario: replications of the Markov network, side by side."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.model import Array, Scenario
from fluidgate.planning import Plan, Planner, check_gpus
from fluidgate.planning.penalty import penalty
from fluidgate.policies import PlacedPolicy, Policy, find_policy
from fluidgate.replanning import ReplannedPolicy, Replanning
from fluidgate.simulation.executor import Executor, InProcess, default_executor
from fluidgate.simulation.markov.network import PREFILL, SOLO_DECODE
from fluidgate.simulation.markov.replication import Job, Measurement, replicate, warm_up_compiler
from fluidgate.simulation.results import (
    Comparison,
    Run,
    SimulationResult,
    class_results,
    revenue_rates,
    trajectory,
)
from fluidgate.simulation.statistics import statistic

log = logging.getLogger("fluidgate")

HORIZON = 10_000.0
REPLICATIONS = 5
SMALL = 3_000_000
"""Events under which starting worker processes takes longer than the simulation itself."""

MARKOV_ARRIVALS = ("poisson", "gamma")
"""Processes that the Markov kernel draws."""

Fidelity = Literal["markov", "iteration"]

Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""


def simulate(
    scenario: Scenario,
    policy: str | Policy | PlacedPolicy | ReplannedPolicy,
    *,
    gpus: int | None = None,
    horizon: float = HORIZON,
    warmup: float | None = None,
    replications: int = REPLICATIONS,
    seed: int = 0,
    samples: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
    audited: bool = False,
    fidelity: Fidelity = "markov",
    replanning: Replanning | None = None,
    progress: Progress | None = None,
) -> SimulationResult:
    """Simulate a policy GPU by GPU, from an empty cluster.

    Args:
        scenario: cluster and load.
        policy: a name of `fluidgate policies`, the path of a policy file, or a `Policy` of your own; a name or path
            with `+replan` for a plan that follows the load, at the fidelity of iterations.
        gpus: number of GPUs n; the scenario's own number if it has one.
        horizon: simulated time, s.
        warmup: statistics are taken over (warmup, horizon]; a tenth of the horizon by default.
        replications: independent ones; replication r meets the same arrivals under every policy.
        seed: of all random numbers; the same seed gives the same numbers, whatever the number of workers.
        samples: how many times the occupancies are recorded, evenly over the horizon (`result.trajectory`).
        workers: processes; one a core by default.
        executor: where replications run, in the place of processes on this machine.
        audited: check every invariant after every event (slow: for tests of policies).
        fidelity: `markov`, the network of [LDHZ] section 2; or `iteration`, each request with its own lengths,
            iteration by iteration. The result of the latter is a `RequestResult`.
        replanning: the rule of a name with `+replan`; `fluidgate.replanning.Replanning` with its defaults if None.
        progress: called with what is done and what there is to do.

    Raises:
        FluidgateError: an option or the policy is wrong, or the policy's plan is infeasible.
    """
    options = Options(gpus, horizon, warmup, replications, seed, samples, audited, replanning)
    return _at(fidelity)(scenario, [policy], options, executor, workers, progress)[0]


def compare(
    scenario: Scenario,
    policies: Sequence[str | Policy | PlacedPolicy | ReplannedPolicy],
    *,
    gpus: int | None = None,
    horizon: float = HORIZON,
    warmup: float | None = None,
    replications: int = REPLICATIONS,
    seed: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
    fidelity: Fidelity = "markov",
    replanning: Replanning | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Simulate several policies on the same arrivals; the first is the reference of the paired differences.

    Arguments and errors as in `simulate`, whose result for a policy is that of the comparison.
    """
    if not policies:
        raise FluidgateError("--policies: none is named; name at least one, e.g. gate-and-route,fi-wsp")
    options = Options(gpus, horizon, warmup, replications, seed, replanning=replanning)
    results = _at(fidelity)(scenario, policies, options, executor, workers, progress)
    return Comparison(scenario.name, results[0].run, tuple(results))


def _at(fidelity: str) -> Callable[..., Sequence[SimulationResult]]:
    """What runs the policies at a fidelity."""
    if fidelity == "iteration":
        from fluidgate.simulation.requests.simulate import run_drawn

        return run_drawn
    if fidelity != "markov":
        raise FluidgateError(f"--fidelity: must be 'markov' or 'iteration', but is '{fidelity}'")
    return _run


@dataclass(frozen=True)
class Options:
    """What a caller asks for, checked when it becomes a `Run`."""

    gpus: int | None
    horizon: float
    warmup: float | None
    replications: int
    seed: int
    samples: int = 0
    audited: bool = False
    replanning: Replanning | None = None

    def run(self, scenario: Scenario) -> Run:
        """The options with their defaults.

        Raises:
            FluidgateError: naming the option and the mend.
        """
        gpus = self.gpus if self.gpus is not None else scenario.cluster_gpus
        if gpus is None:
            raise FluidgateError("--gpus: missing, and the scenario names no [cluster] gpus; say how many GPUs")
        check_gpus(gpus)
        if not (math.isfinite(self.horizon) and self.horizon > 0):
            raise FluidgateError(f"--horizon: must be a time above 0 s, but is {self.horizon:g}")
        warmup = self.horizon / 10 if self.warmup is None else self.warmup
        if not 0 <= warmup < self.horizon:
            raise FluidgateError(
                f"--warmup: must be at least 0 and below the horizon ({self.horizon:g} s), but is {warmup:g}"
            )
        if self.replications < 1:
            raise FluidgateError(f"--replications: must be at least 1, but is {self.replications}")
        if self.seed < 0:
            raise FluidgateError(f"--seed: must be at least 0, but is {self.seed}")
        return Run(gpus, float(self.horizon), float(warmup), self.replications, self.seed)


class Plans:
    """The plans of one scenario that a simulation reads, each solved once."""

    def __init__(self, scenario: Scenario, gpus: int) -> None:
        self._scenario = scenario
        self._gpus = gpus
        self._planner = Planner()
        self._known: dict[object, Plan] = {}

    def of(self, policy: Policy) -> Plan:
        """The plan that feeds `policy`."""
        scheme, allow_decode_buffer = policy.program.key(self._scenario)
        return self._solve(scheme=scheme, allow_decode_buffer=allow_decode_buffer)

    @property
    def own(self) -> Plan:
        """The plan of the scenario as it is."""
        return self._solve()

    @property
    def unconstrained(self) -> Plan:
        """The plan without indicators: its revenue is R*."""
        return self._solve(with_indicators=False)

    def _solve(self, **program: object) -> Plan:
        key = tuple(sorted(program.items()))
        if key not in self._known:
            self._known[key] = self._planner.solve(self._scenario, gpus=self._gpus, **program)  # type: ignore[arg-type]
        return self._known[key]


def _run(
    scenario: Scenario,
    policies: Sequence[str | Policy | PlacedPolicy | ReplannedPolicy],
    options: Options,
    executor: Executor | None,
    workers: int | None,
    progress: Progress | None,
) -> list[SimulationResult]:
    run = options.run(scenario)
    if scenario.arrivals.process not in MARKOV_ARRIVALS:
        raise FluidgateError(
            f"arrivals.process: '{scenario.arrivals.process}' is unknown to the Markov network; "
            f"give {' or '.join(MARKOV_ARRIVALS)}"
        )
    if options.replanning is not None:
        raise FluidgateError(
            "replanning: a rule is given, which only the fidelity of iterations follows; "
            "give --fidelity iteration, or leave the rule out"
        )
    chosen = [p if isinstance(p, Policy) else find_policy(p if isinstance(p, str) else p.name) for p in policies]
    refuse_twins([policy.name for policy in chosen])
    scenario = scenario.for_gpus(run.gpus)
    plans = Plans(scenario, run.gpus)
    jobs = list(_jobs(scenario, chosen, plans, run, options))
    if executor is None:
        executor = executor_for(sum(map(expected_events, jobs)), len(jobs), workers)
    prepare(jobs)
    measured: list[Measurement] = []
    for measurement in executor.map(replicate, jobs):
        measured.append(measurement)
        if progress is not None:
            progress(len(measured), len(jobs))
    size = run.replications
    return [
        _result(scenario, policy, plans, run, measured[k * size : (k + 1) * size]) for k, policy in enumerate(chosen)
    ]


def prepare(jobs: list[Job]) -> None:
    """Compile the shipped kernel before the work is handed out, so that every process finds it on disk."""
    from fluidgate.simulation.markov.builds import build, needs_compilation

    for job in {job.policy.name: job for job in jobs}.values():
        if needs_compilation(job.policy, audited=job.audited):
            what = "simulation kernel (once, it is kept)" if job.policy.is_data else f"policy '{job.policy.name}'"
            log.info("compiling the %s, some 20 s ...", what)
        if job.policy.is_data and not job.audited:
            warm_up_compiler(build(job.policy), job)


def refuse_twins(names: Sequence[str]) -> None:
    """Refuse a policy that is named twice.

    Raises:
        FluidgateError: it is.
    """
    for name in names:
        if names.count(name) > 1:
            raise FluidgateError(f"--policies: '{name}' is named twice; name each policy once")


def _jobs(scenario: Scenario, policies: list[Policy], plans: Plans, run: Run, options: Options) -> Iterator[Job]:
    for policy in policies:
        tables = policy.tabulate(plans.of(policy), run.gpus)
        for replication in range(run.replications):
            yield Job(
                scenario,
                policy.for_worker(),
                tables,
                run.gpus,
                run.horizon,
                run.warmup,
                run.seed,
                replication,
                options.samples,
                options.audited,
            )


def expected_events(job: Job) -> float:
    """Arrivals, prefills and decodes of a replication in which nobody leaves."""
    return 3 * job.gpus * float(job.scenario.rates.arrival.sum()) * job.horizon


def executor_for(events: float, jobs: int, workers: int | None) -> Executor:
    """Where `jobs` jobs of so many events in all run; this process where starting others takes longer."""
    if workers is None and events < SMALL:
        return InProcess()
    return default_executor(workers, jobs)


def _result(
    scenario: Scenario, policy: Policy, plans: Plans, run: Run, measured: list[Measurement]
) -> SimulationResult:
    revenue = revenue_rates(scenario, measured, run.gpus)
    penalties = np.array(
        [penalty(scenario, m.occupancy[PREFILL] / run.gpus, m.occupancy[SOLO_DECODE] / run.gpus) for m in measured]
    )
    return SimulationResult(
        scenario=scenario.name,
        policy=policy.name,
        run=run,
        events=sum(m.total_events for m in measured),
        wall_seconds=sum(m.wall_seconds for m in measured),
        revenue_rate=statistic(revenue),
        optimality_ratio=statistic(ratio(revenue, plans.unconstrained.revenue_rate)),
        objective_ratio=statistic(ratio(revenue - penalties, plans.own.objective)),
        classes=class_results(scenario, measured, run.gpus),
        plan=plans.of(policy),
        trajectory=trajectory(measured, run.gpus, run.horizon),
        remarks=policy.remarks(scenario, run.gpus),
    )


def ratio(values: Array, to: float) -> Array:
    """`values` over `to`; nan where there is no such number."""
    return values / to if to > 0 else np.full_like(values, np.nan)
