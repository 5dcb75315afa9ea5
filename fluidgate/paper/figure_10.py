"""Figure 10: R* over batch size and iteration slope, and over the prices."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fluidgate import plan
from fluidgate.model import Pricing
from fluidgate.paper.instances import two_class
from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.planning import heat_map
from fluidgate.reports.picture import Picture
from fluidgate.reports.plots import style
from fluidgate.reports.sweeps import heat_map_panel

TITLE = "R* over batch size and beta, and over token prices"
BUDGETS = (0.1, 0.3, 1.0)


def run(setting: Setting) -> Outcome:
    points = setting.sized(33, 7)
    scenario = two_class()
    betas = np.geomspace(1e-5, 1e-3, points).tolist()
    prices = np.linspace(0.0, 0.5, points).tolist()
    hardware = heat_map(
        scenario, "gpu.batch_size", list(range(2, 33, setting.sized(1, 5))), "gpu.iteration.beta", betas
    )
    money = heat_map(scenario, "pricing.prompt", prices, "pricing.output", prices)
    best = {budget: best_share(budget, setting.sized(101, 11)) for budget in BUDGETS}
    verdicts = (
        Verdict(
            "on c_p + c_d = k the best ratio does not depend on k",
            "best share of the prompt price: " + ", ".join(f"{share:.2f} at k = {k:g}" for k, share in best.items()),
            len(set(best.values())) == 1,
        ),
    )
    notes = (
        "True but empty: R* is the largest of linear functions of the prices, so it is convex, and it doubles when all "
        "prices double. On a segment c_p + c_d = k a convex function is largest at an end, and demand does not react "
        "to prices in this model. The best point is a corner, the same for every k.",
    )
    with style():
        figure = Picture(figsize=(11, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        heat_map_panel(left, hardware, label_x="batch size B", label_y="beta, s/token", log=("gpu.iteration.beta",))
        heat_map_panel(right, money, label_x="c_p, per prompt token", label_y="c_d, per output token")
    frames = [each.to_dataframe().assign(map=name) for name, each in (("hardware", hardware), ("prices", money))]
    return Outcome(pd.concat(frames, ignore_index=True), verdicts, figure, notes)


def best_share(budget: float, points: int) -> float:
    """Share of the prompt price at which R* is largest when both prices sum to `budget`."""
    shares = np.linspace(0.0, 1.0, points)
    revenue = [
        plan(
            two_class().replace(pricing=Pricing(scheme="bundled", prompt=budget * share, output=budget * (1 - share)))
        ).revenue_rate
        for share in shares
    ]
    return round(float(shares[int(np.argmax(revenue))]), 6)
