"""Published serving policies (`fluidgate.policies.PLACED`) on the iteration kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fluidgate.batching import Batching
from fluidgate.errors import FluidgateError
from fluidgate.model import Pricing
from fluidgate.policies.decisions.tables import Placement
from fluidgate.policies.placed import PlacedPolicy, criteria_of
from fluidgate.simulation.iteration.engine import Engine, Pools
from fluidgate.simulation.iteration.law import peak_prefill
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.rules import Placements
from fluidgate.simulation.iteration.run import Progress, Run, TakeLog, run_requests
from fluidgate.workloads.streams import Requests

CANDIDATES = 15
"""Sizes of the prompt pool that one round of `best_prompt_gpus` tries."""
LEVEL = 0.005
"""Sizes that earn this much less than the best, relatively, earn as much: a pilot run tells no more."""


def run_published(
    blocks: Iterable[Requests],
    engine: Engine,
    run: Run,
    policy: PlacedPolicy,
    *,
    rates: Sequence[float] = (),
    take_log: TakeLog | None = None,
    progress: Progress | None = None,
) -> IterationMeasurement:
    """Run a published policy.

    Args:
        blocks: requests in order of arrival, arrays of dtype REQUEST; read as they are needed.
        engine: the GPUs; how they batch is the policy's.
        policy: with its `prompt_gpus` where it has pools, see `best_prompt_gpus`.
        rates: arrival rates by class, in any unit, by which a threshold is shared out; equal if empty.
        take_log, progress: as for `run_requests`.

    Raises:
        FluidgateError: a request is wrong, or the policy lacks what it needs.
        InvariantError: the audit found a broken invariant.
    """
    values = policy.values
    engine = replace(engine, batching=Batching(policy.batching), token_offset=values.get("offset", engine.token_offset))
    thresholds = shared_out(int(values["threshold"]), rates or (1.0,) * run.classes) if "threshold" in values else ()
    rate = peak_prefill(engine.law, engine.tokens) if policy.placement == "sticky" else 0.0
    criteria = criteria_of(policy, rate, min(run.ttft_targets, default=math.inf))
    rules = Placements(Placement.named(policy.placement), pools_of(policy, run.gpus), thresholds, criteria)
    return run_requests(blocks, engine, run, rules, take_log=take_log, progress=progress)


def pools_of(policy: PlacedPolicy, gpus: int) -> Pools | None:
    """The pools of a policy that has some.

    Raises:
        FluidgateError: their size is open, or leaves one of them without a GPU.
    """
    if not policy.has_pools:
        return None
    check_pools(policy, gpus)
    size = int(policy.values["prompt_gpus"])
    if size == 0:
        raise FluidgateError(f"policy '{policy.name}': give its prompt_gpus; best_prompt_gpus finds the number")
    return Pools(size, int(policy.values.get("queue_tokens", 0)), policy.values.get("transfer_price"))


def check_pools(policy: PlacedPolicy, gpus: int) -> None:
    """Refuse a policy whose pools `gpus` GPUs can't fill.

    Raises:
        FluidgateError: naming the mend.
    """
    if not policy.has_pools:
        return
    if gpus < 2:
        raise FluidgateError(
            f"policy '{policy.name}' needs a GPU for prompts and one for decodes; give at least 2 GPUs"
        )
    if policy.values["prompt_gpus"] >= gpus:
        raise FluidgateError(
            f"policy '{policy.name}': parameters.prompt_gpus: {policy.values['prompt_gpus']} of {gpus} GPUs leave none "
            f"for decodes; give at most {gpus - 1}"
        )


def shared_out(threshold: int, rates: Sequence[float]) -> tuple[int, ...]:
    """The threshold of each class, in proportion to its arrival rate, rounded down but at least 1."""
    total = sum(rates)
    return tuple(max(1, int(threshold * rate / total + 1e-9)) for rate in rates)


class Tried(NamedTuple):
    """What a pilot run with one size of the prompt pool gave.

    Attributes:
        earned: requests within targets, or money, while the load lasted.
        latency: mean of those that were completed then, s; inf if there were none.
    """

    earned: float
    latency: float


def best_prompt_gpus(
    stream: Callable[[], Iterable[Requests]],
    engine: Engine,
    run: Run,
    policy: PlacedPolicy,
    pricing: Pricing | None = None,
) -> tuple[int, dict[int, Tried]]:
    """The size of the prompt pool that earns most under load; ties to the least mean latency.

    Counted are the requests within the run's targets, or the money if a pricing is given, while the second half of the
    requests arrives: what a pool that is too small still serves later is not. Less than half a per cent apart is a tie.
    Found by simulation: evenly spaced sizes, at most 15 or so, then those between the
    neighbours of the best, and so on until all of those are tried.

    Args:
        stream: gives the requests of a pilot run, the same every time.

    Returns:
        The size, and what each size tried gave.

    Raises:
        FluidgateError: the policy has no pools, or there are fewer than 2 GPUs.
    """
    if not policy.has_pools:
        raise FluidgateError(f"policy '{policy.name}': every GPU reads prompts; there is no ratio to find")
    check_pools(policy, run.gpus)
    loaded = under_load(stream(), run)
    found = _search(lambda size: _try(size, stream, engine, loaded, policy, pricing), run.gpus)
    if any(each.earned > 0 for each in found[1].values()):
        return found
    return _search(lambda size: _try(size, stream, engine, run, policy, pricing), run.gpus)  # too few to tell


def under_load(blocks: Iterable[Requests], run: Run) -> Run:
    """The run with a window in which the load lasts: the second half of its requests, the first fills the cluster."""
    arrivals = np.concatenate([block["arrival"] for block in blocks] or [np.zeros(0)])
    if len(arrivals) == 0 or not arrivals[len(arrivals) // 2] < arrivals[-1]:
        return run
    return replace(run, warmup=float(arrivals[len(arrivals) // 2]), horizon=float(arrivals[-1]))


def _try(
    size: int,
    stream: Callable[[], Iterable[Requests]],
    engine: Engine,
    run: Run,
    policy: PlacedPolicy,
    pricing: Pricing | None,
) -> Tried:
    measured = run_published(stream(), engine, run, policy.with_parameters({"prompt_gpus": size}))
    earned = measured.within_targets if pricing is None else measured.revenue(pricing)
    latency = measured.distribution("latency").mean
    return Tried(float(earned.sum()), math.inf if latency is None else latency)


def _search(attempt: Callable[[int], Tried], gpus: int) -> tuple[int, dict[int, Tried]]:
    tried: dict[int, Tried] = {}
    low, high = 1, gpus - 1
    while True:
        step = -(-(high - low + 1) // CANDIDATES)
        sizes = range(low, high + 1, step)
        tried |= {size: attempt(size) for size in sizes if size not in tried}
        best = best_of({size: tried[size] for size in sizes})
        if step == 1:
            return best, tried
        low, high = max(low, best - step + 1), min(high, best + step - 1)


def best_of(tried: dict[int, Tried]) -> int:
    """The size that earns most; of those that earn as much but for `LEVEL`, the one of the least latency."""
    most = max(each.earned for each in tried.values())
    level = [size for size, each in tried.items() if each.earned >= (1 - LEVEL) * most]
    return min(level, key=lambda size: (tried[size].latency, -tried[size].earned))
