"""From a plan to what a request costs where: the tables of a policy that reads prompts where their beginning is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fluidgate.model import Gpu, Scenario
from fluidgate.planning import Plan
from fluidgate.policies.decisions.homes import NEXT
from fluidgate.policies.decisions.tables import Tables


def at_home(tables: Tables, plan: Plan, toll: float) -> Tables:
    """The same tables for gate and placement together, see `fluidgate.policies.decisions.homes`.

    Where classes have a target of TPOT, an iteration of decodes alone is to take no longer than the least of them.

    Args:
        toll: as in `Tables`.
    """
    scenario = plan.scenario
    arrival = scenario.rates.arrival
    prompt = float(arrival @ np.array([c.prompt_tokens for c in scenario.classes]) / arrival.sum())
    targets = [math.inf if target is None else target for target in scenario.tpot_targets]
    return tables._replace(
        homing=True,
        chunk=scenario.gpu.chunk_size,
        seconds=terms(scenario.gpu, prompt),
        worth=worth(tables, scenario),
        toll=toll,
        usual_prompt=prompt,
        most_seconds=min(targets),
    )


def worth(tables: Tables, scenario: Scenario) -> Any:
    """What a second is worth to each class before its first token and after: `Tables.worth`.

    A second counts by its share of what the targets leave: to a class with both, one of its answer as the target of
    TTFT over that of TPOT times the answer's tokens; to others as one to the first token.
    """
    found = np.ones_like(tables.worth)
    for i, (first, token) in enumerate(zip(scenario.ttft_targets, scenario.tpot_targets, strict=True)):
        if first is not None and token is not None:
            found[NEXT, i] = first / (token * tables.expected_output[i])
    return found


def terms(gpu: Gpu, context: float) -> Any:
    """Terms of the iteration time, as it grows to a whole chunk and a whole batch: `Tables.seconds`."""
    chunk, batch = gpu.chunk_size, gpu.batch_size
    alone = gpu.seconds(chunk, 0, 0.0)
    beta = (alone - gpu.seconds(1, 0, 0.0)) / max(chunk - 1, 1)
    zeta = (gpu.seconds(chunk, 0, 0.0, chunk * context) - alone) / (chunk * max(context, 1.0))
    delta = (gpu.seconds(0, batch, 0.0) - gpu.seconds(0, 1, 0.0)) / max(batch - 1, 1)
    epsilon = (gpu.seconds(0, batch, batch * context) - gpu.seconds(0, batch, 0.0)) / (batch * max(context, 1.0))
    found = (alone - beta * chunk, beta, zeta, gpu.seconds(0, 1, 0.0) - delta, delta, epsilon)
    return np.array([max(term, 0.0) for term in found])
