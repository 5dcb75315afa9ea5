"""Figure 8: Pareto frontiers of R* against each indicator, and their slopes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fluidgate.paper.instances import two_class
from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.planning.frontier import LIMITS, Frontier, frontier
from fluidgate.reports.sweeps import frontier_figure

TITLE = "What prefill fairness, decode fairness and TPOT cost"
EXPENSIVE = 0.25
"""Share of R* above which the strictest limit counts as expensive."""
NEARLY_FREE = 0.01
"""Share of R* below which a limit counts as nearly free."""


def run(setting: Setting) -> Outcome:
    found = {name: frontier(two_class(), name, points=setting.sized(61, 9)) for name in LIMITS}
    prefill, solo, tpot = (found[name] for name in LIMITS)
    confirmed = {name: int(each.price_confirmed.sum()) for name, each in found.items()}
    batch = two_class().gpu.batch_size
    wide = free_share(solo, batch)
    gamma = two_class().gpu.gamma
    steps = price_steps(tpot)
    verdicts = (
        Verdict(
            "prefill fairness is expensive",
            f"equal prefill occupancies (eta_1 = {prefill.limit[0]:.3g}) cost {100 * loss(prefill):.1f} % of R*; first "
            f"unit's price {prefill.shadow_price[0]:.0f} per second",
            loss(prefill) > EXPENSIVE,
        ),
        Verdict(
            "decode fairness is nearly free over a wide range",
            f"the loss stays under {100 * NEARLY_FREE:g} % of R* over {100 * wide:.0f} % of the range 0 to B = {batch} "
            f"of eta_2, and nothing is lost from {solo.free_limit:.3f} on; at eta_2 = 0 the loss is "
            f"{100 * loss(solo):.1f} %",
            wide > 0.5,
        ),
        Verdict(
            "the price of TPOT grows sharply as eta_3 approaches 1/gamma",
            "prices per second of TPOT, strictest first: "
            + ", ".join(f"{price:,.0f}" for price in steps)
            + f"; the least limit that can be met is {tpot.least_limit:.7f} s, 1/gamma = {1 / gamma:.7f} s",
            steps[0] > 3 * steps[-1],
        ),
        Verdict(
            "the slope of a frontier is the shadow price",
            "duals between the finite differences below and above: "
            + ", ".join(f"{name} {count} of {len(found[name].limit)}" for name, count in confirmed.items()),
            all(count == len(found[name].limit) for name, count in confirmed.items()),
        ),
    )
    notes = (
        "The TPOT frontier does not diverge at 1/gamma: it is concave with a few breakpoints, and its price rises in "
        "steps. Within a piece the price drifts a little, since the limit stands beside B - X in (47).",
    )
    frames = [each.to_dataframe().assign(indicator=name) for name, each in found.items()]
    return Outcome(pd.concat(frames, ignore_index=True), verdicts, frontier_figure(list(found.values())), notes)


def loss(found: Frontier) -> float:
    """Share of R* lost at the strictest limit."""
    return 1 - float(found.objective[0]) / found.unlimited_objective


def free_share(found: Frontier, top: float) -> float:
    """Share of the range 0..top of the limit over which less than NEARLY_FREE of R* is lost."""
    enough = found.objective >= (1 - NEARLY_FREE) * found.unlimited_objective
    strictest = float(found.limit[np.argmax(enough)]) if enough.any() else top
    return max(0.0, 1 - strictest / top)


def price_steps(found: Frontier, apart: float = 1.2) -> list[float]:
    """Levels of the shadow price, the strictest limit's first: prices that differ by less than `apart` are one."""
    levels: list[float] = []
    for price in found.shadow_price[found.shadow_price > 0]:
        if not levels or levels[-1] / price > apart:
            levels.append(float(price))
    return levels
