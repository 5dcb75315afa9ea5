"""What a cluster is made of, as a caller says it: the law, the way of batching, the memory, the transfer of KV."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fluidgate.batching import DISCIPLINES, Batching, Discipline
from fluidgate.engine_table import EngineModel
from fluidgate.errors import FluidgateError
from fluidgate.planning.partition import check_ranks
from fluidgate.policies.decisions.placement import NOTHING_SAID, Criteria
from fluidgate.policies.decisions.tables import Placement
from fluidgate.simulation.iteration.kernel.cluster import Settings
from fluidgate.simulation.iteration.kernel.keys import keys_of
from fluidgate.simulation.iteration.law import Law


@dataclass(frozen=True)
class Pools:
    """A pool of GPUs for prompts, the first `prompt_gpus`, and one for tokens, the rest.

    Attributes:
        prompt_gpus: size of the prompt pool.
        queue_tokens: 0: the pools are fixed, and a decode is placed when its prefill ends (DistServe). Above 0: the
            GPUs of prompt and tokens are chosen together on arrival, and where every queue of the prompt pool would
            exceed `queue_tokens` unread tokens, or every GPU of the token pool has as many decodes as its batch holds,
            a GPU of the other pool joins a mixed pool for as long as it has work of that kind (Splitwise).
        transfer_price: of EDPP, which chooses the GPU of the tokens on arrival, and whether that one reads as well:
            what a transfer costs more, in its seconds over the TTFT target. None: the prompt pool reads everything.
    """

    prompt_gpus: int
    queue_tokens: int = 0
    transfer_price: float | None = None

    def __post_init__(self) -> None:
        if self.prompt_gpus < 1 or self.queue_tokens < 0:
            raise FluidgateError("pools: the prompt pool has at least 1 GPU, and queue tokens are at least 0")
        if self.transfer_price is not None and self.queue_tokens > 0:
            raise FluidgateError("pools: with a transfer price they are fixed; give queue_tokens 0")


@dataclass(frozen=True)
class Engine:
    """A GPU (or one tensor-parallel engine) iteration by iteration.

    Attributes:
        law: iteration time.
        batch_size: most requests in a batch, B (`max_num_seqs`).
        tokens: single prefill: chunk size C. Token budget and prefill first: `max_num_batched_tokens`.
        batching: how the batch of an iteration is formed.
        keys: of [engine]: KV memory, what becomes of the preempted, KV transfer, scheduling. Its own `batching` and
            `max_batched_tokens` have no part here: `batching` and `tokens` have been chosen.
        token_deadline: s between two tokens of a request, for a discipline that keeps to it.
        token_offset: how long before it decodes are critical, in iterations of a whole budget. 2 leave room for
            the iteration that still goes without them and the one that brings their token.
    """

    law: Law
    batch_size: int
    tokens: int
    batching: Batching = Batching.TOKEN_BUDGET
    keys: EngineModel = field(default_factory=EngineModel)
    token_deadline: float = math.inf
    token_offset: float = 2.0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.tokens < 1:
            raise FluidgateError("engine: batch size and tokens an iteration must be at least 1")
        known = self.discipline
        if known.holds_decodes and self.tokens < self.batch_size:
            raise FluidgateError(
                f"engine: a budget of {self.tokens} tokens an iteration is below the batch size {self.batch_size}; "
                "raise the budget, or lower the batch size"
            )
        if known.keeps_deadline and not 0 < self.token_deadline < math.inf:
            raise FluidgateError(f"engine: {self.batching} batching needs a token deadline; give one above 0 s")

        if not known.caching and self.keys.kv_caching:
            raise FluidgateError("engine: caching is simulated where a request stays on its GPU; leave it off here")
        if self.keys.async_scheduling and not known.asynchronous:
            raise FluidgateError("engine: asynchronous scheduling is simulated with token-budget batching only")

    @property
    def discipline(self) -> Discipline:
        return DISCIPLINES[self.batching]

    def settings(
        self,
        gpus: int,
        *,
        placement: Placement = Placement.ROUND_ROBIN,
        criteria: Criteria = NOTHING_SAID,
        pools: Pools | None = None,
        accumulate: bool = False,
        gated: bool = False,
        warmup: float = 0.0,
        horizon: float = math.inf,
        sample_interval: float = math.inf,
    ) -> Settings:
        """The same for compiled code, with the cluster and the run.

        Raises:
            FluidgateError: pools without the placement that uses them or the other way round, or an empty one; or GPUs
                that are no whole number of groups of ranks in step.
        """
        keys = self.keys
        memory = 0 if keys.kv_tokens is None else keys.kv_tokens // keys.kv_block
        if (pools is not None) != (placement == Placement.POOLS):
            raise FluidgateError("placement: pools are given with the placement POOLS, and with no other")
        if pools is not None and pools.prompt_gpus >= gpus:
            raise FluidgateError(f"pools: {pools.prompt_gpus} of {gpus} GPUs for prompts leave none for tokens")
        check_ranks(gpus, keys.data_parallel)
        if pools is not None and keys.data_parallel > 1:
            raise FluidgateError(
                "engine.data_parallel: pools of GPUs for prompts and for tokens are not simulated with ranks in step; "
                "leave it out, or name another policy"
            )
        return Settings(
            placement=int(placement),
            criteria=criteria,
            by_policy=self.discipline.by_policy,
            gated=gated,
            joins_at_once=self.discipline.joins_at_once,
            prompt_gpus=pools.prompt_gpus if pools else 0,
            queue_tokens=pools.queue_tokens if pools else 0,
            drift=pools is not None and pools.transfer_price is not None,
            token_deadline=float(self.token_deadline),
            token_offset=float(self.token_offset),
            accumulate=bool(accumulate),
            gpus=gpus,
            batch_size=self.batch_size,
            tokens=self.tokens,
            kv_blocks=memory,
            caching=keys.kv_caching or keys.prefix_caching,
            prefixes=keys.prefix_caching,
            keys=keys_of(keys),
            warmup=float(warmup),
            horizon=float(horizon),
            sample_interval=float(sample_interval),
            ordered=memory > 0 or pools is not None or not self.discipline.joins_at_once,
        )
