"""Runs of one policy over growing clusters, and how their figures are drawn; shared by Figures 4, 5 and 6."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fluidgate import Plan, SimulationResult, simulate
from fluidgate.model import Array, Scenario
from fluidgate.paper.instances import SCALES, two_class
from fluidgate.paper.item import Setting

HORIZON = 10_000.0
SEEDS = 5


@dataclass(frozen=True)
class Scaling:
    """A policy at several numbers of GPUs."""

    scenario: Scenario
    plan: Plan
    gpus: tuple[int, ...]
    results: tuple[SimulationResult, ...]

    def of(self, quantity: str, cls: int, what: str = "mean") -> Array:
        """Mean or std of a class's quantity at each scale, shape (scales,)."""
        return np.array([getattr(getattr(r.classes[cls], quantity), what) or 0.0 for r in self.results])

    def frame(self, quantities: tuple[str, ...]) -> pd.DataFrame:
        """A row a scale, class and quantity: mean, std, and the plan's value."""
        return pd.DataFrame(
            [
                {
                    "gpus": n,
                    "class": name,
                    "quantity": quantity,
                    "mean": getattr(r.classes[i], quantity).mean,
                    "std": getattr(r.classes[i], quantity).std,
                    "plan": float(getattr(self.plan, quantity)[i]),
                }
                for n, r in zip(self.gpus, self.results, strict=True)
                for i, name in enumerate(self.scenario.class_names)
                for quantity in quantities
            ]
        )

    def blur(self, quantities: tuple[str, ...]) -> float:
        """Largest half width of a mean's 95 % confidence interval at the largest scale, as a share of the sum."""
        whole = sum(float(getattr(self.plan, q).sum()) for q in quantities)
        intervals = [getattr(c, q).ci95 for c in self.results[-1].classes for q in quantities]
        return max(float(high - low) / 2 for low, high in intervals) / whole

    def distance(self, quantities: tuple[str, ...], at: int = -1) -> float:
        """Largest distance of a class's mean occupancy from the plan, as a share of the sum over all."""
        whole = sum(float(getattr(self.plan, q).sum()) for q in quantities)
        return max(
            abs(float(self.of(q, i)[at]) - float(getattr(self.plan, q)[i])) / whole
            for q in quantities
            for i in range(len(self.scenario.classes))
        )


def scale_up(setting: Setting, policy: str, plan: Plan) -> Scaling:
    """The two-class instance under `policy` at the paper's scales (three small ones in a quick run)."""
    scenario = two_class()
    scales = setting.sized(SCALES, SCALES[:3])
    results = []
    for k, gpus in enumerate(scales):
        results.append(
            simulate(
                scenario,
                policy,
                gpus=gpus,
                horizon=setting.sized(HORIZON, 1000.0),
                replications=setting.sized(SEEDS, 2),
                fidelity="markov",
                **setting.where,
            )
        )
        if setting.progress is not None:
            setting.progress(k + 1, len(scales))
    return Scaling(scenario, plan, scales, tuple(results))


def draw(axes: Axes, scaling: Scaling, quantity: str, title: str) -> None:
    """A quantity against the number of GPUs, a band of one standard deviation, and the plan's value, by class."""
    for i, name in enumerate(scaling.scenario.class_names):
        mean, std = scaling.of(quantity, i), scaling.of(quantity, i, "std")
        axes.plot(scaling.gpus, mean, "o-", ms=3, color=f"C{i}", label=name)
        axes.fill_between(scaling.gpus, mean - std, mean + std, color=f"C{i}", alpha=0.2, lw=0)
        axes.axhline(float(getattr(scaling.plan, quantity)[i]), color=f"C{i}", ls=":")
    axes.set_xscale("log")
    axes.set_xticks(scaling.gpus, [str(n) for n in scaling.gpus])
    axes.minorticks_off()
    axes.set_xlabel("GPUs, n")
    axes.set_title(title, loc="left")
