"""Limits on indicators: are they held, and what do they cost? `python -m benchmarks.limits`

The two-class instance of the paper's section 6.2 with each limit and with all three; instances of its section 6.3 with
`kappa` of 1 or more, paid either way; and random ones of ours: two to four classes, loads of 0.7 to 1.6, the paper's
law of an iteration or one that grows with the batch. A limit, or several, is drawn between the least that can be met
and what the plan has without it. A row says what a policy earns over the plan's revenue, and the largest value over its
limit, at both fidelities; the last lines count the rows with no value above 105 % of its limit, and those of them at
97 % of the revenue or more.

"free" is index-and-pool with its virtual queues taken out.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fluidgate import InfeasiblePlanError, Planner, Policy, Scenario, find_policy, simulate
from fluidgate.model import Gpu, Indicators, IterationTime, Pricing, RequestClass
from fluidgate.paper.instances import random_instance as section_6_3
from fluidgate.planning.per_gpu_rates import offered_load
from fluidgate.policies import Tables

HELD = 1.05
EARNED = 0.97
SIZES = (20, 50, 200)
SEED = 3
FIDELITIES = ("markov", "iteration")
TWO_CLASS: dict[str, Indicators] = {
    "prefill gap 0.12": Indicators(max_prefill_gap=0.12),
    "solo gap 2": Indicators(max_solo_gap=2.0),
    "TPOT 23.5 ms": Indicators(max_tpot=0.0235),
    "all three": Indicators(max_prefill_gap=0.12, max_solo_gap=2.0, max_tpot=0.0235),
}


@dataclass(frozen=True)
class Row:
    """What a policy came to.

    Attributes:
        revenue: over the plan's.
        value: the largest of its indicators over their limits.
    """

    revenue: float
    value: float

    def __str__(self) -> str:
        return f"{self.revenue:.3f}, {self.value:.3f}"


def two_class(indicators: Indicators) -> Scenario:
    return Scenario.load("examples/two-class.toml").replace(indicators=indicators)


def instances(kind: str, count: int, first: int) -> Iterator[tuple[str, Scenario]]:
    """So many scenarios whose limits can be met, "paper" or "random" ones, as they are drawn from seed `first` on."""
    draw = paper_instance if kind == "paper" else random_instance
    found = ((f"{kind} {seed}", draw(seed)) for seed in itertools.count(first))
    return itertools.islice(((name, drawn) for name, drawn in found if drawn is not None), count)


def paper_instance(number: int) -> Scenario | None:
    """An instance of [LDHZ] section 6.3 with limits, or None."""
    bare = section_6_3(SEED, number)
    if bare.gpu.kappa < 1.0:
        return None
    paid = Pricing(scheme="separate" if number % 2 else "bundled", prompt=0.1, output=0.2)
    return with_limits(bare.replace(pricing=paid), np.random.default_rng([SEED, number]))


def random_instance(seed: int) -> Scenario | None:
    """One of ours with limits, or None."""
    random = np.random.default_rng(seed)
    return with_limits(_unlimited(random), random)


def with_limits(bare: Scenario, random: np.random.Generator) -> Scenario | None:
    """The scenario with limits that can be met and are not nothing, or None."""
    planner = Planner()
    free = planner.solve(bare)
    kinds = random.permutation(["prefill_gap", "solo_gap", "tpot"])[: random.choice([1, 1, 2, 3])]
    limits: dict[str, float] = {}
    for kind in kinds:
        share = random.uniform(0.2, 0.9)
        if kind == "tpot":
            least = bare.gpu.solo if not bare.gpu.iteration.by_batch else bare.gpu.iteration.solo(1.0, 0.0)
            limits["max_tpot"] = least + share * (free.tpot - least)
        else:
            occupancy = free.prefill if kind == "prefill_gap" else free.solo_decode
            limits[f"max_{kind}"] = share * float(np.ptp(occupancy))
    scenario = bare.replace(indicators=Indicators(**limits))
    try:
        solved = planner.solve(scenario)
    except InfeasiblePlanError:
        return None
    return scenario if solved.revenue_rate > 0.05 * free.revenue_rate and any(limits.values()) else None


def _unlimited(random: np.random.Generator) -> Scenario:
    size = int(random.choice([8, 16, 32]))
    by_batch = random.random() < 0.3
    law = (
        IterationTime(alpha=random.uniform(0.01, 0.02), beta=10 ** random.uniform(-4.7, -3.8), delta=4e-4, epsilon=2e-8)
        if by_batch
        else IterationTime(
            alpha=random.uniform(0.015, 0.02), beta=10 ** random.uniform(-4.5, -3.5), gamma=random.uniform(45.0, 66.0)
        )
    )
    classes = tuple(
        RequestClass(
            name=f"class-{k}",
            prompt_tokens=round(10 ** random.uniform(2.5, 3.7)),
            output_tokens=round(10 ** random.uniform(1.7, 3.0)),
            arrival_rate=random.uniform(0.2, 1.0),
            patience_rate=10 ** random.uniform(-1.7, -0.7),
        )
        for k in range(int(random.integers(2, 5)))
    )
    scenario = Scenario(
        name="random",
        gpu=Gpu(batch_size=size, chunk_size=int(random.choice([256, 512])), iteration=law),
        pricing=Pricing(scheme=str(random.choice(["bundled", "separate"])), prompt=0.1, output=0.2),  # type: ignore[arg-type]
        classes=classes,
    )
    factor = random.uniform(0.7, 1.6) / offered_load(scenario)
    return scenario.replace(
        classes=tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * factor}) for c in classes)
    )


def unheld() -> Policy:
    """index-and-pool without virtual queues."""
    ours = find_policy("index-and-pool")

    def tabulate(plan: object, gpus: int) -> Tables:
        return ours.tabulate(plan, gpus)._replace(limited=False)  # type: ignore[arg-type]

    return ours.with_functions("free", tabulate=tabulate)


def measured(
    scenario: Scenario,
    policy: str | Policy,
    gpus: int,
    fidelity: str,
    *,
    horizon: float,
    replications: int,
    seed: int = 0,
) -> Row:
    """A policy on a scenario with limits."""
    result = simulate(
        scenario, policy, gpus=gpus, fidelity=fidelity, horizon=horizon, replications=replications, seed=seed
    )  # fmt: skip
    values = [float(each.value.mean or 0.0) / each.limit for each in result.indicators.values() if each.limit > 0.0]
    return Row(float(result.objective_ratio.mean or 0.0), max(values, default=0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=16, help="of either kind")
    parser.add_argument("--first", type=int, default=0, help="seed of the first of them")
    parser.add_argument("--ours", action="store_true", help="index-and-pool alone")
    parser.add_argument("--gpus", type=int, nargs="+", default=SIZES)
    parser.add_argument("--horizon", type=float, default=3000.0, help="s")
    parser.add_argument("--replications", type=int, default=2)
    options = parser.parse_args()
    cases = [(name, two_class(limits)) for name, limits in TWO_CLASS.items()]
    for kind in ("paper", "random"):
        cases += instances(kind, options.instances, options.first)
    policies = ("index-and-pool",) if options.ours else ("sli-aware", unheld(), "index-and-pool")
    names = [each if isinstance(each, str) else each.name for each in policies]
    met = np.zeros((len(policies), 2), int)
    print(f"| instance | limits | classes | n | fidelity | {' | '.join(names)} |")
    print("|---|---|---|---|---|" + "---|" * len(policies))
    for name, scenario in cases:
        limits = ", ".join(
            f"{key.removeprefix('max_')} {value:.3g}" for key, value in scenario.indicators if value and "max" in key
        )
        for gpus in options.gpus:
            for fidelity in FIDELITIES:
                rows = [
                    measured(scenario, each, gpus, fidelity, horizon=options.horizon, replications=options.replications)
                    for each in policies
                ]
                met += [(row.value <= HELD, row.value <= HELD and row.revenue >= EARNED) for row in rows]
                shown = " | ".join(map(str, rows))
                print(f"| {name} | {limits} | {len(scenario.classes)} | {gpus} | {fidelity} | {shown} |", flush=True)
    rows_run = len(cases) * len(options.gpus) * len(FIDELITIES)
    for each, (held, both) in zip(names, met, strict=True):
        print(f"{each}: of {rows_run} rows {held} held, {both} at {EARNED:.0%} of the plan's revenue or more")


if __name__ == "__main__":
    main()
