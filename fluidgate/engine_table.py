"""[engine] and [targets]: what only the fidelity of iterations reads, in a scenario file and in a `Scenario`.

Each key stands here alone: its type, its range, its default, what an error says of it, and what it goes with. The
table is the form that a file is checked against; the noun, which inherits it, is the one that a `Scenario` holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from fluidgate.toml_file import LARGEST_WHOLE, Table, check, fail
from fluidgate.toml_file import absent as absent

BatchingName = Literal["single-prefill", "token-budget", "prefill-first", "last-schedulable"]
Preemption = Literal["recompute", "swap"]


class EngineTable(Table):
    batching: BatchingName | None = absent("how the batch of an iteration is formed")
    max_batched_tokens: int | None = absent(
        "the tokens of an iteration, but under single-prefill batching",
        ge=1,
        le=LARGEST_WHOLE,
        examples=[2048],
    )
    kv_tokens: int | None = absent(
        "the tokens that the KV memory of a GPU holds", ge=1, le=LARGEST_WHOLE, examples=[65536]
    )
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
    transfer_bandwidth: float | None = absent("the KV tokens per second to another GPU", gt=0, examples=[100000.0])

    def problems(self, batch_size: int | None = None) -> Iterator[str]:
        """One "KEY: REASON; MEND" for each key that does not go with the others, or with the batch size if given."""
        plain = EngineTable()
        if self.kv_tokens is None:
            for key in ("kv_block", "kv_reservation", "kv_caching", "preemption"):
                if getattr(self, key) != getattr(plain, key):
                    yield f"{key}: only with a limited KV memory; remove this key, or give kv_tokens"
        elif self.kv_tokens < self.kv_block:
            yield (
                f"kv_tokens: must hold a block of {self.kv_block} tokens, but is {self.kv_tokens}; "
                "give the tokens that the KV memory of a GPU holds"
            )
        if self.kv_caching and self.preemption == "swap":
            yield 'kv_caching: what is swapped out is not read again; remove this key, or preempt by "recompute"'
        if self.swap_seconds > 0 and self.preemption != "swap":
            yield 'swap_seconds: only with preemption = "swap"; remove this key, or give that preemption'
        if self.async_scheduling and self.batching not in (None, "token-budget"):
            yield (
                f"async_scheduling: not simulated with {self.batching} batching; "
                "remove this key, or give token-budget batching"
            )
        if self.max_batched_tokens is None:
            return
        if self.batching == "single-prefill":
            yield (
                "max_batched_tokens: not with single-prefill batching, which reads gpu.chunk_size tokens; "
                "remove this key, or give another batching"
            )
        elif batch_size is not None and self.max_batched_tokens < batch_size and self.batching != "prefill-first":
            yield (
                f"max_batched_tokens: must be at least the batch size ({batch_size}), "
                f"but is {self.max_batched_tokens}; raise it, or lower gpu.batch_size"
            )


class EngineModel(EngineTable):
    """What the model leaves open of a GPU's engine, at the fidelity of iterations.

    - `single-prefill`: at most one prompt, in chunks of `Gpu.chunk_size`, beside the decodes ([LDHZ] section 2).
    - `token-budget`: all decodes, then chunks of as many waiting prompts as the budget holds (vLLM, Sarathi-Serve).
    - `prefill-first`: whole prompts alone, before the decodes go on (first vLLM).
    - `last-schedulable`: token budget, prompts first until the decodes are near their deadline (SLAI).

    None leaves `batching` to the policy, its budget to the batching, and memory and bandwidth without a limit.
    """

    model_config = ConfigDict(strict=False)

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        for problem in self.problems():
            raise ValueError(problem)
        return self


def check_engine(**keys: Any) -> None:
    """Refuse what [engine] can't hold.

    Raises:
        FluidgateError: a key is out of its range, or does not go with the others.
    """
    if problems := list(check(EngineTable, keys, "engine").problems()):
        fail("engine", problems)


class TargetsTable(Table):
    ttft: float | None = absent("the largest time to first token that counts as goodput, s", gt=0, examples=[2.0])
    tpot: float | None = absent("the largest time per output token that counts as goodput, s", gt=0, examples=[0.05])


class Targets(TargetsTable):
    """What a request must keep to count as goodput; None for no target."""

    model_config = ConfigDict(strict=False)
