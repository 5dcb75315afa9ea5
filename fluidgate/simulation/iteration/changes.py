"""What changes on the way of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fluidgate.policies.decisions.tables import Tables
from fluidgate.simulation.iteration.kernel.cluster import Cluster

Resize = Callable[[int, float], Tables]
"""The tables of a policy for so many GPUs from an epoch on, s."""


class Changes(Protocol):
    """When a run pauses, and what it goes on with."""

    @property
    def next(self) -> float:
        """Epoch of the next pause, s; inf for none before the horizon."""

    def at(self, epoch: float, cluster: Cluster) -> tuple[Cluster, tuple[Any, ...]]:
        """The cluster and the arguments of the kernel from this epoch on."""
