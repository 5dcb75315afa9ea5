"""Figure 6: the SLI-aware policy follows the plan class by class."""

from __future__ import annotations

from fluidgate import plan
from fluidgate.paper.instances import two_class
from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.paper.scaling import draw, scale_up
from fluidgate.reports.picture import Picture
from fluidgate.reports.plots import style

TITLE = "SLI-aware policy: occupancies approach the plan"
QUANTITIES = ("prefill", "mixed_decode", "solo_decode")
NEAR = 0.05


def run(setting: Setting) -> Outcome:
    scaling = scale_up(setting, "sli-aware", plan(two_class(), allow_decode_buffer=False))
    with style():
        figure = Picture(figsize=(11, 3.4), layout="constrained")
        panels = figure.subplots(1, 3)
        titles = ("in prefill, X/n", "mixed decodes, Y_m/n", "solo decodes, Y_s/n")
        for axes, quantity, title in zip(panels, QUANTITIES, titles, strict=True):
            draw(axes, scaling, quantity, title)
        panels[0].legend()
    last, first = scaling.distance(QUANTITIES), scaling.distance(QUANTITIES, at=0)
    verdict = Verdict(
        "all of X_i/n, Y_m,i/n, Y_s,i/n approach the plan's values, class by class",
        f"largest distance {100 * first:.1f} % of all occupancy at n = {scaling.gpus[0]}, {100 * last:.1f} % "
        f"(±{100 * scaling.blur(QUANTITIES):.1f}) at n = {scaling.gpus[-1]}",
        last < first and last < NEAR,
    )
    return Outcome(scaling.frame(QUANTITIES), (verdict,), figure)
