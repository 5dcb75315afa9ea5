"""Table 2: divergence of output lengths from their exponential fits."""

from __future__ import annotations

import pandas as pd
from scipy.stats import spearmanr

from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.paper.lengths import CATEGORIES, available, dolly

TITLE = "Divergence of output lengths from exponential"


def run(setting: Setting) -> Outcome:
    laws, notes = available(setting)
    ours = {law.name: law for law in laws.categories}
    if dolly(setting) is not None:
        rows = [{"category": c.name, "paper KL": c.kl, "here KL": round(ours[c.key].kl, 4)} for c in CATEGORIES]
        order = float(spearmanr([c.kl for c in CATEGORIES], [ours[c.key].kl for c in CATEGORIES]).statistic)
        verdict = Verdict(
            "divergences of Table 2",
            f"rank correlation with ours {order:.2f}; our estimator: bins of equal probability, see the documentation",
            order > 0.5,
        )
        return Outcome(pd.DataFrame(rows), (verdict,), None, notes)
    rows = [{"category": law.name, "here KL": round(law.kl, 4), "samples": law.count} for law in laws.categories]
    return Outcome(pd.DataFrame(rows), (Verdict("divergences of Table 2", notes[0], None),), None, notes[1:])
