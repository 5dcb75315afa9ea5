"""Scenarios for the theory of tails."""

from __future__ import annotations

from typing import Any

from fluidgate.model import Arrivals, EngineModel, Gpu, IterationTime, Lengths, RequestClass, Scenario
from fluidgate.profiles import find_profile

PLAIN = IterationTime(alpha=0.0, beta=1e-3, gamma=1e5)
"""A prompt takes 1 ms a token, whatever runs beside it, and a decode hardly any time."""
POISSON, EXPONENTIAL, ANY = Arrivals(), Lengths(), EngineModel()


def queue(
    load: float,
    *,
    prompt: float = 1000.0,
    lengths: Lengths = EXPONENTIAL,
    arrivals: Arrivals = POISSON,
) -> Scenario:
    """Prompts of a second on average and one token: an M/G/n queue, with a load of each GPU."""
    one = RequestClass(
        name="all", prompt_tokens=prompt, output_tokens=1, arrival_rate=1e3 * load / prompt, patience_rate=0.0
    )
    gpu = Gpu(batch_size=64, chunk_size=4, iteration=PLAIN)
    return Scenario(name="queue", gpu=gpu, classes=(one,), lengths=lengths, arrivals=arrivals)


def served(
    rate: float,
    *,
    profile: str = "h100/llama-3.1-8b",
    batching: str | None = None,
    classes: tuple[tuple[float, float, float], ...] = ((2048, 28, 0.317), (1155, 211, 0.683)),
    lengths: Lengths = EXPONENTIAL,
    arrivals: Arrivals = POISSON,
    **fields: Any,
) -> Scenario:
    """Classes of (prompt, output, share of the rate) on a shipped profile, requests/s per GPU."""
    return Scenario(
        name="served",
        gpu=Gpu(batch_size=256, chunk_size=2048, iteration=find_profile(profile).iteration),
        classes=tuple(
            RequestClass(name=f"c{k}", prompt_tokens=p, output_tokens=d, arrival_rate=rate * share, patience_rate=0.0)
            for k, (p, d, share) in enumerate(classes)
        ),
        lengths=lengths,
        arrivals=arrivals,
        engine=EngineModel(batching=batching),
        **fields,
    )
