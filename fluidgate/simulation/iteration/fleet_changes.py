"""The pauses of a run for changes of its fleet, between those for new tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from fluidgate.compiled import by_reference
from fluidgate.errors import FluidgateError
from fluidgate.policies.decisions.tables import Placement
from fluidgate.simulation.iteration.changes import Changes, Resize
from fluidgate.simulation.iteration.fleet import Changing
from fluidgate.simulation.iteration.kernel.cluster import AWAY, Cluster
from fluidgate.simulation.iteration.kernel.fleet import NOTHING, SETTLE


@dataclass
class FleetChanges:
    """GPUs that come and go.

    Attributes:
        fleet: which GPUs, and when.
        fixed: arguments of the kernel in force: the law, and the tables where there are some.
        horizon: s.
        tables: pauses for new tables; None for none.
        resize: the tables for another number of GPUs from an epoch on; None to keep what there is.
    """

    fleet: Changing
    fixed: tuple[Any, ...]
    horizon: float
    tables: Changes | None = None
    resize: Resize | None = None
    _used: tuple[Any, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._used = self.fixed

    @property
    def next(self) -> float:
        """inf where the horizon comes first."""
        epoch = min(self.fleet.next, self.tables.next if self.tables is not None else math.inf)
        return epoch if epoch < self.horizon else math.inf

    def begin(self, cluster: Cluster) -> tuple[Cluster, tuple[Any, ...]]:
        """The cluster and the arguments at time 0; what changes there does so before anything else."""
        from fluidgate.simulation.iteration.builds import change

        change(by_reference(cluster), NOTHING, 0)  # compiled, or loaded, before processes part
        return self.at(0.0, cluster) if self.fleet.next <= 0.0 else self._told(cluster)

    def at(self, epoch: float, cluster: Cluster) -> tuple[Cluster, tuple[Any, ...]]:
        """One thing after the other: the kernel pauses there again."""
        if self.tables is not None and self.tables.next <= epoch:
            cluster, self.fixed = self.tables.at(epoch, cluster)
        elif self.fleet.next <= epoch:
            self._move(epoch, cluster)
        return self._told(cluster)

    def _move(self, epoch: float, cluster: Cluster) -> None:
        from fluidgate.simulation.iteration.builds import change

        before = self.fleet.up
        moves = self.fleet.apply(epoch, cluster)
        state = by_reference(cluster)
        for move in moves:
            change(state, move.kind, move.gpu)
        if moves:
            change(state, SETTLE, 0)
        if self.resize is not None and 0 < self.fleet.up != before:
            self.fixed = (self.fixed[0], self.resize(self.fleet.up, epoch))

    def _told(self, cluster: Cluster) -> tuple[Cluster, tuple[Any, ...]]:
        """The mixed group of a policy is no larger than what is up."""
        cluster.tally[AWAY] = self.fleet.away
        if len(self.fixed) == 1:
            return cluster, self.fixed
        law, tables = self.fixed
        if bool(tables.reserve) != cluster.board.reserve:
            cluster = cluster._replace(board=cluster.board._replace(reserve=bool(tables.reserve)))
        return cluster, (law, tables._replace(mixed_gpus=min(int(tables.mixed_gpus), self.fleet.up)))


def check_fleet(cluster: Cluster) -> None:
    """Refuse a cluster whose GPUs can't come and go.

    Raises:
        FluidgateError: naming the mend.
    """
    if cluster.set.placement == Placement.POOLS:
        raise FluidgateError(
            "failures: not simulated with pools of GPUs for prompts and for tokens; "
            "name a policy without pools, or remove [failures] and [[schedule]]"
        )
