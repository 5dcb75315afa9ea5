"""What an answer means for who runs it: so many engines of one kind, and a gateway before them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from fluidgate.batching import DISCIPLINES, Batching
from fluidgate.engine_table import EngineModel
from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.policies import PlacedPolicy, Policy, find_any_policy
from fluidgate.profiles import find_profile
from fluidgate.profiles.facts import language_model_of
from fluidgate.profiles.kv_memory import OVERHEAD, UTILIZATION
from fluidgate.profiles.profile import Profile
from fluidgate.sizing.answer import Answer
from fluidgate.sizing.mix import Mix

FIRST_PORT = 8001
GATEWAY_PORT = 8080
SIDE_CHANNEL = 5600
"""First port of NIXL's side channels."""
HOST_GPUS = 8
"""Of a machine of several engines."""


@dataclass(frozen=True)
class Fleet:
    """The engines of an answer.

    Attributes:
        scenario: the sized one: its `cluster_gpus` are the ranks of all engines.
        policy_name: as it was given.
        policy: for these engines.
        profile: of the GPUs; None where the scenario's own times are no shipped profile's.
    """

    answer: Answer = field(repr=False)
    scenario: Scenario
    engines: int
    policy_name: str
    policy: Policy | PlacedPolicy = field(repr=False)
    profile: Profile | None

    @staticmethod
    def of(answer: Answer) -> Fleet:
        """Of an answer that has engines.

        Raises:
            FluidgateError: it has none, or the gateway does not run its policy.
        """
        choice = answer.choice
        if answer.engines is None:
            raise FluidgateError("--save: no choice keeps the targets, so there is nothing to run; give other choices")
        if isinstance(choice, Mix):
            raise FluidgateError(
                f"--save: the cheapest is a mix of GPU types, {choice.profile}, but what is saved is of one type; size "
                "without --mixed, or each type alone with the classes that go there"
            )
        policy = find_any_policy(choice.policy)
        if isinstance(policy, PlacedPolicy) and not policy.only_places:
            raise FluidgateError(
                f"--save: policy '{choice.policy}' is more than a placement of requests, which no gateway runs; "
                "size with another policy, such as vllm-least-loaded"
            )
        ranks = answer.engines * choice.ranks
        scenario = choice.scenario.for_gpus(ranks).replace(options=(), cluster_gpus=ranks)
        return Fleet(answer, scenario, answer.engines, choice.policy, policy.on(scenario), _profile(scenario))

    @property
    def name(self) -> str:
        """Of the scenario, as Compose and Kubernetes take names."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.scenario.name.lower()).strip("-")[:40].strip("-")
        return plain if plain and plain[0].isalpha() else f"fleet-{plain}".strip("-")

    @property
    def engine(self) -> EngineModel:
        return self.scenario.engine

    @property
    def tensor_parallel(self) -> int:
        """GPUs of a rank."""
        return self.scenario.gpu.calibrated.gpus

    @property
    def gpus(self) -> int:
        """Of an engine."""
        return self.engine.data_parallel * self.tensor_parallel

    @property
    def batching(self) -> Batching:
        return Batching(self.policy.batching)

    @property
    def moves_kv(self) -> bool:
        """Whether a prompt that one engine has read may be answered by another."""
        return DISCIPLINES[self.batching].by_policy

    @property
    def reads_several(self) -> bool:
        """Whether a gate feeds engines that were simulated reading several prompts in an iteration."""
        return isinstance(self.policy, Policy) and not DISCIPLINES[self.batching].by_policy

    @property
    def batched_tokens(self) -> int:
        """Of an iteration at most: a chunk beside the decodes where the policy gives out prompts."""
        gpu, known = self.scenario.gpu, DISCIPLINES[self.batching]
        if known.by_policy:
            return gpu.chunk_size + gpu.batch_size - 1
        return self.engine.max_batched_tokens or known.default_tokens(gpu.batch_size, gpu.chunk_size)

    @property
    def caches_prefixes(self) -> bool:
        """What moves its decodes finds prompts that stay by the prefix cache."""
        return self.moves_kv or self.engine.prefix_caching

    @property
    def model(self) -> str | None:
        """The weights on Hugging Face; None where the profile does not say which."""
        said = self.profile.model if self.profile is not None else ""
        if "/" in said:
            return said
        known = language_model_of(said)
        return None if known is None else known.repository

    @property
    def memory_share(self) -> float:
        """Of a GPU's memory that the engine takes, so that its KV memory holds what was simulated."""
        profile, tokens = self.profile, self.engine.kv_tokens
        if profile is None or tokens is None:
            return UTILIZATION
        memory, weights, kv = profile.memory_bytes, profile.weights_bytes, profile.kv_bytes_per_token
        if memory is None or weights is None or kv is None:
            return UTILIZATION
        share = math.ceil(100.0 * (tokens * kv + weights + (profile.gpus or 1) * OVERHEAD) / memory) / 100.0
        return share if share < 1.0 else UTILIZATION

    @property
    def ports(self) -> range:
        """Of the engines on one machine."""
        return range(FIRST_PORT, FIRST_PORT + self.engines)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]


def _profile(scenario: Scenario) -> Profile | None:
    """The shipped profile that the scenario's GPU has."""
    try:
        found = find_profile(scenario.gpu.calibrated.profile) if scenario.gpu.calibrated.profile else None
    except FluidgateError:
        return None
    return found
