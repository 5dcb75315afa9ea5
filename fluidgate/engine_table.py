"""The tables [engine] and [targets] of a scenario file: what only the fidelity of iterations reads."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from fluidgate.model import BatchingName, EngineModel, Preemption, Targets
from fluidgate.toml_file import LARGEST_WHOLE, Table
from fluidgate.toml_file import absent as absent


class EngineTable(Table):
    batching: BatchingName = absent("how the batch of an iteration is formed")
    max_batched_tokens: int = absent(
        "the tokens of an iteration, but under single-prefill batching",
        ge=1,
        le=LARGEST_WHOLE,
        examples=[2048],
    )
    kv_tokens: int = absent("the tokens that the KV memory of a GPU holds", ge=1, le=LARGEST_WHOLE, examples=[65536])
    kv_block: int = Field(16, ge=1, le=LARGEST_WHOLE, description="the tokens of a block of KV memory")
    kv_reservation: int = Field(
        0, ge=0, le=LARGEST_WHOLE, description="the tokens that must fit beyond a prompt for it to be admitted"
    )
    kv_caching: bool = Field(
        False, description="whether a preempted request finds again the KV that was not overwritten"
    )
    async_scheduling: bool = Field(
        False, description="whether the batch of an iteration is composed when the one before it starts"
    )
    preemption: Preemption = Field("recompute", description="what becomes of the KV of a preempted decode")
    swap_seconds: float = Field(0.0, ge=0, description="the seconds a token that swapping takes, each way")
    transfer_latency: float = Field(
        0.0, ge=0, description="the seconds that KV takes to another GPU, whatever its size"
    )
    transfer_bandwidth: float = absent("the KV tokens per second to another GPU", gt=0, examples=[100000.0])

    def noun(self) -> EngineModel:
        return EngineModel(**self.model_dump())

    def problems(self, batch_size: int) -> Iterator[str]:
        """One "KEY: REASON; MEND" for each key that does not go with the others."""
        plain = EngineModel()
        if self.kv_tokens is None:
            for key in ("kv_block", "kv_reservation", "kv_caching", "preemption"):
                if getattr(self, key) != getattr(plain, key):
                    yield f"engine.{key}: only with a limited KV memory; remove this key, or give kv_tokens"
        elif self.kv_tokens < self.kv_block:
            yield (
                f"engine.kv_tokens: must hold a block of {self.kv_block} tokens, but is {self.kv_tokens}; "
                "give the tokens that the KV memory of a GPU holds"
            )
        if self.kv_caching and self.preemption == "swap":
            yield 'engine.kv_caching: what is swapped out is not read again; remove this key, or preempt by "recompute"'
        if self.swap_seconds > 0 and self.preemption != "swap":
            yield 'engine.swap_seconds: only with preemption = "swap"; remove this key, or give that preemption'
        if self.async_scheduling and self.batching not in (None, "token-budget"):
            yield (
                f"engine.async_scheduling: not simulated with {self.batching} batching; "
                "remove this key, or give token-budget batching"
            )
        if self.max_batched_tokens is None:
            return
        if self.batching == "single-prefill":
            yield (
                "engine.max_batched_tokens: not with single-prefill batching, which reads gpu.chunk_size tokens; "
                "remove this key, or give another batching"
            )
        elif self.max_batched_tokens < batch_size and self.batching != "prefill-first":
            yield (
                f"engine.max_batched_tokens: must be at least the batch size ({batch_size}), "
                f"but is {self.max_batched_tokens}; raise it, or lower gpu.batch_size"
            )


class TargetsTable(Table):
    ttft: float = absent("the largest time to first token that counts as goodput, s", gt=0, examples=[2.0])
    tpot: float = absent("the largest time per output token that counts as goodput, s", gt=0, examples=[0.05])

    def noun(self) -> Targets:
        return Targets(**self.model_dump())
