"""[engine] and [targets]: what only the fidelity of iterations reads, in a scenario file and in a `Scenario`.

Each key stands here alone: its type, its range, its default, what an error says of it, and what it goes with. The
table is the form that a file is checked against; the noun, which inherits it, is the one that a `Scenario` holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from fluidgate.batching import DISCIPLINES, Batching
from fluidgate.batching import BatchingName as BatchingName
from fluidgate.target_table import StatisticTargetTable
from fluidgate.toml_file import LARGEST_WHOLE, Table
from fluidgate.toml_file import absent as absent

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
    kv_block: int = Field(default=16, ge=1, le=LARGEST_WHOLE, description="the tokens of a block of KV memory")
    kv_reservation: int = Field(
        default=0, ge=0, le=LARGEST_WHOLE, description="the tokens that must fit beyond a prompt for it to be admitted"
    )
    kv_caching: bool = Field(
        default=False, description="whether a preempted request finds again the KV that was not overwritten"
    )
    prefix_caching: bool = Field(
        default=False,
        description="whether a prompt finds the KV of a beginning that it shares with what was read before",
    )
    async_scheduling: bool = Field(
        default=False, description="whether the batch of an iteration is composed when the one before it starts"
    )
    data_parallel: int = Field(
        default=1, ge=1, le=LARGEST_WHOLE, description="the GPUs that step together, as ranks of one engine"
    )
    preemption: Preemption = Field(default="recompute", description="what becomes of the KV of a preempted decode")
    swap_seconds: float = Field(default=0.0, ge=0, description="the seconds a token that swapping takes, each way")
    transfer_latency: float = Field(
        default=0.0, ge=0, description="the seconds that KV takes to another GPU, whatever its size"
    )
    transfer_bandwidth: float | None = absent("the KV tokens per second to another GPU", gt=0, examples=[100000.0])
    front_end: float = Field(
        default=0.0, ge=0, description="the seconds from a client's sending to the engine's queue (HTTP, tokenizing)"
    )
    front_end_first: float = Field(
        default=0.0,
        ge=0,
        description="the seconds from the engine's first token to the client, and from every later one",
    )

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
        if self.kv_caching and self.prefix_caching:
            yield "kv_caching: not together with prefix_caching, of which it is a part; remove this key"
        if self.kv_caching and self.preemption == "swap":
            yield 'kv_caching: what is swapped out is not read again; remove this key, or preempt by "recompute"'
        if self.swap_seconds > 0 and self.preemption != "swap":
            yield 'swap_seconds: only with preemption = "swap"; remove this key, or give that preemption'
        known = DISCIPLINES[Batching(self.batching)] if self.batching is not None else None
        if self.async_scheduling and known is not None and not known.asynchronous:
            yield (
                f"async_scheduling: not simulated with {self.batching} batching; "
                "remove this key, or give token-budget batching"
            )
        if self.max_batched_tokens is None:
            return
        if known is not None and known.by_policy:
            yield (
                f"max_batched_tokens: not with {self.batching} batching, which reads gpu.chunk_size tokens; "
                "remove this key, or give another batching"
            )
        elif batch_size is not None and self.max_batched_tokens < batch_size and (known is None or known.holds_decodes):
            yield (
                f"max_batched_tokens: must be at least the batch size ({batch_size}), "
                f"but is {self.max_batched_tokens}; raise it, or lower gpu.batch_size"
            )


class EngineFileTable(EngineTable):
    """[engine] as a file has it: `kv_tokens` may follow from the memory of the GPU; overhead becomes its time's."""

    kv_memory: str | None = absent(
        'what kv_tokens follows from: a card such as "h100", its memory such as "80 GiB", '
        'the line of the engine\'s log, or "unlimited"',
        examples=["h100"],
    )
    overhead: float = Field(default=0.0, ge=0, description="the seconds that the engine adds to each iteration")
    overhead_per_decode: float = Field(default=0.0, ge=0, description="the seconds that it adds for each decode of one")
    gpu_memory_utilization: float | None = absent(
        "the share of a GPU's memory that the engine takes, weights included", gt=0, le=1, examples=[0.9]
    )

    def problems(self, batch_size: int | None = None) -> Iterator[str]:
        for key in ("kv_memory", "gpu_memory_utilization"):
            if self.kv_tokens is not None and getattr(self, key) is not None:
                yield f"{key}: not together with kv_tokens, which it says already; remove one of the two"

    def resolved(self, kv_tokens: int | None) -> EngineTable:
        """The table with the tokens that its KV memory holds, in the place of what they follow from."""
        keys = self.model_dump(include=set(EngineTable.model_fields) - {"kv_tokens"})
        return EngineTable(kv_tokens=kv_tokens, **keys)


class EngineModel(EngineTable):
    """What the model leaves open of a GPU's engine, at the fidelity of iterations.

    `fluidgate.batching` says what each batching is. None leaves `batching` to the policy, its budget to the batching,
    and memory and bandwidth without a limit.
    """

    model_config = ConfigDict(strict=False)

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        for problem in self.problems():
            raise ValueError(problem)
        return self


class TargetsTable(StatisticTargetTable):
    ttft: float | None = absent("the largest time to first token that counts as goodput, s", gt=0, examples=[2.0])
    tpot: float | None = absent("the largest time per output token that counts as goodput, s", gt=0, examples=[0.05])


class Targets(TargetsTable):
    """What a request must keep to count as goodput, and a fleet over all requests; None for no target."""

    model_config = ConfigDict(strict=False)
