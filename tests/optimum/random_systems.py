"""Tiny systems drawn at random, small enough for the exact optimum."""

from __future__ import annotations

import numpy as np

from fluidgate import Scenario
from fluidgate.model import Gpu, IterationTime, Pricing, RequestClass
from fluidgate.planning.per_gpu_rates import offered_load

TAU = 0.05


def random_system(
    seed: int, classes: int, batch: int, load: float, patience: float, scheme: str, first_stays: bool = False
) -> Scenario:
    """A system with a given load of its slots.

    Args:
        patience: theta times the time that a request of the class holds a slot.
        first_stays: whether the first class never leaves.
    """
    draw = np.random.default_rng(seed)
    gamma = draw.uniform(1.2, 4.0) / TAU
    drawn = []
    for i in range(classes):
        prefill, solo = draw.uniform(0.5, 4.0), draw.uniform(0.3, 2.0)
        theta = 0.0 if first_stays and i == 0 else patience / (1.0 / prefill + 1.0 / solo)
        drawn.append(
            RequestClass(
                name=f"class-{i}",
                prompt_tokens=256 / (TAU * prefill),
                output_tokens=gamma / solo,
                arrival_rate=draw.uniform(0.3, 1.0),
                patience_rate=theta,
            )
        )
    system = Scenario(
        name="random",
        gpu=Gpu(batch_size=batch, chunk_size=256, iteration=IterationTime(alpha=0.0244, beta=1e-4, gamma=gamma)),
        pricing=Pricing(scheme=scheme, prompt=draw.uniform(0.05, 0.3), output=draw.uniform(0.1, 0.5)),
        classes=tuple(drawn),
    )
    factor = load / offered_load(system)
    at_load = (c.model_copy(update={"arrival_rate": factor * c.arrival_rate}) for c in drawn)
    return system.replace(classes=tuple(at_load))
