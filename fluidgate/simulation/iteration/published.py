"""Published serving policies on the iteration kernel: each an entry of a table, run by one function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fluidgate.errors import FluidgateError
from fluidgate.simulation.iteration.cluster import Batching, Placement
from fluidgate.simulation.iteration.engine import Engine, Pools
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.run import Progress, Run, TakeLog, run_placed
from fluidgate.workloads.streams import Requests

CANDIDATES = 15
"""Sizes of the prompt pool that one round of `best_prompt_gpus` tries."""


@dataclass(frozen=True)
class Published:
    """A policy as published, in the terms of the kernel.

    Attributes:
        name: of the policy, as users type it.
        summary: its rule in one line.
        source: whose rule it is.
        batching: of each GPU.
        placement: of requests on GPUs.
        lends: with pools, whether they lend each other GPUs; a queue is long there beyond one budget of tokens.
        threshold: how many requests of a class are admitted on a GPU together, unless the run says otherwise; 1: each
            at once.
    """

    name: str
    summary: str
    source: str
    batching: Batching = Batching.TOKEN_BUDGET
    placement: Placement = Placement.ROUND_ROBIN
    lends: bool = False
    threshold: int = 1

    @property
    def has_pools(self) -> bool:
        """Whether it has to be told the size of its prompt pool."""
        return self.placement == Placement.POOLS


PUBLISHED: dict[str, Published] = {
    each.name: each
    for each in (
        Published(
            "vllm-round-robin",
            "chunked prefills beside the decodes of every GPU, GPUs in turn",
            "Sarathi-Serve, arXiv:2403.02310",
        ),
        Published(
            "vllm-least-loaded",
            "chunked prefills beside the decodes of every GPU, to the GPU with the fewest requests",
            "Sarathi-Serve, arXiv:2403.02310",
            placement=Placement.LEAST_LOADED,
        ),
        Published(
            "vllm-power-of-two",
            "chunked prefills beside the decodes of every GPU, to the less loaded of two drawn",
            "Sarathi-Serve, arXiv:2403.02310",
            placement=Placement.POWER_OF_TWO,
        ),
        Published(
            "prefill-first",
            "whole prompts before the decodes go on, GPUs in turn",
            "vLLM, arXiv:2309.06180",
            batching=Batching.PREFILL_FIRST,
        ),
        Published(
            "distserve",
            "a pool of GPUs for prompts and one for decodes, the KV sent between them",
            "DistServe, arXiv:2401.09670",
            batching=Batching.PREFILL_FIRST,
            placement=Placement.POOLS,
        ),
        Published(
            "splitwise",
            "a pool for prompts and one for tokens that lend each other GPUs, pairs chosen on arrival",
            "Splitwise, arXiv:2311.18677",
            placement=Placement.POOLS,
            lends=True,
        ),
        Published(
            "lmetric",
            "chunked prefills, to the GPU with the least product of unread prompt tokens and requests",
            "LMetric",
            placement=Placement.LMETRIC,
        ),
        Published(
            "slai",
            "prompts first, decodes put off until their last schedulable time, GPUs in turn",
            "SLAI, arXiv:2508.01002",
            batching=Batching.LAST_SCHEDULABLE,
        ),
        Published(
            "wait",
            "requests of a class wait on their GPU until a threshold of them is there, GPUs in turn",
            "WAIT, arXiv:2504.11320",
            threshold=4,
        ),
    )
}
"""The published policies by name."""


def run_published(
    blocks: Iterable[Requests],
    engine: Engine,
    run: Run,
    published: Published,
    *,
    prompt_gpus: int | None = None,
    thresholds: Sequence[int] = (),
    take_log: TakeLog | None = None,
    progress: Progress | None = None,
) -> IterationMeasurement:
    """Run a published policy.

    Args:
        blocks: requests in order of arrival, arrays of dtype REQUEST; read as they are needed.
        engine: the GPUs; its batching is the policy's. `slai` keeps to its `token_deadline`, or where there is none to
            the least TPOT target of the run.
        prompt_gpus: size of the prompt pool of `distserve` and `splitwise`, see `best_prompt_gpus`.
        thresholds: of `wait`, one a class; the policy's own if empty.
        take_log, progress: as for `run_placed`.

    Raises:
        FluidgateError: a request is wrong, or the policy lacks what it needs or is given what it has no use for.
        InvariantError: the audit found a broken invariant.
    """
    if published.has_pools and prompt_gpus is None:
        raise FluidgateError(f"{published.name}: say how many GPUs read prompts; best_prompt_gpus finds the number")
    if prompt_gpus is not None and not published.has_pools:
        raise FluidgateError(f"{published.name}: every GPU reads prompts; leave their number out")
    if thresholds and published.threshold == 1:
        raise FluidgateError(f"{published.name}: requests don't accumulate; leave the thresholds out")
    deadline = min((engine.token_deadline, *run.tpot_targets))
    engine = replace(engine, batching=published.batching, token_deadline=deadline)
    pools = None
    if prompt_gpus is not None:
        pools = Pools(prompt_gpus, engine.tokens if published.lends else 0)
    if published.threshold > 1 and not thresholds:
        thresholds = (published.threshold,) * run.classes
    return run_placed(
        blocks,
        engine,
        run,
        placement=published.placement,
        pools=pools,
        thresholds=thresholds,
        take_log=take_log,
        progress=progress,
    )


def best_prompt_gpus(
    stream: Callable[[], Iterable[Requests]], engine: Engine, run: Run, published: Published
) -> tuple[int, dict[int, Any]]:
    """The size of the prompt pool with the most requests within the run's targets; ties to the least mean latency.

    Found by simulation: evenly spaced sizes, at most 15 or so, then those between the neighbours of the best, and so on
    until all of those are tried.

    Args:
        stream: gives the requests of a pilot run, the same every time.

    Returns:
        The size, and by size tried the requests within targets and minus the mean latency in s.

    Raises:
        FluidgateError: the policy has no pools, or there are fewer than 2 GPUs.
    """
    if not published.has_pools:
        raise FluidgateError(f"{published.name}: every GPU reads prompts; there is no ratio to find")
    if run.gpus < 2:
        raise FluidgateError(f"{published.name}: pools for prompts and tokens need at least 2 GPUs")
    tried: dict[int, Any] = {}
    low, high = 1, run.gpus - 1
    while True:
        step = -(-(high - low + 1) // CANDIDATES)
        sizes = range(low, high + 1, step)
        for size in sizes:
            if size not in tried:
                measured = run_published(stream(), engine, run, published, prompt_gpus=size)
                latency = measured.distribution("latency").mean
                tried[size] = (int(measured.within_targets.sum()), -latency if latency is not None else float("-inf"))
        best = max(sizes, key=lambda size: tried[size])
        if step == 1:
            return best, tried
        low, high = max(low, best - step + 1), min(high, best + step - 1)
