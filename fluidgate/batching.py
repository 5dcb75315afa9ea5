"""The batching disciplines: how a GPU forms the batch of an iteration, all but the kernel of each.

A discipline is a row of `DISCIPLINES`, and the function `compose` of the file of its name in
`fluidgate/simulation/iteration/kernel/batching`. What a row says holds wherever a discipline is named: in a scenario
file, in a policy, in the engine of the iteration model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal


class Batching(StrEnum):
    """A discipline by name."""

    SINGLE_PREFILL = "single-prefill"
    TOKEN_BUDGET = "token-budget"
    PREFILL_FIRST = "prefill-first"
    LAST_SCHEDULABLE = "last-schedulable"


@dataclass(frozen=True)
class Discipline:
    """What is to know of a discipline.

    Attributes:
        summary: what a batch is, and whose rule it is.
        default_tokens: tokens of an iteration where nobody says more, from the batch and the chunk size.
        by_policy: whether a policy assigns requests to GPUs, at most one prefill each, in chunks of a fixed size.
        holds_decodes: whether every decode takes a token of the budget, so that it must hold a whole batch.
        joins_at_once: whether a decode whose prefill has ended is in the very next batch.
        keeps_deadline: whether it keeps to a deadline between two tokens of a request.
        asynchronous: whether the composition of a batch while the one before it runs is simulated.
        caching: whether KV that a preempted request finds again is simulated.
    """

    summary: str
    default_tokens: Callable[[int, int], int]
    by_policy: bool = False
    holds_decodes: bool = False
    joins_at_once: bool = False
    keeps_deadline: bool = False
    asynchronous: bool = False
    caching: bool = True


def chunk_beside_decodes(batch_size: int, chunk_size: int) -> int:
    """A full chunk beside B - 1 decodes."""
    return chunk_size + batch_size - 1


DISCIPLINES: dict[Batching, Discipline] = {
    Batching.SINGLE_PREFILL: Discipline(
        "at most one prompt, in chunks of `Gpu.chunk_size`, beside the decodes ([LDHZ] section 2)",
        lambda batch_size, chunk_size: chunk_size,
        by_policy=True,
        caching=False,
    ),
    Batching.TOKEN_BUDGET: Discipline(
        "all decodes, then chunks of as many waiting prompts as the budget holds (vLLM, Sarathi-Serve)",
        chunk_beside_decodes,
        holds_decodes=True,
        joins_at_once=True,
        asynchronous=True,
    ),
    Batching.PREFILL_FIRST: Discipline(
        "whole prompts alone, before the decodes go on (first vLLM)",
        lambda batch_size, chunk_size: 2048,
    ),
    Batching.LAST_SCHEDULABLE: Discipline(
        "token budget, prompts first until the decodes are near their deadline (SLAI)",
        chunk_beside_decodes,
        holds_decodes=True,
        keeps_deadline=True,
    ),
}

if TYPE_CHECKING:
    BatchingName = str
else:
    BatchingName = Literal[tuple(map(str, Batching))]
