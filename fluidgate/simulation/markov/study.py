"""Policies on the Markov network of [LDHZ] section 2, GPU by GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.planning import service_rates
from fluidgate.policies import Policy, Tables, planned_policy
from fluidgate.policies.limits import at_speeds
from fluidgate.replanning import AnyPolicy, rule_named
from fluidgate.simulation.doubts import doubted
from fluidgate.simulation.events import DECODE_END
from fluidgate.simulation.fidelity import MARKOV_ARRIVALS, unseen
from fluidgate.simulation.markov.replication import Job, Measurement, replicate, warm_up_compiler
from fluidgate.simulation.markov.results import class_results, revenue_rates
from fluidgate.simulation.options import Options
from fluidgate.simulation.penalties import felt_tpot, limited_indicators, penalty_rate
from fluidgate.simulation.plans import Plans
from fluidgate.simulation.results import SimulationResult, samples_taken, trajectory
from fluidgate.simulation.statistics import ratio, statistic
from fluidgate.simulation.study import Study, refuse_duplicates


@dataclass(frozen=True)
class Tabulated:
    """A policy, and its tables once they are made."""

    policy: Policy
    tables: Tables | None = None


class MarkovStudy(Study[Tabulated, Job, Measurement, SimulationResult]):
    """Policies on the Markov network."""

    def __init__(self, scenario: Scenario, policies: Sequence[str | AnyPolicy], options: Options) -> None:
        """
        Args:
            scenario: cluster and load.
            policies: by name, or themselves.

        Raises:
            FluidgateError: the network does not draw the scenario's arrivals, or a policy is unknown, named twice, or
                runs at another fidelity only.
        """
        if scenario.arrivals.closed:
            raise FluidgateError(
                'a closed loop (--users, or arrivals.process = "closed") is unknown to the Markov network; '
                "use --fidelity iteration, or leave it out"
            )
        if scenario.arrivals.process not in MARKOV_ARRIVALS:
            raise FluidgateError(
                f"arrivals.process: '{scenario.arrivals.process}' is unknown to the Markov network; "
                f"use --fidelity iteration, or give {' or '.join(MARKOV_ARRIVALS)}"
            )
        if options.replanning is not None:
            raise FluidgateError(
                f"{rule_named()}: a rule is given, which only the fidelity of iterations follows; "
                "give --fidelity iteration, or leave the rule out"
            )
        chosen = [p if isinstance(p, Policy) else planned_policy(p if isinstance(p, str) else p.name) for p in policies]
        refuse_duplicates([policy.name for policy in chosen])
        self.scenario, self.options = scenario.for_gpus(options.gpus), options
        self.rates = service_rates(self.scenario)
        self.policies = [Tabulated(policy) for policy in chosen]

    @property
    def events(self) -> float:
        return 3 * self.options.gpus * float(self.scenario.rates.arrival.sum()) * self.options.horizon

    @property
    def work(self) -> Callable[[Job], Measurement]:
        return replicate

    def ready(self, policy: Tabulated, plans: Plans) -> Tabulated:
        bare = policy.policy
        output = np.array([c.output_tokens for c in self.scenario.classes])
        mixed, solo = (float((rate * output).max()) for rate in (self.rates.mixed_decode, self.rates.solo_decode))
        return Tabulated(bare, at_speeds(bare.tabulate(plans.of(bare), self.options.gpus), mixed, solo))

    def job(self, policy: Tabulated, replication: int) -> Job:
        options = self.options
        assert policy.tables is not None
        return Job(
            scenario=self.scenario,
            policy=policy.policy.for_worker(),
            tables=policy.tables,
            gpus=options.gpus,
            horizon=options.horizon,
            warmup=options.warmup,
            seed=options.seed,
            replication=replication,
            samples=samples_taken(options.samples),
            audited=options.audited,
            rates=self.rates,
        )

    def prepare(self, jobs: Sequence[Job]) -> None:
        prepare(jobs)

    def result(self, policy: Tabulated, plans: Plans, measured: Sequence[Measurement]) -> SimulationResult:
        scenario, options, bare = self.scenario, self.options, policy.policy
        earned = revenue_rates(scenario, measured, options.gpus)
        revenue = earned if scenario.priced else np.full_like(earned, np.nan)
        gpus = options.gpus
        occupancies = [m.occupancy / gpus for m in measured]
        completions = [m.events[DECODE_END] / (gpus * m.window) for m in measured]
        penalties = np.array([penalty_rate(scenario, *each) for each in zip(occupancies, completions, strict=True)])
        tpots = [felt_tpot(scenario, *each) for each in zip(occupancies, completions, strict=True)]
        result = SimulationResult(
            scenario=scenario.name,
            policy=bare.name,
            run=options,
            events=sum(m.total_events for m in measured),
            wall_seconds=sum(m.wall_seconds for m in measured),
            revenue_rate=statistic(revenue),
            optimality_ratio=statistic(ratio(revenue, plans.unconstrained().revenue_rate)),
            objective_ratio=statistic(ratio(revenue - penalties, plans.own().objective)),
            indicators=limited_indicators(scenario, occupancies, tpots),
            classes=class_results(scenario, measured, options.gpus),
            plan=plans.of(bare),
            trajectory=trajectory(measured, options, options.horizon, scenario.class_names),
        )
        known = (*plans.of(bare).warnings, *bare.remarks(scenario, options.gpus), *unseen(scenario))
        return doubted(result, scenario, known, [m.samples for m in measured], options.horizon)


def prepare(jobs: Sequence[Job]) -> None:
    """Compile the kernel, and a user's functions, before the work is handed out: every process finds them on disk."""
    for job in {job.policy.name: job for job in jobs}.values():
        warm_up_compiler(job)
