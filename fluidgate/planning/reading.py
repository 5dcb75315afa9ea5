"""What a solution of the fluid program says, as a plan."""

from __future__ import annotations

import numpy as np

from fluidgate.batching import Batching
from fluidgate.model import Array
from fluidgate.planning.advice import advice, of_full_chunks
from fluidgate.planning.instance import Instance
from fluidgate.planning.linear_program import Vertex
from fluidgate.planning.partition import partition
from fluidgate.planning.penalty import indicator_values
from fluidgate.planning.plan import Plan
from fluidgate.planning.program import FluidProgram
from fluidgate.wording import all_worded

_ZERO = 1e-9
"""Values under it are 0; prices, too, relative to the dearest slot's value."""

_NOISE = 1e-12
"""Share of a class's load below which a flow is rounding."""


def read_plan(program: FluidProgram, optimum: Vertex, columns: Array, gpus: int | None) -> Plan:
    """The plan in the units of the model.

    Args:
        program: the program.
        optimum: step 1, for the duals.
        columns: the solution among the optimal ones, shape (columns,).
        gpus: GPUs of the cluster, for the partition.
    """
    instance, layout, rates = program.instance, program.layout, program.instance.rates
    fed, lost = columns[layout.fed], columns[layout.lost]
    patience = np.where(rates.patience > 0, rates.patience, np.inf)
    prefill = _clean(fed * instance.prefill_per_slot)
    mixed = _clean(columns[layout.mixed])
    solo = _clean(columns[layout.solo] / instance.kappa)
    decodes = columns[layout.mixed] + columns[layout.solo]
    completion = rates.mixed_decode * np.where(decodes > _ZERO * instance.load, decodes, 0.0)
    fraction = float(prefill.sum())
    hits = instance.scenario.hit_rates
    values = indicator_values(instance.scenario, prefill, solo)
    indicators, prices = _indicators(program, optimum, values, fraction), _shadow_prices(program, optimum)
    groups = partition(fraction, gpus, instance.scenario.engine.data_parallel) if gpus is not None else None
    prefill_cost = _prefill_cost(instance, prices, indicators, fraction)
    return Plan(
        scenario=instance.scenario,
        scheme=instance.scheme,
        batching=Batching.SINGLE_PREFILL,
        rates=rates,
        prefill=prefill,
        mixed_decode=mixed,
        solo_decode=solo,
        prefill_queue=_waiting(instance.load - fed, instance, patience),
        decode_queue=_waiting(lost, instance, patience),
        completion_rate=completion,
        flow_price=_flow_price(program, optimum),
        prefill_cost=prefill_cost,
        hit_price=prefill * rates.prefill * prefill_cost / (1.0 - hits)
        if instance.scenario.engine.prefix_caching
        else None,
        decode_cost=np.minimum(
            prices["mixed_capacity"] / rates.mixed_decode, prices["solo_capacity"] / rates.solo_decode
        ),
        revenue_rate=float(instance.prefill_value @ fed + instance.decode_value @ decodes),
        penalty=float(sum(i["weight"] * i["value"] for i in indicators.values() if "weight" in i)),
        mixed_fraction=fraction,
        kappa=instance.kappa,
        tpot=values["tpot"],
        shadow_prices=prices,
        indicators=indicators,
        slots=float(instance.batch),
        warnings=all_worded((*advice(instance.scenario, groups), *of_full_chunks(instance.scenario))),
        partition=groups,
    )


def _clean(values: Array) -> Array:
    return np.where(values < _ZERO, 0.0, values)


def _waiting(lost: Array, instance: Instance, patience: Array) -> Array:
    """Requests that wait where so many slots' worth of them leave, shape (classes,)."""
    flow = np.where(lost > _NOISE * instance.load, lost, 0.0)
    return _clean(flow * instance.rates.mixed_decode / patience)


def _flow_price(program: FluidProgram, optimum: Vertex) -> Array:
    """The price of the bound `fed <= lambda/mu_m`; a class that waits for ever is served at any price."""
    price = optimum.column_prices[program.layout.fed]
    price = np.where(program.instance.waits_for_ever, price, np.maximum(price, 0.0))
    return np.where(np.abs(price) > _ZERO * optimum.scale, price, 0.0) / program.instance.rates.mixed_decode


def _row_price(optimum: Vertex, row: int) -> float:
    price = float(optimum.row_prices[row])
    return price if abs(price) > _ZERO * optimum.scale else 0.0


def _shadow_prices(program: FluidProgram, optimum: Vertex) -> dict[str, float]:
    layout, kappa = program.layout, program.instance.kappa
    return {
        "prefill_capacity": _row_price(optimum, layout.prefill_capacity_row),
        "mixed_capacity": _row_price(optimum, layout.mixed_capacity_row),
        "solo_capacity": _row_price(optimum, layout.solo_capacity_row) * kappa,
    }


def _prefill_cost(
    instance: Instance, prices: dict[str, float], indicators: dict[str, dict[str, float]], fraction: float
) -> Array:
    """Shadow cost of one prefill, shape (classes,).

    It holds one prefill slot, gives up `B` solo slots and brings `B - 1` mixed ones, for `1/mu_p`; and it costs what a
    unit of `sum x` costs through the indicators on the average TPOT, (47) and (48).
    """
    batch, slope = instance.batch, instance.tpot.slope(fraction)
    weight = indicators.get("tpot_weight", {}).get("weight", 0.0)
    price = indicators.get("max_tpot", {}).get("shadow_price", 0.0)
    rate = prices["prefill_capacity"] - (batch - 1) * prices["mixed_capacity"] + batch * prices["solo_capacity"]
    return np.asarray((rate + (weight + price) * slope) / instance.rates.prefill)


def _indicators(
    program: FluidProgram, optimum: Vertex, values: dict[str, float], fraction: float
) -> dict[str, dict[str, float]]:
    """Limits with their shadow prices, then penalties, from the `values` of the gaps and the TPOT."""
    instance, indicators = program.instance, program.instance.indicators
    prices = {gap.name: _row_price(optimum, gap.place.row) * gap.unit for gap in program.gaps}
    slots = 1.0 - fraction / instance.batch
    prices["tpot"] = _row_price(optimum, program.layout.tpot_row) * instance.scenario.gpu.gamma * slots
    limits = {name: getattr(indicators, f"max_{name}") for name in values}
    weights = {name: getattr(indicators, f"{name}_weight") for name in values}
    return {
        f"max_{name}": {"limit": limit, "value": values[name], "shadow_price": prices[name]}
        for name, limit in limits.items()
        if limit is not None
    } | {f"{name}_weight": {"weight": weight, "value": values[name]} for name, weight in weights.items() if weight}
