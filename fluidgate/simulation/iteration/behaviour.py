"""How the iteration model runs each kind of policy.

A kind is one class here and one entry of `BEHAVIOURS`: how its GPUs batch, what it needs before a run, how it runs, and
what its results say of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fluidgate.errors import FluidgateError
from fluidgate.model import BatchingName, Scenario
from fluidgate.planning import Plan
from fluidgate.planning.partition import check_ranks
from fluidgate.policies import PlacedPolicy, Policy, Tables
from fluidgate.replanning import AnyPolicy, ReplannedPolicy
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.fleet import check_fleet_plan
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.pilot import Pilot, with_prompt_pool
from fluidgate.simulation.iteration.plan_path import PlanPath
from fluidgate.simulation.iteration.published import check_pools, run_published
from fluidgate.simulation.iteration.replanned import Replanned, run_replanned
from fluidgate.simulation.iteration.resized import Resized
from fluidgate.simulation.iteration.rules import Decisions
from fluidgate.simulation.iteration.run import Run, TakeLog, run_requests
from fluidgate.simulation.iteration.scenario_engine import check_batching, engine_of
from fluidgate.simulation.iteration.source import Source
from fluidgate.simulation.plans import Plans
from fluidgate.workloads.streams import Requests


@dataclass(frozen=True)
class IterationOutcome:
    """What a replication gave.

    Attributes:
        replanned: the same run with the looks at its load; None where the plan stands.
    """

    measurement: IterationMeasurement
    replanned: Replanned | None = None


@dataclass(frozen=True)
class Behaviour(ABC):
    """A policy as the iteration model runs it.

    Attributes:
        policy: as it was asked for, or with what was found for it.
        tables: that it reads off its plan; None for one without a plan, and until they are made.
        pilot: the run that found a number of it.
        follows: whether its plan follows the load.
    """

    policy: Any
    tables: Tables | None = None
    pilot: Pilot | None = None

    follows: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return str(self.policy.name)

    @property
    @abstractmethod
    def bare(self) -> Policy | PlacedPolicy:
        """The policy itself, whether its plan follows the load or not."""

    @property
    def batching(self) -> BatchingName:
        return self.bare.batching

    def check(self, scenario: Scenario, gpus: int) -> None:
        """Refuse a scenario or a number of GPUs that the policy can't run.

        Raises:
            FluidgateError: naming the key and the mend.
        """
        check_batching(scenario, self.bare)
        check_ranks(gpus, scenario.engine.data_parallel)
        check_fleet_plan(scenario, gpus)
        engine_of(scenario, self.batching)

    @abstractmethod
    def ready(self, scenario: Scenario, source: Source, plans: Plans, gpus: int) -> Behaviour:
        """The same with its tables, or with what a pilot run on the first requests finds.

        Raises:
            FluidgateError: the plan is infeasible, or a request is wrong.
        """

    def for_worker(self) -> Behaviour:
        """What a worker needs of it, once it is ready."""
        return replace(self, policy=self.policy.for_worker())

    @abstractmethod
    def run(
        self,
        blocks: Iterable[Requests],
        engine: Engine,
        run: Run,
        scenario: Scenario,
        take_log: TakeLog | None = None,
    ) -> IterationOutcome:
        """Run it on requests in order of arrival, arrays of dtype REQUEST; `scenario` is the load expected at first.

        Raises:
            FluidgateError: as `run_requests`.
            InvariantError: the audit found a broken invariant.
        """

    def warm_up(self, engine: Engine, run: Run, scenario: Scenario) -> None:
        """Have its kernel compiled, or loaded."""
        self.run((), engine, run, scenario)

    @abstractmethod
    def plan(self, plans: Plans) -> Plan | None:
        """The plan to hold its results against; None where there is none."""

    def advice(self, plans: Plans) -> tuple[str, ...]:
        """What a reader of its results should know of the plan."""
        plan = self.plan(plans)
        return () if plan is None else plan.warnings

    def plan_path(self, gpus: int, outcomes: Sequence[IterationOutcome]) -> PlanPath | None:
        """How its plan followed the load; None where it stands."""
        return None


@dataclass(frozen=True)
class Planned(Behaviour):
    """A policy that reads a plan, which stands.

    Attributes:
        maker: the policy still able to make tables in a worker, where GPUs come and go; None where they don't.
    """

    policy: Policy
    maker: Policy | None = None

    @property
    def bare(self) -> Policy:
        return self.policy

    def ready(self, scenario: Scenario, source: Source, plans: Plans, gpus: int) -> Behaviour:
        maker = replace(self.bare.for_worker(), tabulate=self.bare.tabulate) if scenario.has_fleet else None
        return replace(self, tables=self.bare.tabulate(plans.of(self.bare), gpus), maker=maker)

    def run(
        self, blocks: Iterable[Requests], engine: Engine, run: Run, scenario: Scenario, take_log: TakeLog | None = None
    ) -> IterationOutcome:
        assert self.tables is not None
        resize = None if self.maker is None else Resized(scenario, self.maker, run.gpus, self.tables)
        rules = Decisions(self.bare, self.tables, resize)
        return IterationOutcome(run_requests(blocks, engine, run, rules, take_log=take_log))

    def plan(self, plans: Plans) -> Plan:
        return plans.of(self.bare)


@dataclass(frozen=True)
class Following(Behaviour):
    """A policy whose plan follows the load."""

    policy: ReplannedPolicy

    follows: ClassVar[bool] = True

    @property
    def bare(self) -> Policy:
        return self.policy.policy

    def ready(self, scenario: Scenario, source: Source, plans: Plans, gpus: int) -> Behaviour:
        return replace(self, tables=self.bare.tabulate(plans.of(self.bare), gpus))

    def run(
        self, blocks: Iterable[Requests], engine: Engine, run: Run, scenario: Scenario, take_log: TakeLog | None = None
    ) -> IterationOutcome:
        policy, rule = replace(self.bare, name=self.name), self.policy.replanning
        found = run_replanned(blocks, engine, run, policy, scenario, rule, take_log=take_log)
        return IterationOutcome(found.measurement, found)

    def warm_up(self, engine: Engine, run: Run, scenario: Scenario) -> None:
        Planned(self.bare, self.tables).warm_up(engine, run, scenario)

    def plan(self, plans: Plans) -> Plan:
        return plans.of(self.bare)

    def plan_path(self, gpus: int, outcomes: Sequence[IterationOutcome]) -> PlanPath:
        return PlanPath.of(self.policy.replanning, gpus, [o.replanned for o in outcomes if o.replanned is not None])


@dataclass(frozen=True)
class Published(Behaviour):
    """A published policy: its GPUs form their own batches, and it reads no plan."""

    policy: PlacedPolicy

    @property
    def bare(self) -> PlacedPolicy:
        return self.policy

    def check(self, scenario: Scenario, gpus: int) -> None:
        super().check(scenario, gpus)
        check_pools(self.policy, gpus)
        if self.policy.has_pools and scenario.has_fleet:
            raise FluidgateError(
                f"policy '{self.name}': GPUs that fail, or are started and drained, are not simulated in pools for "
                "prompts and for tokens; name a policy without pools, such as vllm-least-loaded, or remove [failures] "
                "and [[schedule]]"
            )

    def ready(self, scenario: Scenario, source: Source, plans: Plans, gpus: int) -> Behaviour:
        policy, pilot = with_prompt_pool(self.policy, scenario, source, gpus)
        return replace(self, policy=policy, pilot=pilot)

    def for_worker(self) -> Behaviour:
        return self

    def run(
        self, blocks: Iterable[Requests], engine: Engine, run: Run, scenario: Scenario, take_log: TakeLog | None = None
    ) -> IterationOutcome:
        rates = tuple(c.arrival_rate for c in scenario.classes)
        return IterationOutcome(run_published(blocks, engine, run, self.policy, rates=rates, take_log=take_log))

    def plan(self, plans: Plans) -> Plan | None:
        return plans.own_if_feasible(self.batching)

    def advice(self, plans: Plans) -> tuple[str, ...]:
        return plans.advice


BEHAVIOURS: dict[type, type[Behaviour]] = {Policy: Planned, ReplannedPolicy: Following, PlacedPolicy: Published}
"""By kind of policy."""


def behaviour_of(policy: AnyPolicy) -> Behaviour:
    """How the iteration model runs a policy.

    Raises:
        FluidgateError: it is of no kind that it knows.
    """
    for kind in type(policy).__mro__:
        if kind in BEHAVIOURS:
            return BEHAVIOURS[kind](policy)
    raise FluidgateError(f"policy: must be a policy or a name, but is of type {type(policy).__name__}; give another")
