"""What a cluster is made of, as a caller says it: the law, the way of batching, the memory, the transfer of KV."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fluidgate.engine_table import check_engine
from fluidgate.errors import FluidgateError
from fluidgate.simulation.iteration.cluster import Batching, Placement, Settings
from fluidgate.simulation.iteration.law import Law


@dataclass(frozen=True)
class KvMemory:
    """KV memory of a GPU.

    Attributes:
        tokens: capacity, rounded down to whole blocks.
        block_tokens: of a block.
        reservation: tokens that must fit beyond a prompt for it to be admitted.
        caching: whether blocks that are freed keep their KV until they are taken again (prefix caching in vLLM): a
            preempted request reads again only what was overwritten. Nothing is shared between requests.
        swap: whether a preempted decode's KV is swapped out; otherwise it is dropped, and prompt and output so far are
            read again.
        swap_seconds: s a token, each way.
    """

    tokens: int
    block_tokens: int = 16
    reservation: int = 0
    caching: bool = False
    swap: bool = False
    swap_seconds: float = 0.0

    def __post_init__(self) -> None:
        check_engine(
            kv_tokens=self.tokens,
            kv_block=self.block_tokens,
            kv_reservation=self.reservation,
            kv_caching=self.caching,
            preemption="swap" if self.swap else "recompute",
            swap_seconds=self.swap_seconds,
        )


@dataclass(frozen=True)
class Transfer:
    """KV on its way from the prefill to another decode GPU: `latency + tokens * seconds_per_token`, s."""

    latency: float = 0.0
    seconds_per_token: float = 0.0

    def __post_init__(self) -> None:
        for value in (self.latency, self.seconds_per_token):
            if not (math.isfinite(value) and value >= 0):
                raise FluidgateError(f"KV transfer: times must be finite and at least 0 s, but one is {value:g}")


@dataclass(frozen=True)
class Pools:
    """A pool of GPUs for prompts, the first `prompt_gpus`, and one for tokens, the rest.

    Attributes:
        prompt_gpus: size of the prompt pool.
        queue_tokens: 0: the pools are fixed, and a decode is placed when its prefill ends (DistServe). Above 0: the
            GPUs of prompt and tokens are chosen together on arrival, and where every queue of the prompt pool would
            exceed `queue_tokens` unread tokens, or every GPU of the token pool has as many decodes as its batch holds,
            a GPU of the other pool joins a mixed pool for as long as it has work of that kind (Splitwise).
    """

    prompt_gpus: int
    queue_tokens: int = 0

    def __post_init__(self) -> None:
        if self.prompt_gpus < 1 or self.queue_tokens < 0:
            raise FluidgateError("pools: the prompt pool has at least 1 GPU, and queue tokens are at least 0")


@dataclass(frozen=True)
class Engine:
    """A GPU (or one tensor-parallel engine) iteration by iteration.

    Attributes:
        law: iteration time.
        batch_size: most requests in a batch, B (`max_num_seqs`).
        tokens: single prefill: chunk size C. Token budget and prefill first: `max_num_batched_tokens`.
        batching: how the batch of an iteration is formed.
        kv: memory; None for no limit.
        transfer: of KV between GPUs.
        token_deadline: s between two tokens of a request, which LAST_SCHEDULABLE keeps to.
        token_offset: how long before it decodes are critical, in iterations of a whole budget. 2 leave room for
            the iteration that still goes without them and the one that brings their token.
        asynchronous: whether the batch of an iteration is composed when the one before it starts, as vLLM 0.19 does
            unless told otherwise (`--no-async-scheduling`). A request that comes during an iteration is then not in the
            next one; the memory and the place of one that ends with an iteration are free for the one after the next.
            Where a GPU has run idle it composes at once. That a request will end is known beforehand, as it is of one
            that reaches its `max_tokens`.
    """

    law: Law
    batch_size: int
    tokens: int
    batching: Batching = Batching.TOKEN_BUDGET
    kv: KvMemory | None = None
    transfer: Transfer = Transfer()
    token_deadline: float = math.inf
    token_offset: float = 2.0
    asynchronous: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.tokens < 1:
            raise FluidgateError("engine: batch size and tokens an iteration must be at least 1")
        if self.batching in (Batching.TOKEN_BUDGET, Batching.LAST_SCHEDULABLE) and self.tokens < self.batch_size:
            raise FluidgateError(
                f"engine: a budget of {self.tokens} tokens an iteration is below the batch size {self.batch_size}; "
                "raise the budget, or lower the batch size"
            )
        if self.batching == Batching.LAST_SCHEDULABLE and not 0 < self.token_deadline < math.inf:
            raise FluidgateError("engine: last-schedulable batching needs a token deadline; give one above 0 s")

        if self.batching == Batching.SINGLE_PREFILL and self.kv is not None and self.kv.caching:
            raise FluidgateError("engine: caching is simulated where a request stays on its GPU; leave it off here")
        if self.asynchronous and self.batching != Batching.TOKEN_BUDGET:
            raise FluidgateError("engine: asynchronous scheduling is simulated with token-budget batching only")

    def settings(
        self,
        gpus: int,
        *,
        placement: Placement = Placement.ROUND_ROBIN,
        pools: Pools | None = None,
        accumulate: bool = False,
        mixed_gpus: int | None = None,
        reserve: bool = False,
        warmup: float = 0.0,
        horizon: float = math.inf,
        sample_interval: float = math.inf,
        audited: bool = False,
    ) -> Settings:
        """The same for compiled code, with the cluster and the run.

        Raises:
            FluidgateError: pools without the placement that uses them or the other way round, or an empty one.
        """
        kv = self.kv
        if (pools is not None) != (placement == Placement.POOLS):
            raise FluidgateError("placement: pools are given with the placement POOLS, and with no other")
        if pools is not None and pools.prompt_gpus >= gpus:
            raise FluidgateError(f"pools: {pools.prompt_gpus} of {gpus} GPUs for prompts leave none for tokens")
        return Settings(
            batching=int(self.batching),
            placement=int(placement),
            prompt_gpus=pools.prompt_gpus if pools else 0,
            queue_tokens=pools.queue_tokens if pools else 0,
            token_deadline=float(self.token_deadline),
            token_offset=float(self.token_offset),
            asynchronous=bool(self.asynchronous),
            accumulate=bool(accumulate),
            gpus=gpus,
            batch_size=self.batch_size,
            tokens=self.tokens,
            mixed_gpus=gpus if mixed_gpus is None else mixed_gpus,
            reserve=bool(reserve),
            kv_blocks=kv.tokens // kv.block_tokens if kv else 0,
            block_tokens=kv.block_tokens if kv else 1,
            reservation=kv.reservation if kv else 0,
            caching=kv.caching if kv else False,
            swap=kv.swap if kv else False,
            swap_seconds=float(kv.swap_seconds) if kv else 0.0,
            transfer_latency=float(self.transfer.latency),
            transfer_seconds=float(self.transfer.seconds_per_token),
            warmup=float(warmup),
            horizon=float(horizon),
            sample_interval=float(sample_interval),
            ordered=kv is not None or pools is not None or self.batching != Batching.TOKEN_BUDGET,
            audited=audited,
        )
