"""A run whose plan follows the load, as estimated from what the run itself has seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array, Pricing, Scenario
from fluidgate.planning import Plan
from fluidgate.policies.decisions.view import MIXED
from fluidgate.policies.policy import Policy
from fluidgate.replanning import Estimate, Replanner, Replanning
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.kernel.cluster import OUTPUT_SERVED, PROMPT_READ, PROMPT_SERVED, Cluster
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.rules import ChangingDecisions, Control
from fluidgate.simulation.iteration.run import Progress, Run, TakeLog, run_requests
from fluidgate.workloads.streams import Requests


@dataclass(frozen=True)
class Look:
    """The cluster at one epoch.

    Attributes:
        at: s.
        load: estimates, if any are made.
        plan: in force until then.
        mixed_target: GPUs of the mixed group by the tables in force.
        mixed_gpus: those that are in it, the ones about to leave included.
        counts: requests by (stage, class), shape (6, classes).
        tokens: of prompts read, prompts served and outputs served since time 0, shape (3, classes).
    """

    at: float
    load: Estimate | None
    plan: Plan
    mixed_target: int
    mixed_gpus: int
    counts: NDArray[np.int64]
    tokens: NDArray[np.int64]

    def revenue(self, pricing: Pricing) -> Array:
        """Money earned since time 0, by class, at each request's own lengths."""
        prompts = self.tokens[PROMPT_SERVED if pricing.scheme == "bundled" else PROMPT_READ]
        return np.asarray(pricing.prompt * prompts + pricing.output * self.tokens[OUTPUT_SERVED])


@dataclass(frozen=True)
class Replanned:
    """What a run under changing plans gave.

    Attributes:
        measurement: of the run.
        looks: the cluster at each look.
        solved: how many times the plan was solved again; `changed`, how often that gave other tables.
        kept: how often there was no plan for the estimates, and the one in force stayed.
    """

    measurement: IterationMeasurement
    looks: tuple[Look, ...]
    solved: int
    changed: int
    kept: int


class PlannedControl(Control, Protocol):
    """A control whose tables are read off a plan.

    Attributes:
        plan: in force.
    """

    plan: Plan


class Watcher:
    """Keeps what each look sees."""

    def __init__(self, control: PlannedControl) -> None:
        self._control = control
        self.looks: list[Look] = []

    def __call__(self, epoch: float, cluster: Cluster) -> None:
        estimator: Any = getattr(self._control, "estimator", None)
        self.looks.append(
            Look(
                at=epoch,
                load=estimator.at(epoch) if estimator is not None else None,
                plan=self._control.plan,
                mixed_target=int(self._control.tables.mixed_gpus),
                mixed_gpus=int((cluster.gpu["group"] == MIXED).sum()),
                counts=cluster.counts.copy(),
                tokens=cluster.tokens.copy(),
            )
        )


def run_replanned(
    blocks: Iterable[Requests],
    engine: Engine,
    run: Run,
    policy: Policy,
    scenario: Scenario,
    replanning: Replanning,
    *,
    take_log: TakeLog | None = None,
    progress: Progress | None = None,
) -> Replanned:
    """Run single-prefill GPUs under a policy whose plan is solved again as the load moves.

    Args:
        blocks: requests in order of arrival, arrays of dtype REQUEST; read as they are needed.
        scenario: the load planned for at first, and the prior of the estimates.
        replanning: when the plan is solved again, and from what.
        take_log: takes the finished requests, a block at a time.
        progress: told how far the run is, some times a second.

    Raises:
        FluidgateError: as `run_requests`; or the scenario has no plan.
        InvariantError: the audit found a broken invariant.
    """
    control = Replanner(scenario, policy, run.gpus, replanning)
    watcher = Watcher(control)
    rules = ChangingDecisions(policy, control, watcher)
    measured = run_requests(blocks, engine, run, rules, take_log=take_log, progress=progress)
    return Replanned(measured, tuple(watcher.looks), control.solved, control.changed, control.kept)
