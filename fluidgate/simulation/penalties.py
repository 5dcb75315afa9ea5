"""Penalties of service level indicators at what was simulated."""

from __future__ import annotations

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.planning.penalty import penalty
from fluidgate.policies.decisions.stages import MIXED_DECODE, PREFILL, SOLO_DECODE


def penalty_rate(scenario: Scenario, occupancy: Array, completions: Array) -> float:
    """(44), (46) and (48) per GPU and second, at the mean occupancies.

    (47) counts every slot as busy. Where the law of an iteration is more than three numbers there is no such time, and
    it is the TPOT that the decodes felt.

    Args:
        occupancy: time averages per GPU, shape (stages, classes).
        completions: requests/s per GPU, shape (classes,).
    """
    tpot = None
    if scenario.gpu.iteration.by_batch:
        tokens = float(completions @ np.array([c.output_tokens for c in scenario.classes]))
        decodes = float((occupancy[MIXED_DECODE] + occupancy[SOLO_DECODE]).sum())
        tpot = decodes / tokens if tokens > 0.0 else 0.0
    return penalty(scenario, occupancy[PREFILL], occupancy[SOLO_DECODE], tpot)
