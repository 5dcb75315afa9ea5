"""Figure 12: output lengths by category and their exponential fits."""

from __future__ import annotations

from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.paper.lengths import DOLLY, available
from fluidgate.reports.sweeps import length_law_figure

TITLE = "Output lengths and their exponential fits"
CLOSE = 0.3
"""Divergence in nats under which a fit counts as reasonable; the paper's largest is 0.26."""


def run(setting: Setting) -> Outcome:
    laws, notes = available(setting)
    worst = max(laws.categories, key=lambda law: law.kl)
    best = [law.best.law for law in laws.categories]
    verdict = Verdict(
        "output lengths are reasonably exponential in every category",
        f"largest divergence {worst.kl:.3f} nats ({worst.name}); the exponential is the best of three laws (AIC) in "
        f"{best.count('exponential')} of {len(best)} categories",
        worst.kl < CLOSE if laws.source == DOLLY else None,
    )
    return Outcome(laws.to_dataframe(), (verdict,), length_law_figure(laws), notes)
