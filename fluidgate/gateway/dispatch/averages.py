"""Means over the recent past of what the scenario limits, from the counts that the policy goes by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fluidgate.compiled import inlined
from fluidgate.model import Array, Scenario
from fluidgate.planning.penalty import indicator_values
from fluidgate.policies.decisions.limits import token_rate
from fluidgate.policies.decisions.tables import Tables
from fluidgate.policies.decisions.view import View

SECONDS = 300.0
"""What was so many s ago counts 1/e of what is now."""

PREFILL = 0  # requests in prefill
SOLO_DECODE = 1
DECODES = 2  # all decodes
TOKENS = 3  # output tokens/s at the plan's iteration times, by the first class
WEIGHT = 4  # of what has been seen, 1 in the long run, by the first class
AVERAGES = 5


@inlined
def average(averages: Any, view: View, tables: Tables, seconds: float) -> None:
    """So many seconds have passed since the counts last changed."""
    if seconds <= 0.0:
        return
    kept = math.exp(-seconds / SECONDS)
    for i in range(view.waiting.size):
        decodes = view.mixed_decodes[i] + view.solo_decodes[i]
        averages[PREFILL, i] = kept * averages[PREFILL, i] + (1.0 - kept) * view.prefilling[i]
        averages[SOLO_DECODE, i] = kept * averages[SOLO_DECODE, i] + (1.0 - kept) * view.solo_decodes[i]
        averages[DECODES, i] = kept * averages[DECODES, i] + (1.0 - kept) * decodes
    if tables.limited:
        averages[TOKENS, 0] = kept * averages[TOKENS, 0] + (1.0 - kept) * token_rate(view, tables)
    averages[WEIGHT, 0] = kept * averages[WEIGHT, 0] + (1.0 - kept)


def indicators_now(scenario: Scenario, averages: Array, engines: int) -> dict[str, dict[str, float | None]]:
    """By indicator: its `limit` and its `value` at the means, each None where there is none.

    TPOT is (47), or where the law of an iteration is more than three numbers that of the decodes at the plan's
    iteration times, which only a policy knows that holds a limit on it.
    """
    values: dict[str, float | None] = dict.fromkeys(("prefill_gap", "solo_gap", "tpot"))
    if averages[WEIGHT, 0] > 0.0 and engines > 0:
        means = averages / averages[WEIGHT, 0] / engines
        values.update(indicator_values(scenario, means[PREFILL], means[SOLO_DECODE]))
        if scenario.gpu.iteration.by_batch:
            tokens = float(means[TOKENS, 0])
            values["tpot"] = float(np.sum(means[DECODES])) / tokens if tokens > 0.0 else None
    limits = {name: getattr(scenario.indicators, f"max_{name}") for name in values}
    return {name: {"limit": limits[name], "value": value} for name, value in values.items()}
