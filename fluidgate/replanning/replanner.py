"""When a plan is solved again, and from what: the rule that simulators and the gateway share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluidgate.batching import Batching
from fluidgate.errors import FluidgateError, InfeasiblePlanError
from fluidgate.model import Array, Scenario
from fluidgate.planning import Plan, Planner
from fluidgate.policies.decisions.tables import Tables
from fluidgate.policies.policy import Policy
from fluidgate.replanning.estimator import Estimate, Estimator, check_window
from fluidgate.wording import named

SAME = 1e-9
"""Tables whose numbers differ by less, relatively, are the same."""

LEAST_PATIENCE = 1.0 / 3600.0
"""Patience rate, 1/s, of classes that never leave, in a plan that could not carry their load otherwise."""


@dataclass(frozen=True)
class Replanning:
    """How a plan follows the load.

    The estimates are looked at every `look` seconds. The plan is solved again when it is `period` seconds old, or when
    a rate, a mean length or a patience rate differs from the plan's own by more than `moved`, relatively, and by more
    than `deviations` of the estimate's standard deviations (which counts bursts). docs/background/replanning.md tells
    how the defaults were found.

    Attributes:
        period: s; inf: only when the estimates have moved.
        look: s.
        window: time constant of the estimates, s.
        prior: weight of the scenario's own numbers at the start, s of observation; None for as long as the window.
        moved: relative change.
        deviations: standard deviations.
    """

    period: float = 30.0
    look: float = 3.0
    window: float = 30.0
    prior: float | None = None
    moved: float = 0.1
    deviations: float = 2.0

    @property
    def follows(self) -> bool:
        """Whether the plan ever follows the estimates."""
        return self.period < math.inf or self.moved < math.inf

    def __post_init__(self) -> None:
        if not (self.period > 0 and 0 < self.look < math.inf):
            raise FluidgateError(
                f"replanning: the period and the time between looks must be above 0 s, "
                f"but are {self.period:g} and {self.look:g}"
            )
        check_window(self.window, 0.0 if self.prior is None else self.prior)
        if not (self.moved >= 0 and self.deviations >= 0):
            raise FluidgateError("replanning: what counts as moved must be at least 0")


def rule_named() -> str:
    """What gives the rule."""
    return named("--replan-every, --look-every, --estimate-over, --replan-moved", "replanning")


class TableMaker:
    """Tables of one policy for one cluster from scenario after scenario, each plan from the last one's basis."""

    def __init__(self, policy: Policy, gpus: int) -> None:
        self.policy, self.gpus = policy, gpus
        self._planner = Planner()

    def plan(self, scenario: Scenario) -> Plan:
        """The plan that the policy reads.

        Raises:
            InfeasiblePlanError: as `fluidgate.planning.plan`.
        """
        scheme, allow_decode_buffer = self.policy.program.key(scenario)
        return self._planner.solve(
            scenario,
            gpus=self.gpus,
            scheme=scheme,
            allow_decode_buffer=allow_decode_buffer,
            batching=Batching(scenario.engine.batching or self.policy.batching),
        )


@dataclass(frozen=True)
class Solved:
    """A plan that was solved again.

    Attributes:
        at: epoch, s.
        load: the estimates it is for.
        tables: what the policy reads off it.
        changed: whether they differ from those in force before.
    """

    at: float
    load: Estimate
    tables: Tables
    changed: bool


