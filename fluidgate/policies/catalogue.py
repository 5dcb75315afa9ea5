"""Every policy by name: the paper's, and the baselines and ablations of its section 6.3.

Source: [LDHZ] sections 4, 5, 6.3 and Proposition 13.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from fluidgate.errors import FluidgateError, nearest
from fluidgate.model import Array
from fluidgate.planning import Plan
from fluidgate.planning.partition import ceil_tolerant, partition
from fluidgate.policies.brought import brought_names, brought_policies, brought_policy
from fluidgate.policies.decisions.tables import SAME, GateRule, RefillRule, RouteRule, Tables, no_homes, no_limits
from fluidgate.policies.homes import at_home
from fluidgate.policies.limits import with_limits
from fluidgate.policies.placed import PLACED, PlacedPolicy
from fluidgate.policies.policy import Parameter, Policy, Program
from fluidgate.policies.reservation import ready_for_prefill, trunk_reservation
from fluidgate.policies.value import gate_index, ranked

ALL = 1e-9
"""Shares of the GPUs that differ by less from 1 are all of them."""
UNCAPPED = np.iinfo(np.int64).max


def tables_of(
    plan: Plan,
    gpus: int,
    *,
    partitioned: bool = True,
    gate: GateRule = GateRule.OCCUPANCY,
    route: RouteRule = RouteRule.SOLO_FIRST,
    refill: RefillRule = RefillRule.FCFS,
    cap_prefills: bool = True,
    cap_classes: bool = False,
    margin: float = 0.0,
) -> Tables:
    """The tables of a policy that follows `plan` on `gpus` GPUs.

    Args:
        partitioned: a mixed group of `ceil(n sum x*)` GPUs with a reserved slot each, and a solo group; ranks in step
            are all in one of them.
        cap_prefills: at most `ceil(n sum x*)` prefills at a time.
        cap_classes: class i starts only while `X_i < n x*_i`.
        margin: multiplies these three limits by `1 + margin`.
    """
    ranks = plan.scenario.engine.data_parallel
    prefills = partition((1.0 + margin) * plan.mixed_fraction, gpus).mixed
    mixed = partition((1.0 + margin) * plan.mixed_fraction, gpus, ranks).mixed
    rates = plan.rates
    classes = len(rates.arrival)
    caps = [ceil_tolerant((1.0 + margin) * gpus * x) for x in plan.prefill] if cap_classes else [UNCAPPED] * classes
    return Tables(
        mixed_gpus=mixed if partitioned else gpus,
        reserve=partitioned,
        max_prefills=prefills if cap_prefills else gpus,
        gate_rule=int(gate),
        route_rule=int(route),
        refill_rule=int(refill),
        target_prefill=gpus * plan.prefill,
        target_queue=gpus * plan.prefill_queue,
        cap=np.array(caps, dtype=np.int64),
        priority=gate_index(plan) if gate is GateRule.VALUE else decode_per_prompt(plan),
        deadline=np.array([math.inf if target is None else target for target in plan.scenario.ttft_targets]),
        solo_probability=np.array(plan.solo_probability, dtype=np.float64),
        split_buffers=route is RouteRule.SPLIT,
        weights=np.stack([rates.mixed_decode * plan.mixed_decode, rates.solo_decode * plan.solo_decode]),
        hold=np.zeros(classes, dtype=np.int64),
        ready=0,
        spare=-1,
        fewest=False,
        expected_output=np.array([c.output_tokens for c in plan.scenario.classes]),
        **no_limits(classes),
        **no_homes(classes),
    )


def index_and_pool(plan: Plan, gpus: int, *, reservation: float = 0.0, toll: float = 30.0) -> Tables:
    """One pool: the largest value index starts first; a decode goes where it is fast, unless a prefill needs the GPU.

    Paid at completion (bundled), a decode takes a free slot at once, so that no work is lost after a prefill; where
    the plan has a prefill on every GPU, each keeps its prefill slot instead, and decodes may wait. Classes of the same
    index start in the proportions of the plan. Where prompts are paid apart, a freed slot goes to a waiting prefill
    first, and of the same index the class with the longest answers starts first: it keeps the decode stage in work.
    Classes that never leave, where everybody is served, have no index: their earliest deadline starts first (the TTFT
    target), the oldest where there is none.

    What a finite cluster keeps free, and for whom: `fluidgate.policies.reservation`. `reservation` adds to it, in
    standard deviations of a Poisson number: `sqrt(B n)` slots for all classes but that of the largest index, or
    `sqrt(n)` GPUs where prompts are paid apart.

    Where prompts find what was read before (`[engine] prefix_caching`) and GPUs form their own batches, gate and
    placement decide together, see `fluidgate.policies.decisions.homes`, with `toll` requests to come that a second of
    reading puts off. On GPUs that read one prompt at a time, the oldest of the class that is named goes where most of
    its prompt is, among those that could start it.
    """
    tables = _one_pool(plan, gpus, reservation)
    return at_home(tables, plan, toll) if plan.scenario.engine.prefix_caching else tables


def _one_pool(plan: Plan, gpus: int, reservation: float) -> Tables:
    apart = plan.scheme == "separate"
    all_mixed = plan.mixed_fraction > 1.0 - ALL
    tables = tables_of(
        plan,
        gpus,
        partitioned=all_mixed and not apart,
        gate=GateRule.VALUE,
        route=RouteRule.BUFFER if apart else RouteRule.SOLO_FIRST if all_mixed else RouteRule.POOL,
        cap_prefills=False,
    )._replace(spare=1 if plan.kappa >= 1.0 else gpus, fewest=True, max_prefills=UNCAPPED)
    if apart:
        order = np.where(tables.priority > 0.0, 1.0 + ranked(tables.priority, decode_per_prompt(plan)), 0.0)
        ready = _within(ready_for_prefill(plan) + reservation * math.sqrt(gpus), gpus + 1)
        return with_limits(tables._replace(priority=order, ready=ready), plan, gpus)
    slots = max(1, math.floor(gpus * plan.slots))
    below = tables.priority < tables.priority.max() * (1.0 - SAME)
    more = np.where(below, reservation * math.sqrt(slots), 0.0)
    tables = tables._replace(hold=np.array([_within(k, slots) for k in trunk_reservation(plan, gpus) + more]))
    return with_limits(tables, plan, gpus)


def _within(kept: float, all_of_them: int) -> int:
    """A whole number to keep free that is less than all."""
    return max(0, min(all_of_them - 1, round(kept)))


def decode_per_prompt(plan: Plan) -> Array:
    """`D/P`, the index of prioritize-and-route, shape (classes,)."""
    return np.array([c.output_tokens / c.prompt_tokens for c in plan.scenario.classes])


def _tabulated(**options: object) -> Callable[..., Tables]:
    return partial(tables_of, **options)  # type: ignore[arg-type]


MARGIN = (
    Parameter("margin", 0.0, 0.0, 1.0, "how much larger than the plan's the mixed group and the caps on prefills are"),
)
TOLL = Parameter(
    "toll",
    30.0,
    0.0,
    1000.0,
    "requests to come that a second of reading puts off, with prefix caching",
    with_caching=True,
)
RESERVATION = (
    Parameter("reservation", 0.0, -2.0, 2.0, "slots kept free beyond the birth-death rule, in units of sqrt(B n)"),
)
BUNDLED = Program(scheme="bundled")

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy(
            "gate-and-route",
            "paper",
            "occupancy gate, partition, decodes to the solo group first (bundled plan)",
            BUNDLED,
            _tabulated(),
            parameters=MARGIN,
        ),
        Policy(
            "capped-gate-and-route",
            "paper",
            "gate-and-route where a class starts no prefill above its target",
            BUNDLED,
            _tabulated(cap_classes=True),
            parameters=MARGIN,
        ),
        Policy(
            "prioritize-and-route",
            "paper",
            "the waiting class with the largest output/prompt ratio first, partition (separate plan)",
            Program(scheme="separate"),
            _tabulated(gate=GateRule.PRIORITY),
            parameters=MARGIN,
        ),
        Policy(
            "sli-aware",
            "paper",
            "occupancy gate, decodes split at random by the plan, a buffer for each group (plan without buffer)",
            Program(allow_decode_buffer=False),
            _tabulated(route=RouteRule.SPLIT),
            parameters=MARGIN,
        ),
        Policy(
            "sli-aware-general",
            "paper",
            "sli-aware for plans that keep a decode buffer: a freed slot draws its class by weight",
            Program(),
            _tabulated(route=RouteRule.SPLIT, refill=RefillRule.WEIGHTED),
            parameters=MARGIN,
        ),
        Policy(
            "index-and-pool",
            "ours",
            "one pool of GPUs; the largest value over cost at shadow prices first, decodes take slots at once",
            Program(),
            index_and_pool,
            parameters=(*RESERVATION, TOLL),
            takes_any_batching=True,
        ),
        Policy(
            "fi-wsp",
            "baseline",
            "FCFS, no partition, decode where the prefill was (Sarathi-Serve, vLLM with chunked prefill)",
            BUNDLED,
            _tabulated(partitioned=False, gate=GateRule.FCFS, route=RouteRule.STAY, cap_prefills=False),
        ),
        Policy(
            "gi-wsp",
            "baseline",
            "occupancy gate and cap on prefills, no partition, decode where the prefill was",
            BUNDLED,
            _tabulated(partitioned=False, route=RouteRule.STAY),
            parameters=MARGIN,
        ),
        Policy(
            "gf-wsp",
            "baseline",
            "occupancy gate and cap on prefills, no partition, decodes anywhere after waiting prefills",
            BUNDLED,
            _tabulated(partitioned=False, route=RouteRule.BUFFER),
            parameters=MARGIN,
        ),
        Policy(
            "gi-wsp-uncapped",
            "baseline",
            "gi-wsp without the cap on prefills",
            BUNDLED,
            _tabulated(partitioned=False, route=RouteRule.STAY, cap_prefills=False),
        ),
        Policy(
            "gf-wsp-uncapped",
            "baseline",
            "gf-wsp without the cap on prefills",
            BUNDLED,
            _tabulated(partitioned=False, route=RouteRule.BUFFER, cap_prefills=False),
        ),
        Policy(
            "fg-sp",
            "baseline",
            "FCFS with the partition and router of gate-and-route",
            BUNDLED,
            _tabulated(gate=GateRule.FCFS),
            parameters=MARGIN,
        ),
    )
}

LISTED: dict[str, Policy | PlacedPolicy] = {**POLICIES, **PLACED}
"""All that are shipped, in the order in which they are shown."""

ALIASES = {
    "gg-sp": "gate-and-route",
    "prefill-first": "prefill-first-round-robin",
    "lmetric": "vllm-lmetric",
}
REPLAN = "+replan"
"""After a policy's name: its plan follows the load (`fluidgate.replanning`)."""


def all_policies() -> dict[str, Policy | PlacedPolicy]:
    """Those that are shipped, then those that other installed packages bring."""
    return {**LISTED, **brought_policies({*LISTED, *ALIASES})}


def is_listed(name: str) -> bool:
    """Whether `fluidgate policies` lists a policy of that name."""
    return name in LISTED or name in brought_names()


def listed_policy(name: str) -> Policy | PlacedPolicy:
    """The policy of that name or alias: shipped, or brought by an installed package.

    Raises:
        FluidgateError: no policy has that name, and the message gives the nearest; or what brings it is broken.
    """
    policy = LISTED.get(ALIASES.get(name, name))
    if name.endswith(REPLAN):
        raise FluidgateError(
            f"policy '{name}' follows the load, which only the fidelity of iterations does; "
            f"simulate or compare it with --fidelity iteration, replay a trace, or leave {REPLAN} out"
        )
    if policy is None:
        policy = brought_policy(name)
    if policy is None:
        known = [*LISTED, *ALIASES, *brought_names()]
        raise FluidgateError(f"unknown policy '{name}'; `fluidgate policies` lists them all{nearest(name, known)}")
    return policy
