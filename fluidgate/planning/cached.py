"""The plan of engines whose cache holds what their memory leaves: hit rates and plan, each following from the other.

What is found in memory depends on how much of it is left for what nobody uses now; and that is what the requests that
run leave, which depends on how much of their prompts must be read. So the tokens `c` that are left solve

    c = M - K(h(c)),

`h` the hit rates of the classes in a memory of `c` tokens and `K` the mean tokens held at the plan's operating point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluidgate.errors import FluidgateError, InfeasiblePlanError
from fluidgate.model import Array, Scenario
from fluidgate.planning.plan import Plan
from fluidgate.planning.planner import Planner

_MOST = 0.999999
"""Hit rate at most: something is read of every prompt."""

_HALVINGS = 40
_FOUND = 1e-4
"""Share of the memory by which both sides may differ."""


@dataclass(frozen=True, eq=False)
class CachedPlan:
    """A plan at the hit rates of what it leaves of the memory.

    Attributes:
        plan: at these hit rates.
        memory: tokens that are left for the cache, inf where memory is not limited.
        gap: by how many tokens what the plan leaves differs from that.
        converged: whether that is next to nothing. If not, the plan jumps there: a little more in the cache makes it
            hold much more.
    """

    plan: Plan
    memory: float
    gap: float
    converged: bool


def plan_with_cache(scenario: Scenario, rates: Callable[[float], Array], *, gpus: int | None = None) -> CachedPlan:
    """The plan at the hit rates that its own memory gives.

    Args:
        scenario: with prefix caching; its own hit rates are not read.
        rates: the hit rates of its classes in a memory of so many tokens, inf for one without end; they never fall.
        gpus: as in `plan`.

    Raises:
        FluidgateError: the scenario has no prefix caching.
        InfeasiblePlanError: as in `plan`, or what must be in the cache for it leaves no room for what runs.
    """
    if not scenario.engine.prefix_caching:
        raise FluidgateError(
            f"scenario '{scenario.name}': engine.prefix_caching: false, so nothing is found in memory; set it to true"
        )
    planner = Planner()

    def at(memory: float) -> Plan:
        return planner.solve(with_hit_rates(scenario, rates(memory)), gpus=gpus)

    whole = scenario.engine.kv_tokens
    if whole is None:
        return CachedPlan(at(math.inf), math.inf, 0.0, True)

    def left(plan: Plan) -> float:
        return whole - (plan.operating_point.kv_tokens if plan.operating_point is not None else 0.0)

    low, high, near = 0.0, float(whole), _FOUND * whole
    solved, memory, overloaded = at(high), high, False
    gap = left(solved) - high
    for _ in range(_HALVINGS):
        if abs(gap) <= near or high - low <= 0.01 * near:
            break
        middle = 0.5 * (low + high)
        try:
            solved = at(middle)
        except InfeasiblePlanError:  # so little in the cache is too little
            low, overloaded = middle, True
            continue
        memory, gap = middle, left(solved) - middle
        low, high = (middle, high) if gap > 0.0 else (low, middle)
    if overloaded and gap < -near:
        raise InfeasiblePlanError(
            f"scenario '{scenario.name}': no plan leaves the KV memory that it needs for its cache: too little is "
            "found in the rest to keep up with requests that never leave (patience_rate 0); "
            "use more GPUs, give more memory (kv_tokens), or lower the arrival rates"
        )
    return CachedPlan(solved, memory, gap, abs(gap) <= near)


def at_memories(
    scenario: Scenario, rates: Callable[[float], Array], sizes: Sequence[float], *, gpus: int | None = None
) -> list[CachedPlan | None]:
    """`plan_with_cache` for engines whose KV memory holds so many tokens, inf for one without end; None for no plan.

    Raises:
        FluidgateError: the scenario has no prefix caching.
    """

    def of(size: float) -> CachedPlan | None:
        tokens = int(size) if math.isfinite(size) else None
        engine = scenario.engine.model_copy(update={"kv_tokens": tokens})
        try:
            return plan_with_cache(scenario.replace(engine=engine), rates, gpus=gpus)
        except InfeasiblePlanError:
            return None

    return [of(size) for size in sizes]


def with_hit_rates(scenario: Scenario, rates: Array) -> Scenario:
    """The scenario with these hit rates of its classes, each below 1."""
    classes = (
        c.model_copy(update={"prefix_hit_rate": min(max(float(h), 0.0), _MOST)})
        for c, h in zip(scenario.classes, rates, strict=True)
    )
    return scenario.replace(classes=tuple(classes))
