"""Service level indicators at given occupancies, and what they cost."""

from __future__ import annotations

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.planning.tpot import AverageTpot


def indicator_values(scenario: Scenario, prefill: Array, solo_decode: Array) -> dict[str, float]:
    """Left sides of (43), (45) and (47) at per-GPU occupancies x and y_s, each of shape (classes,)."""
    gpu = scenario.gpu
    tpot = AverageTpot(gpu.batch_size, gpu.tau, gpu.gamma)
    return {
        "prefill_gap": float(np.ptp(prefill)),
        "solo_gap": float(np.ptp(solo_decode)),
        "tpot": tpot(float(np.sum(prefill))),
    }


def penalty(scenario: Scenario, prefill: Array, solo_decode: Array, tpot: float | None = None) -> float:
    """Penalties (44), (46), (48) per second at per-GPU occupancies x and y_s, each of shape (classes,).

    `tpot`, s, takes the place of (47) if given.
    """
    weights = scenario.indicators
    values = indicator_values(scenario, prefill, solo_decode)
    if tpot is not None:
        values["tpot"] = tpot
    return (
        weights.prefill_gap_weight * values["prefill_gap"]
        + weights.solo_gap_weight * values["solo_gap"]
        + weights.tpot_weight * values["tpot"]
    )
