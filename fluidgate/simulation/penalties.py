"""Service level indicators at what was simulated: the values that are limited, and penalties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.planning.penalty import indicator_values, penalty
from fluidgate.policies.decisions.stages import MIXED_DECODE, PREFILL, SOLO_DECODE
from fluidgate.shown import Brief
from fluidgate.simulation.statistics import Statistic, statistic


@dataclass(frozen=True, repr=False)
class LimitedIndicator(Brief):
    """An indicator of the scenario that has a limit.

    Attributes:
        limit: in the indicator's unit.
        value: what was simulated, at the mean occupancies.
    """

    limit: float
    value: Statistic

    def to_dict(self) -> dict[str, object]:
        return {"limit": self.limit, "value": self.value.to_dict()}


def penalty_rate(scenario: Scenario, occupancy: Array, completions: Array) -> float:
    """(44), (46) and (48) per GPU and second, at the mean occupancies.

    Args:
        occupancy: time averages per GPU, shape (stages, classes).
        completions: requests/s per GPU, shape (classes,).
    """
    tpot = felt_tpot(scenario, occupancy, completions)
    return penalty(scenario, occupancy[PREFILL], occupancy[SOLO_DECODE], tpot)


def felt_tpot(scenario: Scenario, occupancy: Array, completions: Array) -> float | None:
    """The time per output token that stands for (47), s; None for (47) itself, which counts every slot as busy.

    Where the law of an iteration is more than three numbers there is no such time, and it is the TPOT that the decodes
    felt. Arguments as for `penalty_rate`.
    """
    if not scenario.gpu.iteration.by_batch:
        return None
    tokens = float(completions @ np.array([c.output_tokens for c in scenario.classes]))
    decodes = float((occupancy[MIXED_DECODE] + occupancy[SOLO_DECODE]).sum())
    return decodes / tokens if tokens > 0.0 else 0.0


def limited_indicators(
    scenario: Scenario, occupancies: Sequence[Array], tpots: Sequence[float | None]
) -> dict[str, LimitedIndicator]:
    """The scenario's limits by name, and what was simulated, one entry a replication.

    Args:
        occupancies: as for `penalty_rate`.
        tpots: s; None for (47) at the mean occupancies.
    """
    found = []
    for occupancy, tpot in zip(occupancies, tpots, strict=True):
        values = indicator_values(scenario, occupancy[PREFILL], occupancy[SOLO_DECODE])
        found.append(values if tpot is None else {**values, "tpot": tpot})
    limits = {name: getattr(scenario.indicators, f"max_{name}") for name in ("prefill_gap", "solo_gap", "tpot")}
    return {
        f"max_{name}": LimitedIndicator(limit, statistic([values[name] for values in found]))
        for name, limit in limits.items()
        if limit is not None
    }
