"""The entry points of the iteration model: a kernel for each batching discipline, made when it is first used."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from fluidgate.batching import DISCIPLINES, Batching
from fluidgate.compiled import kept
from fluidgate.simulation.iteration.kernel.audit import full_audit
from fluidgate.simulation.iteration.kernel.fleet import move
from fluidgate.simulation.iteration.kernel.record import close_segments


@cache
def build(batching: Batching, *, gated: bool = False) -> Any:
    """The kernel of a discipline, `gated` where GPUs that form their own batches are given requests by a policy.

    It is called with the cluster, the law, the tables where a policy assigns requests to GPUs, a block of requests and
    a budget of events, and answers with a word of `pauses`.
    """
    discipline: Any = import_module(f"fluidgate.simulation.iteration.kernel.batching.{batching.name.lower()}")
    by_policy = DISCIPLINES[batching].by_policy
    kernel = _assigned(discipline) if by_policy else _gated(discipline) if gated else _placed(discipline)
    kernel.__qualname__ = f"{'gated_' if gated else ''}{batching.name.lower()}_kernel"
    return kept(kernel, f"the kernel of {batching} batching", seconds=15)


def _assigned(discipline: Any) -> Any:
    advance = discipline.advance

    def kernel(cluster, law, tables, block, budget):
        return advance(cluster, law, tables, block, budget)

    return kernel


def _placed(discipline: Any) -> Any:
    from fluidgate.simulation.iteration.kernel.placed import advance

    compose = discipline.compose

    def kernel(cluster, law, block, budget):
        return advance(cluster, law, compose, block, budget)

    return kernel


def _gated(discipline: Any) -> Any:
    from fluidgate.simulation.iteration.kernel.gated import advance

    compose = discipline.compose

    def kernel(cluster, law, tables, block, budget):
        return advance(cluster, law, tables, compose, block, budget)

    return kernel


def close_kernel(cluster):
    """What the segments under way have done by the end."""
    close_segments(cluster)


def fleet_kernel(cluster, kind, g):
    """A change of the fleet, see `kernel.fleet.move`."""
    move(cluster, kind, g)


def audit_kernel(cluster):
    """The first broken invariant, 0 if there is none."""
    return full_audit(cluster)


close = kept(close_kernel)
change = kept(fleet_kernel, "failures", seconds=10)
audit = kept(audit_kernel, "the audit of the iteration model", seconds=5)
