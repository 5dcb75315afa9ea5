"""Published serving policies: engines that form their own batches, each request placed on one as it arrives.

They read no plan, so an entry names a way of batching, a rule of placement, and the numbers that its source leaves
open. Only the fidelity of iterations tells them apart: `fluidgate.simulation.iteration.published` runs them there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fluidgate.model import BatchingName, Scenario
from fluidgate.planning.partition import MOST_GPUS
from fluidgate.policies.policy import BasePolicy, Parameter

PlacementName = Literal["round-robin", "least-loaded", "power-of-two", "lmetric", "pools"]


@dataclass(frozen=True)
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
