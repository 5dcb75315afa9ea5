"""Times of a plan, cold and after the arrival rates moved by 2 %: python benchmarks/planning.py"""

import time

import numpy as np

from fluidgate.model import Gpu, Indicators, IterationTime, Pricing, RequestClass, Scenario, Scheme
from fluidgate.planning import Planner

SCHEMES: tuple[Scheme, ...] = ("bundled", "separate")

INDICATORS = {
    "none": Indicators(),
    "limits": Indicators(max_prefill_gap=0.003, max_solo_gap=0.1, max_tpot=0.024),
    "TPOT penalty": Indicators(tpot_weight=4e4),
}


def scenario(classes: int, indicators: Indicators) -> Scenario:
    """Classes with lengths of 28 to 12,000 tokens on the GPU of the two-class instance."""
    draw = np.random.default_rng(0)
    lengths = np.exp(draw.uniform(np.log(28), np.log(12000), (classes, 2)))
    return Scenario(
        name=f"{classes} classes",
        gpu=Gpu(batch_size=16, chunk_size=256, iteration=IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45)),
        pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2),
        classes=tuple(
            RequestClass(
                name=str(i),
                prompt_tokens=prompt,
                output_tokens=output,
                arrival_rate=draw.uniform(0.1, 1) / classes,
                patience_rate=draw.uniform(0.01, 1),
            )
            for i, (prompt, output) in enumerate(lengths)
        ),
        indicators=indicators,
    )


def moved(base: Scenario, draw: np.random.Generator) -> Scenario:
    """The scenario with each arrival rate up to 2 % off."""
    classes = tuple(
        c.model_copy(update={"arrival_rate": c.arrival_rate * draw.uniform(0.98, 1.02)}) for c in base.classes
    )
    return base.replace(classes=classes)


def seconds(planner: Planner, base: Scenario, scheme: Scheme) -> float:
    start = time.perf_counter()
    planner.solve(base, scheme=scheme)
    return time.perf_counter() - start


def main() -> None:
    draw = np.random.default_rng(1)
    Planner().solve(scenario(4, Indicators()))
    print(f"{'indicators':14}{'scheme':10}{'classes':>8}{'cold ms':>10}{'hot ms':>10}")
    for name, indicators in INDICATORS.items():
        for scheme in SCHEMES:
            for classes in (4, 64, 1000):
                base, planner = scenario(classes, indicators), Planner()
                cold = seconds(planner, base, scheme)
                hot = np.median([seconds(planner, moved(base, draw), scheme) for _ in range(9)])
                print(f"{name:14}{scheme:10}{classes:8}{cold * 1e3:10.1f}{hot * 1e3:10.1f}")


if __name__ == "__main__":
    main()
