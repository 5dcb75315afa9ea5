"""Figure 11: prompt against output length, information extraction against creative writing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.paper.lengths import DOLLY, available
from fluidgate.reports.sweeps import length_scatter_figure
from fluidgate.workloads.length_laws import CategoryLaw

TITLE = "Prompt against output length of two categories"
PAIR = ("information_extraction", "creative_writing")


def run(setting: Setting) -> Outcome:
    laws, notes = available(setting)
    names = [law.name for law in laws.categories]
    pair = (
        list(PAIR)
        if set(PAIR) <= set(names)
        else sorted(names, key=lambda n: -prompt_share(laws[n]))[:: len(names) - 1]
    )
    heavy, light = (laws[name] for name in pair)
    verdict = Verdict(
        "classes differ widely in the lengths of both phases: one is heavy in prefill, the other in decode",
        f"prompt over output, means: {heavy.name} {prompt_share(heavy):.2f}, {light.name} {prompt_share(light):.2f}",
        prompt_share(heavy) > 3 * prompt_share(light) if laws.source == DOLLY else None,
    )
    data = pd.concat(
        [pd.DataFrame({"category": law.name, "prompt": law.prompt, "output": law.output}) for law in (heavy, light)],
        ignore_index=True,
    )
    return Outcome(data, (verdict,), length_scatter_figure(laws, [heavy.name, light.name]), notes)


def prompt_share(law: CategoryLaw) -> float:
    return float(np.divide(law.mean_prompt, law.mean_output))
