"""Statistics of replications of the Markov network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.policies.decisions.stages import (
    MIXED_DECODE,
    MIXED_QUEUE,
    PREFILL,
    PREFILL_QUEUE,
    SOLO_DECODE,
    SOLO_QUEUE,
)
from fluidgate.simulation.events import (
    ARRIVAL,
    DECODE_ABANDONMENT,
    DECODE_END,
    DECODE_START,
    PREFILL_ABANDONMENT,
    PREFILL_END,
)
from fluidgate.simulation.markov.network import DECODE_SERVICE, DECODE_WAIT, TTFT
from fluidgate.simulation.markov.replication import Measurement
from fluidgate.simulation.results import ClassResult
from fluidgate.simulation.statistics import statistic


def revenue_rates(scenario: Scenario, measurements: Sequence[Measurement], gpus: int) -> Array:
    """Revenue per GPU and second of each replication, [LDHZ] (21)-(23); shape (replications,)."""
    rates = scenario.rates
    prefills = np.stack([m.events[PREFILL_END] for m in measurements])
    decodes = np.stack([m.events[DECODE_END] for m in measurements])
    if scenario.pricing.scheme == "bundled":
        earned = decodes @ rates.bundled_value
    else:
        earned = prefills @ rates.prompt_value + decodes @ rates.output_value
    return np.asarray(earned / (gpus * np.array([m.window for m in measurements])))


def class_results(scenario: Scenario, measurements: Sequence[Measurement], gpus: int) -> tuple[ClassResult, ...]:
    """Statistics of every class over the replications."""
    window = np.array([m.window for m in measurements])[:, None]
    occupancy = np.stack([m.occupancy for m in measurements]) / gpus
    counts = np.stack([m.events for m in measurements])
    seconds = np.stack([m.seconds for m in measurements])
    output = np.array([c.output_tokens for c in scenario.classes])
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "prefill": occupancy[:, PREFILL],
            "mixed_decode": occupancy[:, MIXED_DECODE],
            "solo_decode": occupancy[:, SOLO_DECODE],
            "prefill_queue": occupancy[:, PREFILL_QUEUE],
            "decode_queue": occupancy[:, MIXED_QUEUE] + occupancy[:, SOLO_QUEUE],
            "arrival_rate": counts[:, ARRIVAL] / (gpus * window),
            "prefill_completion_rate": counts[:, PREFILL_END] / (gpus * window),
            "completion_rate": counts[:, DECODE_END] / (gpus * window),
            "prefill_abandonment_rate": counts[:, PREFILL_ABANDONMENT] / (gpus * window),
            "decode_abandonment_rate": counts[:, DECODE_ABANDONMENT] / (gpus * window),
            "ttft": seconds[:, TTFT] / counts[:, PREFILL_END],
            "decode_wait": seconds[:, DECODE_WAIT] / counts[:, DECODE_START],
            "tpot": seconds[:, DECODE_SERVICE] / (counts[:, DECODE_END] * output),
        }
    return tuple(
        ClassResult(name, **{quantity: statistic(value[:, i]) for quantity, value in values.items()})
        for i, name in enumerate(scenario.class_names)
    )
