"""What a solution in token rates says, as a plan."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fluidgate.model import Array
from fluidgate.planning.advice import advice
from fluidgate.planning.batches.instance import BatchInstance
from fluidgate.planning.batches.solve import Solution
from fluidgate.planning.partition import partition
from fluidgate.planning.plan import Plan
from fluidgate.wording import all_worded

_ZERO = 1e-9
"""Values under it are 0."""


def read_plan(instance: BatchInstance, solution: Solution, gpus: int | None) -> Plan:
    """The plan in the units of the model, occupancies where the operating point runs.

    Args:
        gpus: GPUs of the cluster, for the partition.
    """
    flows, running, prices = solution.flows, solution.running, solution.prices
    completion = flows.fed - flows.lost
    values = solution.values()
    groups = partition(running.mixed_share, gpus, instance.scenario.engine.data_parallel) if gpus is not None else None
    earned = float(instance.earned_reading @ flows.fed + instance.earned_ending @ completion)
    revenue = earned if solution.limited else max(earned, solution.objective)
    indicators = _indicators(instance, solution, values)
    return Plan(
        scenario=instance.scenario,
        scheme=instance.scheme,
        batching=instance.batching,
        rates=running.rates(instance),
        prefill=_clean(flows.fed * running.prefill_seconds),
        mixed_decode=_clean(flows.mixed * running.mixed_seconds),
        solo_decode=_clean(flows.solo * running.solo_seconds),
        prefill_queue=_waiting(instance.arrival - flows.fed, instance),
        decode_queue=_waiting(flows.lost, instance),
        completion_rate=completion,
        flow_price=prices.flow,
        prefill_cost=prices.prefill,
        decode_cost=prices.decode,
        hit_price=prices.hits,
        request_seconds=running.request_seconds(instance),
        revenue_rate=revenue,
        penalty=float(sum(entry["weight"] * entry["value"] for entry in indicators.values() if "weight" in entry)),
        mixed_fraction=running.mixed_share,
        kappa=running.mixed_seconds / running.solo_seconds,
        tpot=running.point.tpot,
        shadow_prices=_shadow_prices(instance, solution),
        indicators=indicators,
        slots=_slots(instance),
        operating_point=running.point,
        warnings=all_worded((*advice(instance.scenario, groups), *_beyond(earned, revenue))),
        partition=groups,
    )


def _beyond(earned: float, revenue: float) -> Iterator[str]:
    if revenue > earned * (1.0 + 1e-6):
        yield (
            "the law has mixed iterations that, but for their prompt tokens, are faster than solo ones: R* counts them "
            f"as the law says; with a chunk in each, what runs earns {earned:.6g}. Tables of measured times are not so"
        )


def _clean(values: Array) -> Array:
    return np.where(values < _ZERO, 0.0, values)


def _waiting(lost: Array, instance: BatchInstance) -> Array:
    """Requests that wait where so many a second leave, shape (classes,)."""
    patience = np.where(instance.patience > 0.0, instance.patience, np.inf)
    return _clean(np.where(lost > _ZERO * instance.arrival, lost, 0.0) / patience)


def _slots(instance: BatchInstance) -> float:
    """Decodes of a GPU at most: B, or as many as its memory holds at the mean of the classes."""
    tokens = instance.arrival * instance.decodes
    held = float(instance.held @ tokens / tokens.sum()) if tokens.sum() > 0.0 else 0.0
    return max(1.0, min(float(instance.batch_size), instance.room / held if held > 0.0 else np.inf))


def _shadow_prices(instance: BatchInstance, solution: Solution) -> dict[str, float]:
    """By resource, and those of [LDHZ]'s three capacities at the operating point.

    A mixed slot is room for `1/tau_m` decode tokens/s, a solo slot for `1/tau_s`; a second of a GPU that may hold a
    prefill is worth what it is worth beyond its B solo slots.
    """
    rows, running = solution.prices.rows, solution.running
    mixed_slots = rows.get("mixed_slots", 0.0) + rows.get("prompts_fit", 0.0)
    mixed = mixed_slots / running.mixed_seconds
    solo = rows.get("solo_slots", 0.0) / running.solo_seconds
    prices = {
        "prefill_capacity": _least(rows.get("time", 0.0) - instance.batch_size * solo, rows.get("time", 0.0)),
        "mixed_capacity": mixed,
        "solo_capacity": solo,
        "time": rows.get("time", 0.0),
        "mixed_slots": mixed_slots,
        "solo_slots": rows.get("solo_slots", 0.0),
        "chunks": rows.get("chunks", 0.0) + rows.get("chunks_end", 0.0),
    }
    if np.isfinite(instance.memory):
        prices["memory"] = solution.prices.memory
    return prices


def _least(difference: float, of: float) -> float:
    return difference if difference > _ZERO * of else 0.0


def _indicators(instance: BatchInstance, solution: Solution, values: dict[str, float]) -> dict[str, dict[str, float]]:
    """Limits with their shadow prices, then penalties."""
    given, rows = instance.indicators, solution.prices.rows
    tokens = float(solution.flows.mixed.sum() + solution.flows.solo.sum())
    units = {"prefill_gap": 1.0, "solo_gap": 1.0, "tpot": tokens}
    limits = {
        f"max_{name}": {
            "limit": limit,
            "value": values[name],
            "shadow_price": rows.get(f"max_{name}", 0.0) * units[name],
        }
        for name in values
        if (limit := getattr(given, f"max_{name}")) is not None
    }
    weights = {
        f"{name}_weight": {"weight": weight, "value": values[name]}
        for name in values
        if (weight := getattr(given, f"{name}_weight"))
    }
    return limits | weights
