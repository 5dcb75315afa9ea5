"""Engines of one kind: what they are told, so that they are as simulated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from fluidgate.batching import DISCIPLINES, Batching
from fluidgate.engine_table import EngineModel
from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.policies import PlacedPolicy, Policy, find_any_policy
from fluidgate.profiles import find_profile
from fluidgate.profiles.facts import language_model_of
from fluidgate.profiles.kv_memory import OVERHEAD, UTILIZATION
from fluidgate.profiles.profile import Profile
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.mix import part_of

HOST_GPUS = 8
"""Of a machine of several engines."""


@dataclass(frozen=True)
class EnginePool:
    """So many engines of one kind, among those of a fleet.

    Attributes:
        label: as files and the gateway call it; "" where there is one pool.
        scenario: the part of the load that comes here: its `cluster_gpus` are the ranks of these engines.
        first: the number of the first of its engines in the fleet, from 0 on.
        policy_name: as it was given.
        policy: for these engines.
        profile: of the GPUs; None where the scenario's own times are no shipped profile's.
        shares: of each class that go here, by its name; None where all do.
    """

    label: str
    scenario: Scenario
    engines: int
    first: int
    policy_name: str
    policy: Policy | PlacedPolicy = field(repr=False)
    profile: Profile | None
    shares: dict[str, float] | None = None

    @staticmethod
    def of(
        choice: Choice, engines: int, *, label: str = "", first: int = 0, shares: dict[str, float] | None = None
    ) -> EnginePool:
        """
        Raises:
            FluidgateError: the gateway does not run the policy.
        """
        policy = find_any_policy(choice.policy)
        if isinstance(policy, PlacedPolicy) and not policy.only_places:
            raise FluidgateError(
                f"--save: policy '{choice.policy}' is more than a placement of requests, which no gateway runs; "
                "size with another policy, such as vllm-least-loaded"
            )
        part = choice.scenario if shares is None else part_of(choice.scenario, np.array(list(shares.values())))
        ranks = engines * choice.ranks
        scenario = part.for_gpus(ranks).replace(options=(), cluster_gpus=ranks)
        return EnginePool(
            label, scenario, engines, first, choice.policy, policy.on(scenario), _profile(scenario), shares
        )

    @property
    def numbers(self) -> range:
        """Of its engines in the fleet, from 0 on."""
        return range(self.first, self.first + self.engines)

    @property
    def title(self) -> str:
        """What its engines are, to a reader."""
        return self.scenario.gpu.calibrated.profile or self.label or "own"

    @property
    def scenario_file(self) -> str:
        """The name of its scenario's file."""
        return f"scenario-{self.label}.toml" if self.label else "scenario.toml"

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


def _profile(scenario: Scenario) -> Profile | None:
    """The shipped profile that the scenario's GPU has."""
    try:
        found = find_profile(scenario.gpu.calibrated.profile) if scenario.gpu.calibrated.profile else None
    except FluidgateError:
        return None
    return found
