"""The builds of the iteration kernels: release, debug, and with decision functions of a user's own."""

from __future__ import annotations

from typing import Any

from fluidgate.compiled import cached, entry_point, inlined, is_cached
from fluidgate.policies.gate import gate
from fluidgate.policies.policy import Policy
from fluidgate.policies.router import refill, route
from fluidgate.simulation.iteration.audit import full_audit, no_audit
from fluidgate.simulation.iteration.placed import advance_placed
from fluidgate.simulation.iteration.record import close_segments
from fluidgate.simulation.iteration.single import advance_single
from fluidgate.simulation.markov.builds import explained


def placed_kernel(cluster, law, block, placements, budget):
    """GPUs that form their own batches, release."""
    return advance_placed(cluster, law, no_audit, block, placements, budget)


def placed_debug_kernel(cluster, law, block, placements, budget):
    """The same with every invariant checked after every event."""
    return advance_placed(cluster, law, full_audit, block, placements, budget)


def single_kernel(cluster, law, tables, block, placements, budget):
    """Single-prefill batching with the shipped decision functions, release."""
    return advance_single(cluster, law, tables, gate, route, refill, no_audit, block, placements, budget)


def single_debug_kernel(cluster, law, tables, block, placements, budget):
    """The same with every invariant checked after every event."""
    return advance_single(cluster, law, tables, gate, route, refill, full_audit, block, placements, budget)


def close_kernel(cluster):
    """What the segments under way have done by the end."""
    close_segments(cluster)


placed_release = cached(placed_kernel)
placed_debug = cached(placed_debug_kernel)
single_release = cached(single_kernel)
single_debug = cached(single_debug_kernel)
close = cached(close_kernel)


def placed_build(*, audited: bool = False) -> Any:
    """The kernel of token-budget and prefill-first batching."""
    return placed_debug if audited else placed_release


def single_build(policy: Policy, *, audited: bool = False) -> Any:
    """The kernel of single-prefill batching that runs `policy`."""
    if policy.is_data:
        return single_debug if audited else single_release
    key = (policy.key or str(id(policy)), audited)
    if key not in _custom_builds:
        _custom_builds[key] = custom_build(policy, audited)
    return _custom_builds[key]


_custom_builds: dict[tuple[str, bool], Any] = {}


def custom_build(policy: Policy, audited: bool) -> Any:
    """The kernel with a user's decision functions in the place of the shipped ones (those that are None)."""
    chosen_gate = inlined(policy.gate) if policy.gate else gate
    chosen_route = inlined(policy.route) if policy.route else route
    chosen_refill = inlined(policy.refill) if policy.refill else refill
    audit = full_audit if audited else no_audit

    @entry_point
    def custom_kernel(cluster, law, tables, block, placements, budget):
        return advance_single(
            cluster, law, tables, chosen_gate, chosen_route, chosen_refill, audit, block, placements, budget
        )

    return explained(custom_kernel, [f for f in (policy.gate, policy.route, policy.refill) if f])


def needs_compilation(kernel: Any) -> bool:
    """Whether a shipped kernel must be compiled in this process."""
    return not kernel.signatures and not is_cached(kernel)
