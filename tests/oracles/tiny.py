"""Systems small enough to be solved exactly: `TINY_SYSTEMS`, at least one for every policy.

The plan of each (x*, q_p*, y_m*, y_s*) is a set of free numbers, not the optimum of a program: they are
chosen so that the policy's decisions matter (unequal targets, classes with no target, side probabilities
inside 0..1). `mixed` is what `M = ceil(n sum x*)` gives for them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

from fluidgate.model import Gpu, IterationTime, Pricing, RequestClass, Scenario

from .network import POLICIES, SIDED, Network, ceil, solo_probability
from .stationary import Stationary, solve


@dataclass(frozen=True)
class TinySystem:
    """A scenario, a cluster, a policy and the plan numbers the policy reads (all per GPU).

    Attributes:
        name: distinct among `TINY_SYSTEMS`.
        prefill: x*; queue: q_p*; mixed_decode: y_m*; solo_decode: y_s*; one entry a class.
        queue_limit, buffer_limit: where the oracle truncates; the chance to be there is under 1e-6.
        large: more than 8,000 states, a few seconds to solve.
        hold, ready: what index-and-pool keeps free.
    """

    name: str
    policy: str
    scenario: Scenario
    gpus: int
    prefill: tuple[float, ...]
    queue: tuple[float, ...]
    mixed_decode: tuple[float, ...]
    solo_decode: tuple[float, ...]
    queue_limit: int
    buffer_limit: int
    large: bool = False
    hold: tuple[int, ...] = ()
    ready: int = 0

    @property
    def mixed(self) -> int:
        """M, the size of the mixed group (or the cap on prefills)."""
        return min(self.gpus, ceil(self.gpus * sum(self.prefill)))

    @property
    def mixed_weight(self) -> tuple[float, ...]:
        """mu_m y_m*."""
        return tuple(float(m) * y for m, y in zip(self.scenario.rates.mixed_decode, self.mixed_decode, strict=True))

    @property
    def solo_weight(self) -> tuple[float, ...]:
        """mu_s y_s*."""
        return tuple(float(m) * y for m, y in zip(self.scenario.rates.solo_decode, self.solo_decode, strict=True))

    @property
    def to_solo(self) -> tuple[float, ...]:
        """p_s."""
        return solo_probability(self.mixed_weight, self.solo_weight)

    @property
    def network(self) -> Network:
        rates = self.scenario.rates
        return Network(
            policy=self.policy,
            gpus=self.gpus,
            batch=self.scenario.gpu.batch_size,
            mixed=self.mixed,
            arrival=tuple(rates.arrival.tolist()),
            patience=tuple(rates.patience.tolist()),
            prefill=tuple(rates.prefill.tolist()),
            mixed_decode=tuple(rates.mixed_decode.tolist()),
            solo_decode=tuple(rates.solo_decode.tolist()),
            prefill_target=self.prefill,
            queue_target=self.queue,
            priority=tuple(c.output_tokens / c.prompt_tokens for c in self.scenario.classes),
            to_solo=self.to_solo,
            mixed_weight=self.mixed_weight,
            solo_weight=self.solo_weight,
            queue_limit=self.queue_limit,
            buffer_limit=self.buffer_limit,
            paid_apart=self.scenario.pricing.scheme == "separate",
            hold=self.hold,
            ready=self.ready,
        )

    def solve(self) -> Stationary:
        """The exact stationary means (kept after the first call)."""
        return _solved(self.name)


@cache
def _solved(name: str) -> Stationary:
    system = next(s for s in TINY_SYSTEMS if s.name == name)
    rates = system.scenario.rates
    return solve(system.network, rates.prompt_value.tolist(), rates.output_value.tolist())


def scenario(
    name: str,
    batch: int,
    classes: list[tuple[float, float, float, float]],
    *,
    kappa: float = 2.0,
    scheme: str = "bundled",
) -> Scenario:
    """A scenario from (mu_p, mu_s, lambda, theta) of each class; mu_m = mu_s/kappa.

    With C = 256 and tau = 0.05 s: P = 5120/mu_p; with gamma = 20 kappa: D = gamma/mu_s.
    """
    gamma = 20.0 * kappa
    return Scenario(
        name=name,
        gpu=Gpu(
            batch_size=batch,
            chunk_size=256,
            iteration=IterationTime(alpha=0.0244, beta=1e-4, gamma=gamma),
        ),
        pricing=Pricing(scheme=scheme, prompt=0.001, output=0.02),
        classes=tuple(
            RequestClass(
                name=f"class-{i}",
                prompt_tokens=5120.0 / mu_p,
                output_tokens=gamma / mu_s,
                arrival_rate=arrival,
                patience_rate=theta,
            )
            for i, (mu_p, mu_s, arrival, theta) in enumerate(classes)
        ),
    )


def _systems() -> list[TinySystem]:
    found: list[TinySystem] = []

    def add(
        name: str,
        policies: Sequence[str],
        where: Scenario,
        gpus: int,
        limits: tuple[int, int],
        prefill: tuple[float, ...],
        queue: tuple[float, ...],
        mixed_decode: tuple[float, ...] = (),
        solo_decode: tuple[float, ...] = (),
        *,
        large: Collection[str] = (),
        hold: tuple[int, ...] = (),
        ready: int = 0,
    ) -> None:
        none = (0.0,) * len(prefill)
        for policy in policies:
            found.append(
                TinySystem(
                    f"{policy}/{name}",
                    policy,
                    where,
                    gpus,
                    prefill,
                    queue,
                    mixed_decode or none,
                    solo_decode or none,
                    *limits,
                    policy in large,
                    hold,
                    ready,
                )
            )

    # One class: every policy on one and on two GPUs (there with a solo GPU where the policy has a partition).
    one = scenario("one-class", 2, [(2.0, 1.0, 0.9, 0.6)])
    add("n1-one-class", POLICIES, one, 1, (14, 12), (0.45,), (0.1,), (0.4,))
    add("n2-one-class", POLICIES, one, 2, (14, 12), (0.45,), (0.1,), (0.3,), (0.7,))
    # Nobody leaves: Little's law then gives the time to first token.
    patient = scenario("patient", 3, [(2.0, 1.0, 0.4, 0.0)], scheme="separate")
    decoupled = [p for p in POLICIES if p not in SIDED]
    add("n2-patient", decoupled, patient, 2, (24, 16), (0.2,), (0.0,))

    # Coupled policies have no decode buffer, hence few states: two classes under heavy load, the gate always
    # at work.
    gated = ["gi-wsp", "gi-wsp-uncapped"]
    heavy = scenario("two-class-heavy", 3, [(1.5, 1.0, 0.8, 0.6), (3.0, 0.5, 0.6, 0.9)])
    add("n1-heavy", gated, heavy, 1, (16, 0), (0.25, 0.05), (0.3, 0.05))
    add("n2-heavy", gated, heavy, 2, (15, 0), (0.25, 0.05), (0.3, 0.05), large=gated)
    add("n1-heavy-no-target", gated, heavy, 1, (16, 0), (0.3, 0.0), (0.1, 0.2))
    # One pool: decodes move to other GPUs, the class with the larger index first.
    add("n1-heavy", ["index-and-pool"], heavy, 1, (16, 0), (0.25, 0.05), (0.3, 0.05))
    add("n2-heavy", ["index-and-pool"], heavy, 2, (15, 0), (0.25, 0.05), (0.3, 0.05), large=["index-and-pool"])
    # Slots kept free for the class of larger index.
    add("n1-hold", ["index-and-pool"], heavy, 1, (16, 0), (0.25, 0.05), (0.3, 0.05), hold=(1, 0))
    add(
        "n2-hold",
        ["index-and-pool"],
        heavy,
        2,
        (15, 0),
        (0.25, 0.05),
        (0.3, 0.05),
        large=["index-and-pool"],
        hold=(0, 3),
    )
    # Two marginal classes: the plan's proportions. A plan with a prefill on every GPU: each keeps its slot.
    tied = scenario("two-class-tied", 2, [(1.5, 1.6, 0.35, 1.5), (3.0, 3.2, 0.25, 2.5)])
    add("n2-tied", ["index-and-pool"], tied, 2, (10, 0), (0.3, 0.1), (0.1, 0.0))
    add("n1-all-mixed", ["index-and-pool"], tied, 1, (6, 5), (0.7, 0.3), (0.1, 0.0))
    add("n2-all-mixed", ["index-and-pool"], one, 2, (14, 12), (1.0,), (0.1,))
    # Prompts paid apart: decodes wait, beside prefills first, and one GPU is kept ready.
    apart = scenario("paid-apart", 2, [(2.0, 1.0, 0.5, 1.2)], scheme="separate")
    add("n2-apart", ["index-and-pool"], apart, 2, (10, 10), (0.3,), (0.1,))
    add("n2-ready", ["index-and-pool"], apart, 2, (10, 10), (0.3,), (0.1,), ready=1)
    add("n3-ready", ["index-and-pool"], apart, 3, (9, 10), (0.3,), (0.1,), ready=1)
    # Three prefill slots: unequal occupancies against unequal targets.
    slots = scenario("three-prefills", 2, [(0.6, 1.5, 0.4, 1.0), (0.9, 1.2, 0.4, 1.5)])
    slots_of_one = scenario("single-slots", 1, [(0.6, 3.0, 0.4, 1.0), (0.9, 2.0, 0.4, 1.5)])
    add("n3-heavy", ["gi-wsp-uncapped"], slots, 3, (11, 0), (0.45, 0.15), (0.1, 0.05), large=gated)
    add("n4-m3-single-slot", gated, slots_of_one, 4, (14, 0), (0.5, 0.15), (0.1, 0.05))

    # Two classes on one GPU: who goes first, and contention beside the decodes.
    two = scenario("two-class", 2, [(1.5, 1.6, 0.35, 1.5), (3.0, 0.8, 0.25, 2.5)])
    for_two = ["gate-and-route", "prioritize-and-route", "gf-wsp", "fi-wsp", "sli-aware-general"]
    add("n1-two-class", for_two, two, 1, (6, 5), (0.25, 0.05), (0.3, 0.0), (0.3, 0.2), large=["gf-wsp"])
    # The second class without a prefill target: it waits for the first.
    wide = scenario("two-class-wide", 3, [(1.5, 1.4, 0.4, 1.5), (3.0, 1.2, 0.3, 2.5)], scheme="separate")
    for_wide = ["gate-and-route", "capped-gate-and-route"]
    add("n1-no-target", for_wide, wide, 1, (7, 5), (0.3, 0.0), (0.0, 0.2), large=["gate-and-route"])

    # Two classes on two GPUs, one of them solo: the router, the sides, FCFS and weighted buffers.
    light = scenario("two-class-light", 2, [(1.5, 0.8, 0.2, 2.5), (3.0, 0.5, 0.15, 3.5)], kappa=1.5)
    for_light = ["gate-and-route", "fi-wsp", "fg-sp", "gf-wsp-uncapped"]
    add(
        "n2-two-class",
        for_light,
        light,
        2,
        (5, 4),
        (0.3, 0.1),
        (0.2, 0.0),
        large=["gate-and-route", "fg-sp", "gf-wsp-uncapped"],
    )
    sides = scenario("two-class-sides", 2, [(4.0, 0.8, 0.16, 3.0), (6.0, 0.5, 0.12, 4.0)], kappa=1.5)
    add(
        "n2-sides",
        sorted(SIDED),
        sides,
        2,
        (4, 4),
        (0.3, 0.1),
        (0.2, 0.0),
        (0.25, 0.2),
        (0.4, 0.2),
        large=SIDED,
    )
    # The second class planned on neither side (p_s = 1), the first on the solo side only: weight zero.
    add(
        "n2-zero-weight",
        ["sli-aware-general"],
        sides,
        2,
        (5, 5),
        (0.3, 0.1),
        (0.2, 0.0),
        (0.0, 0.0),
        (0.4, 0.0),
    )
    # Three classes, all sent to the solo side, where two weigh nothing: FCFS among those two.
    three = scenario("three-class", 1, [(16.0, 2.0, 0.09, 4.0), (12.0, 1.0, 0.07, 3.0), (20.0, 1.5, 0.09, 5.0)])
    weights = ((0.2, 0.15, 0.1), (0.0, 0.1, 0.0), (0.0, 0.0, 0.0), (0.3, 0.0, 0.0))
    add("n2-two-zero-weights", ["sli-aware-general"], three, 2, (3, 5), *weights, large=SIDED)
    # Both GPUs mixed: the caps bind.
    both = scenario("two-class-both-mixed", 2, [(0.8, 6.0, 0.3, 1.5), (1.5, 5.0, 0.3, 2.0)])
    for_both = ["gate-and-route", "capped-gate-and-route"]
    add("n2-all-mixed", for_both, both, 2, (8, 4), (0.45, 0.2), (0.1, 0.0), large=for_both)
    # Three prefill slots and a partition.
    fast = scenario("three-prefill-slots", 1, [(0.6, 16.0, 0.25, 1.8), (0.9, 12.0, 0.25, 2.4)])
    for_fast = ["gate-and-route", "capped-gate-and-route", "prioritize-and-route"]
    add(
        "n4-m3",
        for_fast,
        fast,
        4,
        (9, 4),
        (0.45, 0.16),
        (0.1, 0.05),
        large=["gate-and-route", "prioritize-and-route"],
    )
    return found


TINY_SYSTEMS: list[TinySystem] = _systems()
