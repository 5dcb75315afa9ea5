"""Figure 5: under gate-and-route prefills follow the plan class by class, decodes only in sum."""

from __future__ import annotations

from fluidgate import plan
from fluidgate.paper.instances import two_class
from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.paper.scaling import draw, scale_up
from fluidgate.reports.picture import Picture
from fluidgate.reports.plots import style

TITLE = "Gate-and-route: occupancies against the plan"
NEAR = 0.05
PREFILL = ("prefill",)
DECODE = ("mixed_decode", "solo_decode")


def run(setting: Setting) -> Outcome:
    scaling = scale_up(setting, "gate-and-route", plan(two_class()))
    with style():
        figure = Picture(figsize=(11, 3.4), layout="constrained")
        panels = figure.subplots(1, 3)
        for axes, (quantity, title) in zip(
            panels,
            (
                ("prefill", "in prefill, X/n"),
                ("mixed_decode", "mixed decodes, Y_m/n"),
                ("solo_decode", "solo decodes, Y_s/n"),
            ),
            strict=True,
        ):
            draw(axes, scaling, quantity, title)
        panels[0].legend()
    prefill, decode = scaling.distance(PREFILL), scaling.distance(DECODE)
    n = scaling.gpus[-1]
    verdicts = (
        Verdict(
            "prefill occupancies X_i/n are close to x*_i",
            f"largest distance {100 * prefill:.1f} % (±{100 * scaling.blur(PREFILL):.1f}) of sum x* at n = {n}",
            prefill < NEAR,
        ),
        Verdict(
            "decode occupancies per class drift from y*_i though revenue is right",
            f"largest distance {100 * decode:.1f} % (±{100 * scaling.blur(DECODE):.1f}) of sum y* at n = {n}; "
            f"prefills {100 * prefill:.1f} %",
            None,
        ),
    )
    notes = (
        "The plan's split of decodes over mixed and solo GPUs is one of many optimal ones; ours gives each class the "
        "same proportion, which is about what a router that does not look at classes produces. So the drift that the "
        "paper shows depends on which optimum its solver returned, and can't be judged from the claim alone.",
    )
    return Outcome(scaling.frame(("prefill", "mixed_decode", "solo_decode")), verdicts, figure, notes)
