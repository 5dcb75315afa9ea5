"""Published serving baselines: engines that form their own batches, each request placed on one as it arrives.

They read no plan and take no decisions after the placement, so an entry names a way of batching and a rule of
placement. Only the fidelity of iterations tells them apart, and only it simulates them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fluidgate.model import BatchingName
from fluidgate.policies.policy import Origin

PlacementName = Literal["round-robin", "least-loaded", "power-of-two", "lmetric"]


@dataclass(frozen=True)
class PlacedPolicy:
    """A way of batching and a rule of placement, by name.

    Attributes:
        name, summary: as `fluidgate policies` lists them.
        batching: how a GPU forms the batch of an iteration; see `EngineModel`.
        placement: which GPU takes a request as it arrives.
    """

    name: str
    batching: BatchingName
    placement: PlacementName
    summary: str
    origin: Origin = "published"


PLACED: dict[str, PlacedPolicy] = {
    policy.name: policy
    for policy in (
        PlacedPolicy("vllm-round-robin", "token-budget", "round-robin", "vLLM's token budget, GPUs in turn"),
        PlacedPolicy(
            "vllm-least-loaded", "token-budget", "least-loaded", "vLLM's token budget, GPU with the fewest requests"
        ),
        PlacedPolicy(
            "vllm-power-of-two", "token-budget", "power-of-two", "vLLM's token budget, less loaded of two GPUs drawn"
        ),
        PlacedPolicy(
            "vllm-lmetric", "token-budget", "lmetric", "vLLM's token budget, least unread prompt tokens times requests"
        ),
        PlacedPolicy(
            "prefill-first-round-robin",
            "prefill-first",
            "round-robin",
            "whole prompts first (first vLLM), GPUs in turn",
        ),
        PlacedPolicy(
            "prefill-first-least-loaded",
            "prefill-first",
            "least-loaded",
            "whole prompts first (first vLLM), GPU with the fewest requests",
        ),
    )
}
