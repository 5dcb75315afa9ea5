"""Tune a policy to a scenario and a number of GPUs: races over its parameters, then a confirmation on fresh seeds."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence

import numpy as np

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError
from fluidgate.execution import Executor
from fluidgate.model import AnyScenario, Scenario
from fluidgate.planning import service_rates
from fluidgate.planning.per_gpu_rates import looks_like_a_total
from fluidgate.policies import POLICIES, Policy, Tables, planned_policy
from fluidgate.progress import Progress, reported
from fluidgate.simulation.controls import LEAST_BATCHES, controlled_revenue
from fluidgate.simulation.events import DECODE_END
from fluidgate.simulation.fidelity import ELSEWHERE, unseen
from fluidgate.simulation.markov.replication import Job, replicate
from fluidgate.simulation.markov.results import revenue_rates
from fluidgate.simulation.markov.study import prepare
from fluidgate.simulation.options import check_draws, gpus_of
from fluidgate.simulation.penalties import penalty_rate
from fluidgate.simulation.plans import Plans
from fluidgate.simulation.statistics import statistic
from fluidgate.simulation.study import executor_for
from fluidgate.tuning.candidates import Box
from fluidgate.tuning.race import race
from fluidgate.tuning.result import Trial, Tuning
from fluidgate.wording import all_worded

BUDGET = 1e8
"""Simulated events, unless replications would be shorter than USUAL."""
STAGES = 3
ALLOWANCE = 16
"""Replications of a race for each point that it tries."""
CONFIRMATIONS = 48
"""Fresh replications of the default and of the proposed parameters."""
LEAST, USUAL = 30.0, 100.0
"""Least horizon of a replication, and that of the default budget, in longest mean times of a request on the GPUs."""
MOST_BATCHES = 200


@checked
def tune(
    scenario: AnyScenario,
    policy: str | os.PathLike[str] | Policy = "index-and-pool",
    *,
    gpus: int | None = None,
    budget: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | bool | None = None,
) -> Tuning:
    """Search the free parameters of a policy by simulation, and say how sure the gain is.

    Three stages, each a race (`fluidgate.tuning.race`) of points that fill a box: the whole ranges, then closer around
    the best. All candidates meet the same arrivals; the value of a replication is its revenue, estimated with control
    variates, less its penalties. The default takes part in all of it. The best meets the default once more on fresh
    seeds, so that the gain told is not the luck of the best of many.

    Args:
        scenario: cluster and load.
        policy: a name of `fluidgate policies`, the path of a policy file (its parameters are then the default), or a
            `Policy` with parameters.
        gpus: number of GPUs n; the scenario's own number if it has one.
        budget: most events to simulate; it sets the horizon of a replication. Default: 1e8, or what replications of
            100 times the longest mean time of a request take, if that is more.
        seed: of all random numbers; the same seed gives the same numbers, whatever the number of workers.
        workers: processes; one a core by default.
        executor: where replications run, in the place of processes on this machine.
        progress: called after each replication with those done and the most there can be; True, False and None as in
            `simulate`.

    Raises:
        FluidgateError: an option or the policy is wrong, the policy has no parameters, or the plan is infeasible.
    """
    scenario = Scenario.of(scenario)
    chosen = policy if isinstance(policy, Policy) else planned_policy(os.fspath(policy))
    if not chosen.parameters:
        known = ", ".join(p.name for p in POLICIES.values() if p.parameters)
        raise FluidgateError(f"policy '{chosen.name}' has no parameters to tune; choose one of {known}")
    scenario.need_prices("tuning")
    number = gpus_of(scenario, gpus)
    check_draws(CONFIRMATIONS, seed)
    with reported(progress, f"tuning {chosen.name}") as tell:
        search = Search(scenario, chosen, number, budget, seed, workers, executor, tell)
        return search.confirm(search.run())


class Search:
    """The candidates of a tuning and what they earned; number 0 is the default.

    Attributes:
        values: parameters of each candidate; `stages`: when it was made.
        earned: objective of each candidate by replication.
    """

    def __init__(
        self,
        scenario: Scenario,
        policy: Policy,
        gpus: int,
        budget: float | None,
        seed: int,
        workers: int | None,
        executor: Executor | None,
        progress: Progress | None,
    ) -> None:
        self.scenario, self.policy, self.gpus, self.seed = scenario.for_gpus(gpus), policy, gpus, seed
        self.plans = Plans(self.scenario, gpus)
        self.plan = self.plans.of(policy)
        caches = self.scenario.engine.prefix_caching
        self.box = Box.whole([p for p in policy.parameters if caches or not p.with_caching])
        self.most = STAGES * ALLOWANCE * self.box.points + 2 * CONFIRMATIONS
        memory = _memory(self.scenario)
        self.budget, self.horizon = _affordable(self.scenario, gpus, budget, self.most, memory)
        self.batches = max(1, min(MOST_BATCHES, int(0.9 * self.horizon / memory)))
        self.executor = executor or executor_for(self.budget, self.most, workers)
        self.progress, self.done, self.events, self.prepared = progress, 0, 0, False
        self.values: list[dict[str, float]] = []
        self.stages: list[int] = []
        self.tables: list[Tables] = []
        self.earned: list[list[float]] = []
        self._add(policy.values, 0)

    def run(self) -> int:
        """Race through the stages; the number of the best candidate."""
        best, box = 0, self.box
        for stage in range(1, STAGES + 1):
            known = len(self.values)
            tried = [self._add(values, stage) for values in box.fill(self.seed + stage)]
            if len(self.values) > known:
                candidates = list(dict.fromkeys([best, 0, *tried]))
                best = race(candidates, self.earned, self._score, 0, ALLOWANCE * self.box.points)
            box = box.around(self.values[best])
        return best

    def confirm(self, proposed: int) -> Tuning:
        """The proposed candidate against the default, on replications that no candidate has met."""
        fresh = range(met := max(map(len, self.earned)), met + CONFIRMATIONS)
        pair = list(dict.fromkeys([0, proposed]))
        values = self._measure([(candidate, replication) for candidate in pair for replication in fresh])
        before, after = np.array(values[:CONFIRMATIONS]), np.array(values[-CONFIRMATIONS:])
        gain = statistic(after - before)
        improves = gain.ci95 is not None and gain.ci95[0] > 0.0
        return Tuning(
            scenario=self.scenario.name,
            policy=self.policy.with_parameters(self.values[proposed]) if improves else self.policy,
            gpus=self.gpus,
            seed=self.seed,
            budget=self.budget,
            horizon=self.horizon,
            warmup=self.horizon / 10,
            replications=CONFIRMATIONS,
            events=self.events,
            default=self.values[0],
            proposed=self.values[proposed],
            objective_default=statistic(before),
            objective_proposed=statistic(after),
            gain=gain,
            plan_objective=self.plans.own().objective,
            trials=tuple(map(self._trial, range(len(self.values)))),
            warnings=all_worded(self._warnings()),
        )

    def _warnings(self) -> Iterator[str]:
        yield from self.plan.warnings
        yield from looks_like_a_total(self.scenario, self.gpus)
        yield from unseen(self.scenario, ELSEWHERE)

    def _add(self, values: dict[str, float], stage: int) -> int:
        """The number of the candidate with these values: an earlier one if its tables are the same."""
        tables = self.policy.with_parameters(values).tabulate(self.plan, self.gpus)
        for number, known in enumerate(self.tables):
            if _same(tables, known):
                return number
        self.values.append(values)
        self.stages.append(stage)
        self.tables.append(tables)
        self.earned.append([])
        return len(self.values) - 1

    def _score(self, candidates: Sequence[int], replications: int) -> None:
        missing = [(c, r) for c in candidates for r in range(len(self.earned[c]), replications)]
        for (candidate, _), value in zip(missing, self._measure(missing), strict=True):
            self.earned[candidate].append(value)

    def _measure(self, pairs: Sequence[tuple[int, int]]) -> list[float]:
        """Objective of each (candidate, replication)."""
        jobs = [self._job(candidate, replication) for candidate, replication in pairs]
        if jobs and not self.prepared:
            prepare(jobs[:1])
            self.prepared = True
        found = []
        for value, events in self.executor.map(objective, jobs):
            found.append(value)
            self.events += events
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.most)
        return found

    def _job(self, candidate: int, replication: int) -> Job:
        return Job(
            self.scenario,
            self.policy.for_worker(),
            self.tables[candidate],
            self.gpus,
            self.horizon,
            self.horizon / 10,
            self.seed,
            replication,
            batches=self.batches,
        )

    def _trial(self, number: int) -> Trial:
        met = len(self.earned[number])
        difference = np.array(self.earned[number]) - np.array(self.earned[0][:met])
        return Trial(self.values[number], self.stages[number], statistic(self.earned[number]), statistic(difference))


def objective(job: Job) -> tuple[float, int]:
    """Revenue less penalties per GPU and second in one replication, and its events."""
    measured = replicate(job)
    if job.batches >= LEAST_BATCHES:
        revenue = controlled_revenue(job.scenario, [measured], job.gpus).mean
    else:
        revenue = float(revenue_rates(job.scenario, [measured], job.gpus)[0])
    completions = measured.events[DECODE_END] / (job.gpus * measured.window)
    return revenue - penalty_rate(job.scenario, measured.occupancy / job.gpus, completions), measured.total_events


def _memory(scenario: Scenario) -> float:
    """The longest mean time of a request on the GPUs, s: how long the cluster remembers."""
    rates = service_rates(scenario)
    return float((1.0 / rates.prefill + 1.0 / rates.mixed_decode).max())


def _affordable(
    scenario: Scenario, gpus: int, budget: float | None, replications: int, memory: float
) -> tuple[float, float]:
    """The budget in events, and the horizon that it gives each replication."""
    per_second = 3.0 * gpus * float(scenario.rates.arrival.sum()) * replications
    chosen = max(BUDGET, _rounded_up(per_second * USUAL * memory)) if budget is None else budget
    least = _rounded_up(per_second * LEAST * memory)
    if not least <= chosen < math.inf:
        raise FluidgateError(
            f"--budget: must be a number of events from {least:g} for {gpus} GPUs of '{scenario.name}', "
            f"but is {chosen:g}; give more"
        )
    return chosen, _rounded_down(chosen / per_second)


def _rounded_up(value: float) -> float:
    """The next number with two digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step


def _rounded_down(value: float) -> float:
    """The last number with three digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return round(math.floor(value / step) * step, 6)


def _same(one: Tables, other: Tables) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
