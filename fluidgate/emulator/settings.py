"""What an emulated engine is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fluidgate.emulator.prompt import BLOCK
from fluidgate.errors import FluidgateError
from fluidgate.model import Gpu

EngineBatching = Literal["single-prefill", "token-budget"]
EngineKind = Literal["vllm", "sglang", "openai"]
OPTIONS = {"max_queued": "max-num-queued-reqs"}
"""Options of `fluidgate engine` that are called otherwise than what they set."""
EngineRole = Literal["null", "prefill", "decode"]
KvLoadFailure = Literal["fail", "recompute", "garbage"]


@dataclass(frozen=True)
class EngineSettings:
    """An emulated engine; all times in seconds of the engine, of which `speed` pass in one of the wall clock.

    Attributes:
        gpu: its batch B, its chunk C and its iteration time.
        kind: whose API and metrics it has; "openai" has no metrics, and moves no KV.
        role: of an engine of kind "sglang": one side of pairs, or "null" for one that takes whole requests.
        pair_timeout: s that one side of a pair waits for the other.
        model: name that the API serves.
        speed: seconds of the engine in one second of the wall clock.
        batching: how the batch of an iteration is formed.
        max_batched_tokens: of an iteration under token-budget batching; by default a full chunk beside B - 1 decodes.
        max_model_len: most tokens of prompt and answer together.
        data_parallel: ranks of the engine that step together; each has a batch and a memory of its own.
        kv_tokens: that the KV memory holds; by default B requests of `max_model_len`.
        prefix_caching: whether the KV of a text that was read or written serves prompts that begin alike.
        kv_events: port on which the first rank tells what its memory stores and removes, the others on the next;
            0 for any free ones, None to tell nobody.
        kv_lease: s that the KV of a remote decode is kept for.
        transfer_latency, transfer_bandwidth: KV from another engine takes latency + tokens/bandwidth s.
        kv_load_failure_policy: what becomes of a request whose KV cannot be fetched: it fails, its prompt is read here,
            or its answer is garbage, as no engine should.
        output_tokens: mean length of an answer that the client does not fix.
        max_queued: requests that may wait; more are refused with 503. None for no limit.
        grace: s after an iteration has begun within which a request still joins it.
        seed: of answer lengths.

    Raises:
        FluidgateError: a number is out of its range.
    """

    gpu: Gpu
    kind: EngineKind = "vllm"
    role: EngineRole = "null"
    pair_timeout: float = 300.0
    model: str = "emulated"
    speed: float = 1.0
    batching: EngineBatching = "single-prefill"
    max_batched_tokens: int | None = None
    max_model_len: int = 131_072
    data_parallel: int = 1
    kv_tokens: int | None = None
    prefix_caching: bool = True
    kv_events: int | None = None
    kv_lease: float = 30.0
    transfer_latency: float = 0.0
    transfer_bandwidth: float = math.inf
    kv_load_failure_policy: KvLoadFailure = "fail"
    output_tokens: float = 128.0
    max_queued: int | None = None
    grace: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise FluidgateError("--model: must not be empty; give the name that the API serves")
        for name in ("speed", "kv_lease", "pair_timeout"):
            _check(name, getattr(self, name), 0.0 < getattr(self, name) < math.inf, "above 0")
        for name in ("transfer_latency", "grace"):
            _check(name, getattr(self, name), 0.0 <= getattr(self, name) < math.inf, "at least 0")
        _check("transfer_bandwidth", self.transfer_bandwidth, self.transfer_bandwidth > 0.0, "above 0")
        _check("output_tokens", self.output_tokens, 1.0 <= self.output_tokens < math.inf, "at least 1")
        _check("max_model_len", self.max_model_len, self.max_model_len >= 2, "at least 2")
        if self.role != "null" and self.kind != "sglang":
            raise FluidgateError(f"--role {self.role}: goes with --kind sglang; leave it out, or give that")
        _check("data_parallel", self.data_parallel, self.data_parallel >= 1, "at least 1")
        if self.data_parallel > 1 and self.kind == "sglang":
            raise FluidgateError("engine: data_parallel is emulated with kinds vllm and openai; leave it out")
        _check("seed", self.seed, self.seed >= 0, "at least 0")
        if self.max_queued is not None:
            _check("max_queued", self.max_queued, self.max_queued >= 0, "at least 0")
        if self.kv_events is not None and self.kind != "vllm":
            raise FluidgateError("--kv-events: told by --kind vllm only; leave it out, or the kind")
        if self.kv_tokens is not None and self.kv_tokens < self.max_model_len:
            raise FluidgateError(
                f"--kv-tokens: {self.kv_tokens} hold no request of --max-model-len {self.max_model_len}; "
                "raise the one, or lower the other"
            )
        if self.max_batched_tokens is not None and self.batching != "token-budget":
            raise FluidgateError(
                "--max-num-batched-tokens: only with --batching token-budget; leave one of the two out"
            )
        if self.batching == "token-budget" and self.budget < self.gpu.batch_size:
            raise FluidgateError(
                f"--max-num-batched-tokens: {self.budget} tokens an iteration are below the batch size "
                f"{self.gpu.batch_size}; raise the budget, or lower the batch size"
            )

    @property
    def budget(self) -> int:
        """Tokens of an iteration under token-budget batching."""
        if self.max_batched_tokens is not None:
            return self.max_batched_tokens
        return self.gpu.chunk_size + self.gpu.batch_size - 1

    @property
    def kv_blocks(self) -> int:
        """Blocks that the KV memory holds."""
        if self.kv_tokens is not None:
            return blocks(self.kv_tokens)
        return self.gpu.batch_size * blocks(self.max_model_len)


def blocks(tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-tokens // BLOCK)


def _check(name: str, value: float, good: bool, rule: str) -> None:
    if not good:
        raise FluidgateError(f"--{OPTIONS.get(name, name).replace('_', '-')}: must be {rule}, but is {value:g}")
