"""Published serving policies: engines that form their own batches, each request placed on one as it arrives.

They read no plan, so an entry names a way of batching, a rule of placement, and the numbers that its source leaves
open. Only the fidelity of iterations tells them apart: `fluidgate.simulation.iteration.published` runs them there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from fluidgate.batching import DISCIPLINES, Batching
from fluidgate.model import BatchingName, Scenario
from fluidgate.planning.partition import MOST_GPUS
from fluidgate.policies.decisions.placement import Criteria
from fluidgate.policies.policy import BasePolicy, Parameter

PlacementName = Literal[
    "round-robin",
    "least-loaded",
    "power-of-two",
    "lmetric",
    "pools",
    "least-prefill",
    "sticky",
    "precise",
    "cache-aware",
]


@dataclass(frozen=True, repr=False)
class PlacedPolicy(BasePolicy):
    """A way of batching and a rule of placement, by name.

    Attributes:
        batching: how a GPU forms the batch of an iteration; see `EngineModel`.
        placement: which GPU takes a request as it arrives.
    """

    fidelities: ClassVar[tuple[str, ...]] = ("iteration",)

    batching: BatchingName
    placement: PlacementName

    def on(self, scenario: Scenario) -> PlacedPolicy:
        """Itself: it batches in one way."""
        return self

    @property
    def has_pools(self) -> bool:
        """Whether some of the GPUs read prompts and the others decode."""
        return self.placement == "pools"

    @property
    def only_places(self) -> bool:
        """Whether it says no more than where a request goes, but for a way of batching that engines have."""
        return {p.name for p in self.parameters} <= CRITERIA


def criteria_of(policy: PlacedPolicy, prefill_rate: float, ttft_target: float) -> Criteria:
    """The numbers of a policy's rule of placement.

    Args:
        prefill_rate: prompt tokens a second that a GPU reads at most, for the rule STICKY.
        ttft_target: the least of the classes, s; inf for none.
    """
    values = policy.values
    tolerated = values.get("tolerated_ttft", 0.0) or (ttft_target if ttft_target < math.inf else TOLERATED_TTFT)
    return Criteria(
        share=values.get("share", 0.0),
        tolerance=prefill_rate * tolerated,
        apart=values.get("apart", 0.0),
        ratio=values.get("ratio", 1.0),
        prefix_weight=values.get("prefix_weight", 1.0),
        queue_weight=values.get("queue_weight", 1.0),
        memory_weight=values.get("memory_weight", 1.0),
    )


def prefill_rate(scenario: Scenario, batching: BatchingName) -> float:
    """Prompt tokens a second that a GPU reads which reads nothing but the first chunks of prompts."""
    gpu, known = scenario.gpu, DISCIPLINES[Batching(batching)]
    tokens = scenario.engine.max_batched_tokens or known.default_tokens(gpu.batch_size, gpu.chunk_size)
    return tokens / gpu.iteration.mixed(tokens)


TOLERATED_TTFT = 18.0
"""s: what llm-d tolerates by default that a GPU with most of the prompt is later than another one."""

POOL = (
    Parameter("prompt_gpus", 0, 0, MOST_GPUS, "GPUs of the prompt pool; 0: the best number in a pilot run", whole=True),
    Parameter("pilot", 300, 1, 100_000, "requests a GPU in that pilot run, after as many that fill it", whole=True),
)
QUEUE = Parameter(
    "queue_tokens", 8192, 1, 2**31 - 1, "unread prompt tokens beyond which the queue of a GPU is long", whole=True
)
OFFSET = Parameter(
    "offset", 2.0, 0.0, 100.0, "how long before the deadline decodes are critical, in iterations of a whole budget"
)
THRESHOLD = Parameter(
    "threshold", 4, 1, 100_000, "requests that a GPU waits for, shared out over the classes by arrival rate", whole=True
)

STICKY = (
    Parameter("share", 0.8, 0.0, 1.0, "part of a prompt that a GPU must have to be preferred"),
    Parameter(
        "tolerated_ttft",
        0.0,
        0.0,
        100_000.0,
        "s of reading that such a GPU may be later than others; 0: the least TTFT target, or 18 without one",
    ),
)
PRECISE = (
    Parameter("prefix_weight", 2.0, 0.0, 1000.0, "weight of the part of the prompt that a GPU has"),
    Parameter("queue_weight", 1.0, 0.0, 1000.0, "weight of its queue: 1 for the shortest, 0 for the longest"),
    Parameter("memory_weight", 1.0, 0.0, 1000.0, "weight of the free part of its KV memory"),
)
CACHE_AWARE = (
    Parameter("share", 0.3, 0.0, 1.0, "part of a prompt of which a GPU must have more to be preferred"),
    Parameter("apart", 64.0, 0.0, 100_000.0, "requests that the most loaded GPU may have more than the least loaded"),
    Parameter("ratio", 1.5, 1.0, 1000.0, "how many times as many it may have: beyond both, loads are out of balance"),
)
CRITERIA = frozenset(each.name for each in (*STICKY, *PRECISE, *CACHE_AWARE))
"""Parameters of rules of placement."""

TRANSFER_PRICE = Parameter(
    "transfer_price", 1.0, 0.0, 1000.0, "what a transfer costs beside its time, in its seconds over the TTFT target"
)

VLLM = "vLLM V1 after Sarathi-Serve, arXiv:2403.02310"
FIRST_VLLM = "vLLM, arXiv:2309.06180"


def _placed(
    name: str,
    summary: str,
    source: str,
    batching: BatchingName = "token-budget",
    placement: PlacementName = "round-robin",
    parameters: tuple[Parameter, ...] = (),
) -> PlacedPolicy:
    return PlacedPolicy(name, "published", summary, batching, placement, source=source, parameters=parameters)


PLACED: dict[str, PlacedPolicy] = {
    policy.name: policy
    for policy in (
        _placed("vllm-round-robin", "vLLM's token budget, GPUs in turn", VLLM),
        _placed(
            "vllm-least-loaded",
            "vLLM's token budget, GPU with the fewest requests",
            VLLM,
            placement="least-loaded",
        ),
        _placed(
            "vllm-power-of-two",
            "vLLM's token budget, less loaded of two GPUs drawn",
            f"{VLLM}; Mitzenmacher, IEEE TPDS 12(10), 2001",
            placement="power-of-two",
        ),
        _placed(
            "vllm-lmetric",
            "vLLM's token budget, least unread prompt tokens times requests",
            "LMetric, arXiv:2603.15202",
            placement="lmetric",
        ),
        _placed(
            "vllm-least-prefill",
            "vLLM's token budget, GPU with the fewest prompt tokens left to read",
            VLLM,
            placement="least-prefill",
        ),
        _placed(
            "vllm-sticky",
            "vLLM's token budget, a GPU with most of the prompt until saturated, then the one with least to read",
            "llm-d, sticky until saturated: llm-d.ai/blog/sticky-until-saturated-token-aware-routing, 2026",
            placement="sticky",
            parameters=STICKY,
        ),
        _placed(
            "vllm-precise",
            "vLLM's token budget, greatest weighted sum of cached share, short queue and free memory",
            "llm-d, scorers precise-prefix-cache, queue and kv-cache-utilization: llm-d.ai, 2025",
            placement="precise",
            parameters=PRECISE,
        ),
        _placed(
            "vllm-cache-aware",
            "vLLM's token budget, the longest match while loads are balanced, else the fewest requests",
            "SGLang's router, policy cache_aware: github.com/sgl-project/sglang, 2025",
            placement="cache-aware",
            parameters=CACHE_AWARE,
        ),
        _placed(
            "prefill-first-round-robin",
            "whole prompts first (first vLLM), GPUs in turn",
            FIRST_VLLM,
            "prefill-first",
        ),
        _placed(
            "prefill-first-least-loaded",
            "whole prompts first (first vLLM), GPU with the fewest requests",
            FIRST_VLLM,
            "prefill-first",
            "least-loaded",
        ),
        _placed(
            "distserve",
            "a pool of GPUs for prompts and one for decodes, KV sent between them, at the best ratio",
            "DistServe, arXiv:2401.09670",
            "prefill-first",
            "pools",
            POOL,
        ),
        _placed(
            "splitwise",
            "a prompt and a token pool that lend each other GPUs, both GPUs of a request chosen on arrival",
            "Splitwise, arXiv:2311.18677",
            placement="pools",
            parameters=(*POOL, QUEUE),
        ),
        _placed(
            "edpp",
            "a prompt pool; each request is read there or where it decodes, whichever costs less backlog and lateness",
            "EDPP, github.com/inference-sim/inference-sim, 2026",
            placement="pools",
            parameters=(*POOL, TRANSFER_PRICE),
        ),
        _placed(
            "slai",
            "prompts first, decodes put off until their last schedulable time, GPUs in turn",
            "SLAI, arXiv:2508.01002",
            "last-schedulable",
            parameters=(OFFSET,),
        ),
        _placed(
            "wait",
            "requests of a class wait on their GPU until a threshold of them is there, GPUs in turn",
            "WAIT, arXiv:2504.11320",
            parameters=(THRESHOLD,),
        ),
    )
}
