"""Finite clusters: the gap to R* of index-and-pool over that of the paper's policy: `python -m benchmarks.finite`.

Random instances of [LDHZ] section 6.3 with kappa >= 1 (`--below`: kappa < 1), a third of them loaded to 80 % of what
the cluster can carry, a third to 100 %, a third to 150 %, under both pricing schemes. The paper's policy is
gate-and-route (bundled) or prioritize-and-route (separate). Each gap is floored at 0.1 % of R*.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import pandas as pd

from fluidgate import Scenario, compare
from fluidgate.model import Pricing, Scheme
from fluidgate.paper.instances import random_instance

OURS = "index-and-pool"
PAPER: dict[Scheme, str] = {"bundled": "gate-and-route", "separate": "prioritize-and-route"}
PUBLISHED = ("gate-and-route", "fi-wsp", "gi-wsp", "gf-wsp", "fg-sp")
LOADS = (0.8, 1.0, 1.5)
FLOOR = 0.001
SEED = 11


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=60)
    parser.add_argument("--gpus", type=int, nargs="+", default=[5, 20, 50, 200, 500])
    parser.add_argument("--work", type=float, default=2e6, help="GPU seconds of a replication after 300 s")
    parser.add_argument("--replications", type=int, default=4)
    parser.add_argument("--below", action="store_true", help="instances with kappa < 1 instead")
    parser.add_argument("--csv", help="where the gaps go, too")
    options = parser.parse_args()
    rows = []
    for (scenario, load), scheme, gpus in itertools.product(
        instances(options.instances, options.below), PAPER, options.gpus
    ):
        rows.append(measure(scenario, load, scheme, gpus, options.work, options.replications))
    gaps = pd.DataFrame(rows)
    if options.csv:
        gaps.to_csv(options.csv, index=False)
    print(summary(gaps).to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    print(f"\na gap is known to ±{100 * gaps['half'].mean():.2f} % of R* (mean half width of its 95 % interval)")


def instances(count: int, below: bool) -> list[tuple[Scenario, float]]:
    """The first `count` instances on one side of kappa = 1, each at its load."""
    drawn = (random_instance(SEED, number) for number in itertools.count())
    chosen = itertools.islice((s for s in drawn if (s.gpu.kappa < 1) == below), count)
    return [(loaded(scenario, load), load) for scenario, load in zip(chosen, itertools.cycle(LOADS), strict=False)]


def loaded(scenario: Scenario, load: float) -> Scenario:
    """The scenario with its arrivals scaled to `load` times what a GPU can serve in full."""
    rates, gpu = scenario.rates, scenario.gpu
    prefill = float((rates.arrival / rates.prefill).sum())
    decode = float((rates.arrival / rates.mixed_decode).sum())
    solo = max(0.0, decode - (gpu.batch_size - 1) * prefill) / (gpu.kappa * gpu.batch_size)
    factor = load / (prefill + solo)
    return scenario.replace(
        classes=tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * factor}) for c in scenario.classes)
    )


def measure(
    scenario: Scenario, load: float, scheme: Scheme, gpus: int, work: float, replications: int
) -> dict[str, object]:
    """Gaps to R* of every policy on one instance, and what our gap is over."""
    priced = scenario.replace(pricing=Pricing(scheme=scheme, prompt=0.1, output=0.2))
    policies = list(dict.fromkeys([OURS, PAPER[scheme], *PUBLISHED]))
    result = compare(
        priced, policies, gpus=gpus, horizon=300 + work / gpus, warmup=300, replications=replications, seed=1
    )
    ratio = {each.policy: each.optimality_ratio for each in result.policies}
    gap = {name: 1 - (value.mean or 0.0) for name, value in ratio.items()}
    low, high = ratio[OURS].ci95 or (0.0, 0.0)
    best = min(PUBLISHED, key=lambda name: gap[name])
    behind = next(p.revenue_difference for p in result.paired if p.policy == best)
    return {
        "instance": scenario.name,
        "load": load,
        "scheme": scheme,
        "gpus": gpus,
        **{f"gap {name}": value for name, value in gap.items()},
        "half": (high - low) / 2,
        "over paper": max(gap[OURS], FLOOR) / max(gap[PAPER[scheme]], FLOOR),
        "best": best,
        "worse than best": behind.ci95 is not None and behind.ci95[0] > 0,
    }


def summary(gaps: pd.DataFrame) -> pd.DataFrame:
    """A row a scheme and size: geometric mean and worst of the gap ratio, mean gaps in %, and instances lost."""
    rows = []
    for (scheme, gpus), part in gaps.groupby(["scheme", "gpus"]):
        paper = PAPER[scheme]  # type: ignore[index]
        rows.append(
            {
                "scheme": scheme,
                "n": gpus,
                "instances": len(part),
                "geo. mean ratio": float(np.exp(np.log(part["over paper"]).mean())),
                "worst ratio": float(part["over paper"].max()),
                "our gap, %": 100 * float(part[f"gap {OURS}"].mean()),
                "paper's gap, %": 100 * float(part[f"gap {paper}"].mean()),
                "lost to the best published": int(part["worse than best"].sum()),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
