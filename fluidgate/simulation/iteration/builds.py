"""The builds of the iteration kernels: as shipped, and with decision functions of a user's own."""

from __future__ import annotations

from typing import Any

from fluidgate.compiled import cached, entry_point, inlined, is_cached
from fluidgate.policies.decisions.gate import gate
from fluidgate.policies.decisions.router import refill, route
from fluidgate.policies.policy import Policy
from fluidgate.simulation.iteration.placed import advance_placed
from fluidgate.simulation.iteration.record import close_segments
from fluidgate.simulation.iteration.single import advance_single
from fluidgate.simulation.markov.builds import explained


def placed_kernel(cluster, law, block, placements, budget):
    """GPUs that form their own batches."""
    return advance_placed(cluster, law, block, placements, budget)


def single_kernel(cluster, law, tables, block, placements, budget):
    """Single-prefill batching with the shipped decision functions."""
    return advance_single(cluster, law, tables, gate, route, refill, block, placements, budget)


def close_kernel(cluster):
    """What the segments under way have done by the end."""
    close_segments(cluster)


placed = cached(placed_kernel)
single = cached(single_kernel)
close = cached(close_kernel)


def single_build(policy: Policy) -> Any:
    """The kernel of single-prefill batching that runs `policy`."""
    if policy.is_data:
        return single
    key = policy.key or "-".join(str(id(part)) for part in (policy.gate, policy.route, policy.refill))
    if key not in _custom_builds:
        _custom_builds[key] = custom_build(policy)
    return _custom_builds[key]


_custom_builds: dict[str, Any] = {}


def custom_build(policy: Policy) -> Any:
    """The kernel with a user's decision functions in the place of the shipped ones (those that are None)."""
    chosen_gate = inlined(policy.gate) if policy.gate else gate
    chosen_route = inlined(policy.route) if policy.route else route
    chosen_refill = inlined(policy.refill) if policy.refill else refill

    @entry_point
    def custom_kernel(cluster, law, tables, block, placements, budget):
        return advance_single(cluster, law, tables, chosen_gate, chosen_route, chosen_refill, block, placements, budget)

    return explained(custom_kernel, [f for f in (policy.gate, policy.route, policy.refill) if f])


def needs_compilation(kernel: Any) -> bool:
    """Whether a shipped kernel must be compiled in this process."""
    return not kernel.signatures and not is_cached(kernel)