class Replanner:
    """The plan in force, solved again as the load moves. Time is an argument; it has no clock, and draws nothing.

    Attributes:
        estimator: to be fed with the cluster's events.
        gpus: of the cluster.
        plan: in force, and `tables`, what the policy reads off it.
        next_look: epoch of the next look, s.
        solved: how many times the plan was solved again; `changed`, how often a look gave other tables; `kept`, how
            often it could not be solved, and stayed in force.
    """

    def __init__(
        self,
        scenario: Scenario,
        policy: Policy,
        gpus: int,
        replanning: Replanning = Replanning(),
        *,
        start: float = 0.0,
    ) -> None:
        """
        Args:
            scenario: the load at first, and the prior.
            policy: whose tables are made.
            gpus: GPUs of the cluster.
            start: epoch, s.

        Raises:
            InfeasiblePlanError: the scenario has no plan.
        """
        self.replanning = replanning
        prior = replanning.window if replanning.prior is None else replanning.prior
        self.estimator = Estimator(scenario, gpus, window=replanning.window, prior=prior, start=start)
        self._maker = TableMaker(policy, gpus)
        self._planned = self.estimator.scenario
        self._planned_at = start
        self._start = start
        self._looks = 1
        self.plan = self._maker.plan(self._planned)
        self.tables = policy.tabulate(self.plan, gpus)
        self.solved = 0
        self.changed = 0
        self.kept = 0

    @property
    def rows(self) -> Any:
        """The estimator's sums, for compiled code to write."""
        return self.estimator.rows

    @property
    def gpus(self) -> int:
        return self._maker.gpus

    @property
    def next_look(self) -> float:
        return self._start + self._looks * self.replanning.look

    def resize(self, gpus: int, now: float) -> None:
        """So many GPUs share the load from `now` on: the plan is solved again."""
        share = self.gpus / gpus
        self._maker.gpus = self.estimator.gpus = gpus
        scenario = self.estimator.scenario_at(now) if self.replanning.follows else with_share(self._planned, share)
        plan = self._plan_of(scenario)
        if plan is None:
            self.kept += 1
            plan = self.plan
        else:
            self._planned, self._planned_at = scenario, now
            self.solved += 1
        self.plan, self.tables = plan, self._maker.policy.tabulate(plan, gpus)

    def skip(self, now: float) -> None:
        """The look that is due at `now` is not worth it."""
        self._looks = max(self._looks + 1, math.floor((now - self._start) / self.replanning.look + 1e-9) + 1)

    def look(self, now: float) -> Solved | None:
        """Look at the estimates at `now`; the plan that was solved again, or None if the one in force stands."""
        self.skip(now)
        load = self.estimator.at(now)
        old = now - self._planned_at >= self.replanning.period * (1.0 - 1e-9)
        if not old and not has_moved(self._planned, load, self.replanning):
            return None
        scenario = self.estimator.scenario_at(now)
        self._planned_at = now
        plan = self._plan_of(scenario)
        if plan is None:
            self.kept += 1
            return None
        tables = self._maker.policy.tabulate(plan, self.gpus)
        self._planned, self.plan = scenario, plan
        changed = not same_tables(tables, self.tables)
        if changed:
            self.tables = tables
            self.changed += 1
        self.solved += 1
        return Solved(now, load, self.tables, changed)

    def _plan_of(self, scenario: Scenario) -> Plan | None:
        try:
            return self._maker.plan(scenario)
        except InfeasiblePlanError:
            pass
        try:
            return self._maker.plan(all_may_leave(scenario))
        except InfeasiblePlanError:
            return None


class Timetable:
    """Scenarios that are known ahead, each in force from its epoch on: what an estimator would give a lot to know.

    Attributes:
        plan: in force, and `tables`, what the policy reads off it.
        next_look: epoch of the next scenario, s.
        rows: none: nothing is estimated.
    """

    def __init__(self, parts: list[tuple[float, Scenario]], policy: Policy, gpus: int) -> None:
        """
        Args:
            parts: (epoch in s, scenario), epochs increasing, the first in force from the start.

        Raises:
            InfeasiblePlanError: a scenario has no plan.
        """
        maker = TableMaker(policy, gpus)
        self._policy, self._gpus = policy, gpus
        self._parts: list[tuple[float, Plan]] = []
        last: Scenario | None = None
        for epoch, scenario in parts:
            same = scenario == last
            self._parts.append((epoch, self._parts[-1][1] if same else maker.plan(scenario.for_gpus(gpus))))
            last = scenario
        self._next = 1
        self._follow(self._parts[0][1])
        self.rows = np.zeros(0, Estimator(parts[0][1], gpus, window=1.0).rows.dtype)

    @property
    def next_look(self) -> float:
        return self._parts[self._next][0] if self._next < len(self._parts) else math.inf

    def look(self, now: float) -> Solved | None:
        plan = self._parts[self._next][1]
        self._next += 1
        if plan is not self.plan:
            self._follow(plan)
        return None

    def _follow(self, plan: Plan) -> None:
        self.plan, self.tables = plan, self._policy.tabulate(plan, self._gpus)


def has_moved(planned: Scenario, load: Estimate, rule: Replanning) -> bool:
    """Whether the load differs from the one that is planned for by more than the rule allows.

    Lengths and patience count with the standard deviation of exponential ones.
    """
    rates = planned.rates
    prompt = np.array([c.prompt_tokens for c in planned.classes])
    output = np.array([c.output_tokens for c in planned.classes])
    return any(
        _differs(plan, seen, deviation, rule)
        for plan, seen, deviation in (
            (rates.arrival, load.arrival, load.arrival_deviation),
            (prompt, load.prompt, _deviation(load.prompt, load.prompts)),
            (output, load.output, _deviation(load.output, load.outputs)),
            (rates.patience, load.patience, _deviation(load.patience, load.leavers)),
        )
    )


def _deviation(mean: Array, observations: Array) -> Array:
    return mean / np.sqrt(np.maximum(observations, 1e-9))


def _differs(plan: Array, seen: Array, deviation: Array, rule: Replanning) -> bool:
    change = np.abs(seen - plan)
    return bool(np.any((change > rule.moved * plan) & (change > rule.deviations * deviation)))


def with_share(scenario: Scenario, share: float) -> Scenario:
    """The scenario with `share` times the load per GPU."""
    classes = tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * share}) for c in scenario.classes)
    return scenario.replace(classes=classes)


def all_may_leave(scenario: Scenario) -> Scenario:
    classes = tuple(
        c.model_copy(update={"patience_rate": max(c.patience_rate, LEAST_PATIENCE)}) for c in scenario.classes
    )
    return scenario.replace(classes=classes)


def same_tables(one: Tables, other: Tables) -> bool:
    """Whether two tables are the same but for rounding."""
    return all(
        np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=SAME, atol=SAME) for a, b in zip(one, other, strict=True)
    )
