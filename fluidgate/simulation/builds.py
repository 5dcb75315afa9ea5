"""The builds of the Markov kernel: release, debug, and with decision functions of a user's own."""

from __future__ import annotations

from typing import Any

from numba.core.errors import NumbaError

from fluidgate.compiled import cached, entry_point, inlined, is_cached
from fluidgate.errors import FluidgateError, one_line
from fluidgate.policies.gate import gate
from fluidgate.policies.policy import Policy
from fluidgate.policies.router import refill, route
from fluidgate.simulation.audit import full_audit, no_audit
from fluidgate.simulation.kernel import advance


def markov_kernel(net, tables, arrivals, services, placements, budget):
    """The release build with the shipped decision functions."""
    return advance(net, tables, gate, route, refill, no_audit, arrivals, services, placements, budget)


def markov_debug_kernel(net, tables, arrivals, services, placements, budget):
    """The same with every invariant checked after every event."""
    return advance(net, tables, gate, route, refill, full_audit, arrivals, services, placements, budget)


release = cached(markov_kernel)
debug = cached(markov_debug_kernel)


def build(policy: Policy, *, audited: bool = False) -> Any:
    """The kernel that runs `policy`."""
    if policy.is_data:
        return debug if audited else release
    key = (policy.key, audited)
    if key not in _custom_builds:
        _custom_builds[key] = custom_build(policy.gate, policy.route, policy.refill, audited)
    return _custom_builds[key]


def needs_compilation(policy: Policy) -> bool:
    """Whether the kernel for `policy` must be compiled in this process."""
    if not policy.is_data:
        return (policy.key, False) not in _custom_builds
    return not release.signatures and not is_cached(release)


_custom_builds: dict[tuple[str, bool], Any] = {}


def custom_build(user_gate: Any, user_route: Any, user_refill: Any, audited: bool) -> Any:
    """The kernel with a user's decision functions in the place of the shipped ones (those that are None)."""
    chosen_gate = inlined(user_gate) if user_gate else gate
    chosen_route = inlined(user_route) if user_route else route
    chosen_refill = inlined(user_refill) if user_refill else refill
    audit = full_audit if audited else no_audit

    @entry_point
    def custom_kernel(net, tables, arrivals, services, placements, budget):
        return advance(
            net,
            tables,
            chosen_gate,
            chosen_route,
            chosen_refill,
            audit,
            arrivals,
            services,
            placements,
            budget,
        )

    def explained(*arguments: Any) -> Any:
        try:
            return custom_kernel(*arguments)
        except NumbaError as error:
            raise FluidgateError(
                "a decision function of this policy can't be compiled; use numbers, loops and the fields of view and "
                f"tables, and make no arrays, lists or strings: {one_line(str(error))[-300:]}"
            ) from error

    return explained
