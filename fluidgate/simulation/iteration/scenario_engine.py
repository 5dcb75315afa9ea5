"""From a scenario to the engine of the iteration model, and its targets."""

from __future__ import annotations

import math
from typing import TypedDict

from fluidgate.batching import DISCIPLINES, Batching
from fluidgate.errors import FluidgateError
from fluidgate.model import BatchingName, Scenario
from fluidgate.policies import PlacedPolicy, Policy
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.law import law_of


def check_batching(scenario: Scenario, policy: Policy | PlacedPolicy) -> None:
    """Refuse a policy that needs another way of batching than the one that the scenario's engines know.

    Raises:
        FluidgateError: naming the key and the mend.
    """
    known, needed = scenario.engine.batching, policy.batching
    if scenario.engine.async_scheduling and isinstance(policy, Policy):
        raise FluidgateError(
            f"engine.async_scheduling: not simulated under policy '{policy.name}', which gives GPUs their requests "
            "between two iterations; leave it out, or name a policy that places them as they arrive"
        )
    if scenario.engine.data_parallel > 1 and isinstance(policy, PlacedPolicy) and policy.has_pools:
        raise FluidgateError(
            f"engine.data_parallel: not simulated under policy '{policy.name}', which lets a GPU read for another; "
            "leave it out, or name a policy without pools"
        )
    if known is not None and known != needed:
        raise FluidgateError(
            f"policy '{policy.name}' needs {needed} batching, but the scenario has engine.batching = \"{known}\"; "
            "remove that key, or name another policy"
        )


def engine_of(scenario: Scenario, batching: BatchingName) -> Engine:
    """A GPU of the scenario that batches in one way.

    A discipline that keeps to a deadline takes the least TPOT target.

    Raises:
        FluidgateError: a number of [engine] does not go with that way, or it needs a target that is not there.
    """
    return Engine(
        law_of(scenario.gpu),
        scenario.gpu.batch_size,
        _tokens(scenario, batching),
        Batching(batching),
        scenario.engine,
        _token_deadline(scenario) if DISCIPLINES[Batching(batching)].keeps_deadline else math.inf,
    )


class Targets(TypedDict):
    """Targets of a `Run`, by their names there."""

    ttft_targets: tuple[float, ...]
    tpot_targets: tuple[float, ...]


def targets_of(scenario: Scenario) -> Targets:
    """The targets of TTFT and TPOT for a `Run`, inf where there is none."""
    return {"ttft_targets": _or_none(scenario.ttft_targets), "tpot_targets": _or_none(scenario.tpot_targets)}


def _or_none(targets: tuple[float | None, ...]) -> tuple[float, ...]:
    return tuple(math.inf if target is None else target for target in targets)


def _token_deadline(scenario: Scenario) -> float:
    """The least TPOT target of all classes, s."""
    targets = [target for target in scenario.tpot_targets if target is not None]
    if not targets:
        raise FluidgateError(
            "targets.tpot: last-schedulable batching (slai) keeps to the least TPOT target, but there is none; give one"
        )
    return min(targets)


def _tokens(scenario: Scenario, batching: BatchingName) -> int:
    """Tokens of an iteration."""
    gpu, budget, known = scenario.gpu, scenario.engine.max_batched_tokens, DISCIPLINES[Batching(batching)]
    if budget is None or known.by_policy:
        return known.default_tokens(gpu.batch_size, gpu.chunk_size)
    return budget
