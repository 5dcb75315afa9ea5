"""The builds of the Markov kernel: release, debug, and with decision functions of a user's own."""

from __future__ import annotations

import re
from typing import Any

from numba.core.errors import NumbaError

from fluidgate.compiled import cached, entry_point, inlined, is_cached
from fluidgate.errors import FluidgateError, one_line
from fluidgate.policies.decisions.gate import gate
from fluidgate.policies.decisions.router import refill, route
from fluidgate.policies.policy import Policy
from fluidgate.simulation.markov.audit import full_audit, no_audit
from fluidgate.simulation.markov.kernel import advance


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


def needs_compilation(policy: Policy, *, audited: bool = False) -> bool:
    """Whether the kernel for `policy` must be compiled in this process."""
    if not policy.is_data:
        return (policy.key, audited) not in _custom_builds
    kernel = debug if audited else release
    return not kernel.signatures and not is_cached(kernel)


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

    return explained(custom_kernel, [f for f in (user_gate, user_route, user_refill) if f])


def explained(kernel: Any, functions: list[Any]) -> Any:
    """The same kernel, which says in one line what keeps a user's decision function from being compiled."""

    def call(*arguments: Any) -> Any:
        try:
            return kernel(*arguments)
        except NumbaError as error:
            raise FluidgateError(
                f"{cause(str(error), functions)}; a decision function uses numbers, loops and the fields of view and "
                "tables, and makes no arrays, lists or strings"
            ) from error

    return call


def cause(report: str, functions: list[Any]) -> str:
    """What numba objects to, in one line: the function, its line and the reason."""
    lines = [line.strip() for line in report.splitlines()]
    reason = next((line for line in lines if line and not line.startswith("Failed in")), "unknown reason")
    if "NRT required" in reason:
        reason = "it makes an array"
    for function in functions:
        file = function.__code__.co_filename
        places = [line for line in lines if file in line]
        if places:
            number = re.search(r"\((\d+)\)|line (\d+)", places[0])
            where = f", line {number[1] or number[2]}" if number else ""
            return one_line(f"decision function '{function.__name__}'{where} can't be compiled: {reason}")
    return one_line(f"a decision function can't be compiled: {reason}")
