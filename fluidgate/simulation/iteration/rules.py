"""What decides in a run: a placement on engines that form their own batches, or a policy with its tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fluidgate.errors import FluidgateError
from fluidgate.policies.decisions.edpp import Edpp, new_edpp
from fluidgate.policies.decisions.placement import NOTHING_SAID, Criteria
from fluidgate.policies.decisions.tables import Placement, Tables
from fluidgate.policies.policy import Policy
from fluidgate.simulation.iteration.changes import Resize
from fluidgate.simulation.iteration.engine import Engine, Pools
from fluidgate.simulation.iteration.kernel.cluster import CHANGED, Cluster
from fluidgate.simulation.iteration.law import linear_terms
from fluidgate.simulation.iteration.run import Run, Start, new_cluster


@dataclass(frozen=True)
class Placements:
    """GPUs form their own batches (token budget or prefill first), and each request is placed on one as it arrives.

    Attributes:
        placement: which GPU takes a request.
        pools: with the placement POOLS, its pools.
        thresholds: how many requests of a class wait on a GPU before they are admitted there together, one a class;
            none if empty. When nothing else is left to happen, those that still accumulate are admitted.
        criteria: numbers that the rule of placement leaves open.
    """

    placement: Placement = Placement.ROUND_ROBIN
    pools: Pools | None = None
    thresholds: Sequence[int] = ()
    criteria: Criteria = NOTHING_SAID

    def start(self, engine: Engine, run: Run, *, log: bool) -> Start:
        """
        Raises:
            FluidgateError: the engine's batching needs a policy, or the thresholds are not one a class.
        """
        from fluidgate.simulation.iteration.builds import build

        if engine.discipline.by_policy:
            raise FluidgateError(f"{engine.batching} batching is run by a policy; give Decisions, or another batching")
        if self.thresholds and (len(self.thresholds) != run.classes or min(self.thresholds) < 1):
            raise FluidgateError(f"thresholds: give one of at least 1 for each of the {run.classes} classes")
        cluster = new_cluster(
            engine,
            run,
            log,
            self.thresholds,
            placement=self.placement,
            criteria=self.criteria,
            pools=self.pools,
            edpp=edpp_of(engine, run, self.pools),
        )
        return Start(build(engine.batching), cluster, (engine.law,))


def edpp_of(engine: Engine, run: Run, pools: Pools | None) -> Edpp | None:
    """What EDPP goes by, where the pools leave it the choice.

    Raises:
        FluidgateError: a class lacks a target.
    """
    if pools is None or pools.transfer_price is None:
        return None
    targets = (run.ttft_targets, run.tpot_targets)
    for name, given in zip(("ttft", "tpot"), targets, strict=True):
        if not given or max(given) == math.inf:
            raise FluidgateError(f"targets.{name}: edpp weighs a transfer against the targets of every class; give one")
    bandwidth = engine.keys.transfer_bandwidth
    return new_edpp(
        run.gpus,
        pools.prompt_gpus,
        chunk=engine.tokens,
        price=pools.transfer_price,
        seconds=linear_terms(engine.law, engine.tokens, engine.batch_size),
        latency=engine.keys.transfer_latency,
        per_token=0.0 if bandwidth is None else 1.0 / bandwidth,
        ttft_targets=run.ttft_targets,
        itl_targets=run.tpot_targets,
    )


@dataclass(frozen=True)
class Decisions:
    """GPUs under a policy: its decision functions as in the Markov network. Single-prefill GPUs, or, where the policy
    takes any batching, those that form their own batches.

    Attributes:
        tables: of the policy for the run's GPUs.
        resize: those for fewer, while others are down; None to keep them.
    """

    policy: Policy
    tables: Tables
    resize: Resize | None = None

    def start(self, engine: Engine, run: Run, *, log: bool) -> Start:
        """
        Raises:
            FluidgateError: the engine batches otherwise, or a decision function can't be compiled.
        """
        from fluidgate.policies.decisions.own import functions_of
        from fluidgate.simulation.iteration.builds import build

        gated = not engine.discipline.by_policy
        if gated and not self.policy.takes_any_batching:
            raise FluidgateError(
                f"policy '{self.policy.name}' runs single-prefill batching; give Placements for the other ways"
            )
        functions = functions_of(**self.policy.functions)
        cluster = new_cluster(engine, run, log, tables=self.tables, functions=functions, gated=gated)
        if self.tables.limited:
            cluster.board.state.pace[:] = 0.0
        kernel = build(engine.batching, gated=gated)
        return Start(kernel, cluster, (engine.law, self.tables), policy=self.policy, resize=self.resize)


class Control(Protocol):
    """What gives a run new tables on its way: `fluidgate.replanning.Replanner`, or a timetable.

    One that has `resize(gpus, now)` is told how many GPUs are up, where that changes.

    Attributes:
        tables: in force.
        next_look: epoch at which `look` is called next, s; inf for never.
        rows: estimates, dtype ESTIMATE, that the run feeds with its events; shape (0,) for none.
    """

    tables: Tables

    @property
    def next_look(self) -> float: ...

    @property
    def rows(self) -> Any: ...

    def look(self, now: float) -> Any:
        """Set `tables`, and move `next_look` beyond `now`."""


Watch = Callable[[float, Any], None]
"""Called at each look, before it, with its epoch and the cluster, to read."""


@dataclass(frozen=True)
class ChangingDecisions:
    """As `Decisions`, under tables that change at the looks of `control`; good for one run.

    Nothing is dropped or broken off at a change: the mixed group grows at once, and shrinks as prefills end.

    Attributes:
        control: tables over time.
        watch: sees the cluster at each look.
    """

    policy: Policy
    control: Control
    watch: Watch | None = None

    def start(self, engine: Engine, run: Run, *, log: bool) -> Start:
        """
        Raises:
            FluidgateError: as `Decisions`.
        """
        start = Decisions(self.policy, self.control.tables).start(engine, run, log=log)
        return start._replace(
            cluster=start.cluster._replace(estimates=self.control.rows),
            changes=TableChanges(engine, self.control, run.horizon, self.watch),
            resize=self._resized if hasattr(self.control, "resize") else None,
        )

    def _resized(self, gpus: int, now: float) -> Tables:
        control: Any = self.control
        control.resize(gpus, now)
        return self.control.tables


@dataclass(frozen=True)
class TableChanges:
    """The pauses of a run for the looks of a control."""

    engine: Engine
    control: Control
    horizon: float
    watch: Watch | None

    @property
    def next(self) -> float:
        """inf where the horizon comes first."""
        epoch = self.control.next_look
        return epoch if epoch < self.horizon else math.inf

    def at(self, epoch: float, cluster: Cluster) -> tuple[Cluster, tuple[Any, ...]]:
        if self.watch is not None:
            self.watch(epoch, cluster)
        before = self.control.tables
        self.control.look(epoch)
        tables = self.control.tables
        if tables is not before:
            cluster.tally[CHANGED] = 1
            cluster = cluster._replace(board=cluster.board._replace(reserve=bool(tables.reserve)))
        return cluster, (self.engine.law, tables)
