"""Table 1: mean lengths by category of databricks-dolly-15k."""

from __future__ import annotations

import pandas as pd

from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.paper.lengths import CATEGORIES, MISSING, dolly

TITLE = "Mean lengths by category, databricks-dolly-15k"
NEAR = 0.1


def run(setting: Setting) -> Outcome:
    laws = dolly(setting)
    rows = []
    for c in CATEGORIES:
        law = laws[c.key] if laws is not None else None
        rows.append(
            {
                "category": c.name,
                "paper P": c.prompt,
                "here P": law and round(law.mean_prompt, 1),
                "paper D": c.output,
                "here D": law and round(law.mean_output, 1),
                "paper samples": c.samples,
                "here samples": law and law.count,
            }
        )
    data = pd.DataFrame(rows)
    if laws is None:
        return Outcome(data, (Verdict("mean lengths of Table 1", MISSING, None),))
    apart = max(abs(here / c.output - 1) for c, here in zip(CATEGORIES, data["here D"].astype(float), strict=True))
    verdict = Verdict(
        "mean lengths of Table 1 (read as characters)",
        f"largest relative difference of a mean output {100 * apart:.1f} %",
        apart < NEAR,
    )
    return Outcome(data, (verdict,))
