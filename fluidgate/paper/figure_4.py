"""Figure 4: gate-and-route approaches the fluid optimum as the cluster grows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fluidgate import plan
from fluidgate.paper.instances import two_class
from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.paper.scaling import draw, scale_up
from fluidgate.reports.picture import Picture
from fluidgate.reports.plots import style

TITLE = "Gate-and-route: revenue and queues against the number of GPUs"
SMALL_BUFFER = 0.05
"""Share of the slots below which the decode buffer counts as small."""


def run(setting: Setting) -> Outcome:
    best = plan(two_class())
    scaling = scale_up(setting, "gate-and-route", best)
    revenue = [r.revenue_rate for r in scaling.results]
    means, stds = np.array([r.mean for r in revenue]), np.array([r.std for r in revenue])
    with style():
        figure = Picture(figsize=(11, 3.4), layout="constrained")
        money, prefill, decode = figure.subplots(1, 3)
        money.plot(scaling.gpus, means, "o-", ms=3)
        money.fill_between(scaling.gpus, means - stds, means + stds, alpha=0.2, lw=0)
        money.axhline(best.revenue_rate, color="black", ls=":", label="R*")
        money.set_xscale("log")
        money.set_xticks(scaling.gpus, [str(n) for n in scaling.gpus])
        money.minorticks_off()
        money.set_xlabel("GPUs, n")
        money.set_title("revenue /s per GPU", loc="left")
        money.legend()
        draw(prefill, scaling, "prefill_queue", "waiting for prefill, per GPU")
        draw(decode, scaling, "decode_queue", "waiting for decode, per GPU")
        decode.legend()
    data = scaling.frame(("prefill_queue", "decode_queue"))
    totals = pd.DataFrame(
        {"gpus": scaling.gpus, "class": "all", "quantity": "revenue_rate", "mean": means, "std": stds,
         "plan": best.revenue_rate}
    )  # fmt: skip
    last, first = scaling.results[-1].optimality_ratio, scaling.results[0].optimality_ratio
    buffer = sum(scaling.of("decode_queue", i)[-1] for i in range(2))
    assert last.mean is not None
    assert first.mean is not None
    assert last.ci95 is not None
    verdicts = (
        Verdict(
            "revenue per GPU grows towards R* with n",
            f"{100 * first.mean:.1f} % of R* at n = {scaling.gpus[0]}, {100 * last.mean:.1f} % "
            f"({100 * last.ci95[0]:.1f} to {100 * last.ci95[1]:.1f}) at n = {scaling.gpus[-1]}",
            last.mean > first.mean,
        ),
        Verdict(
            "at n = 500 revenue has reached R* (read from the picture: within 1 %)",
            f"{100 * (1 - last.mean):.1f} % below R* at n = {scaling.gpus[-1]}; see the item `scale`",
            None if setting.quick else last.ci95[1] > 0.99,
        ),
        Verdict(
            "the decode buffer stays small",
            f"{buffer:.3f} requests per GPU wait for decode at n = {scaling.gpus[-1]}, of {16} slots",
            buffer < SMALL_BUFFER * 16,
        ),
    )
    return Outcome(pd.concat([totals, data], ignore_index=True), verdicts, figure)
