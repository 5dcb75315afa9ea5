"""Why a fluid program has no solution, and what mends it."""

from __future__ import annotations

import math

import numpy as np

from fluidgate.errors import one_line
from fluidgate.model import Array
from fluidgate.planning.program import FluidProgram
from fluidgate.planning.wording import listed, rounded_up

_ROUNDING = 1e-9


def explain(program: FluidProgram) -> str:
    """One line: the classes and the capacity that is short, or the limits that cannot be met; and a mend.

    Leaves the program's bounds as its instance sets them.
    """
    reason = _capacity_shortage(program) or _unmet_limits(program)
    program.restore()
    return one_line(f"scenario '{program.instance.scenario.name}': {reason}")


def _capacity_shortage(program: FluidProgram) -> str | None:
    multiple = _gpus_needed(program)
    if multiple <= 1.0 + _ROUNDING:
        return None
    instance = program.instance
    unserved = _least_unserved(program)
    short = np.flatnonzero(unserved > _ROUNDING * instance.rates.arrival)
    largest_first = short[np.argsort(-unserved[short], kind="stable")]
    rates = [f"class '{instance.scenario.classes[i].name}' {unserved[i]:.4g}" for i in largest_first]
    gpus = instance.scenario.cluster_gpus
    more = f"use {math.ceil(gpus * multiple * (1 - _ROUNDING))} GPUs instead of {gpus}, " if gpus else ""
    return (
        f"requests that never leave (patience_rate 0) need {rounded_up(multiple, 4)} times the GPUs there are: "
        f"at least {unserved.sum():.4g} requests/s per GPU stay unserved ({listed(rates)}); "
        f"{more}lower the arrival rates, or set a patience_rate above 0"
    )


def _gpus_needed(program: FluidProgram) -> float:
    """GPUs, for each GPU there is, that the classes with `theta = 0` need."""
    _drop_limits(program)
    program.bound(program.layout.capacity, 0.0, np.inf)
    cost = np.zeros(program.layout.columns)
    cost[program.layout.capacity] = -1.0
    vertex = program.maximise(cost)
    assert vertex is not None, "enough capacity makes any program without limits feasible"
    return float(vertex.columns[program.layout.capacity])


def _least_unserved(program: FluidProgram) -> Array:
    """Requests/s per GPU of the classes with `theta = 0` when most of them are served, shape (classes,)."""
    _drop_limits(program)
    layout, instance = program.layout, program.instance
    must = instance.waits_for_ever
    program.bound(layout.fed, 0.0, np.where(must, instance.load, 0.0))
    cost = np.zeros(layout.columns)
    cost[layout.fed] = instance.rates.mixed_decode
    vertex = program.maximise(cost)
    assert vertex is not None, "serving nobody is feasible"
    served = vertex.columns[layout.fed] * instance.rates.mixed_decode
    return np.where(must, np.maximum(instance.rates.arrival - served, 0.0), 0.0)


def _drop_limits(program: FluidProgram) -> None:
    program.restore()
    for row in _limit_rows(program).values():
        program.relax(row)


def _limit_rows(program: FluidProgram) -> dict[str, int]:
    """Row of each limit that is set."""
    rows = {f"max_{gap.name}": gap.place.row for gap in program.gaps if gap.limit is not None}
    if program.instance.indicators.max_tpot is not None:
        rows["max_tpot"] = program.layout.tpot_row
    return rows


def _unmet_limits(program: FluidProgram) -> str:
    limits = {name: getattr(program.instance.indicators, name) for name in _limit_rows(program)}
    if not limits:
        return "the classes with patience_rate 0 use up the capacity to the last digit; use more GPUs"
    mends = {name: least for name in limits if (least := _least(program, name, keep_others=True)) is not None}
    if not mends:
        alone = {name: _least(program, name, keep_others=False) for name in limits}
        mends = {name: least for name, least in alone.items() if least is not None and least > limits[name]}
        if not mends:
            return f"{' and '.join(limits)} cannot be met together; loosen one or drop one"
        unmet = ", ".join(_unmet(name, limits[name], least) for name, least in mends.items())
        return f"{unmet} (even alone); use looser limits"
    if len(mends) == 1:
        ((name, least),) = mends.items()
        return f"{_unmet(name, limits[name], least)}; set a looser limit, or drop it"
    choice = " or ".join(f"{name} {limits[name]:.9g} to at least {rounded_up(least)}" for name, least in mends.items())
    return f"{' and '.join(limits)} cannot be met together; loosen {choice}"


def _unmet(name: str, limit: float, least: float) -> str:
    return f"{name} {limit:.9g} cannot be met: the least that can is {rounded_up(least)}"


def _least(program: FluidProgram, name: str, *, keep_others: bool) -> float | None:
    """Least value of an indicator, the other limits kept or dropped; None if these cannot be met either."""
    program.restore()
    for other, row in _limit_rows(program).items():
        if other == name or not keep_others:
            program.relax(row)
    layout, tpot = program.layout, program.instance.tpot
    cost = np.zeros(layout.columns)
    if name == "max_tpot":
        cost[layout.fraction] = -math.copysign(1.0, tpot.bend)
        vertex = program.maximise(cost)
        return None if vertex is None else tpot(float(vertex.columns[layout.fraction]))
    gap = next(gap for gap in program.gaps if name == f"max_{gap.name}")
    cost[gap.place.high], cost[gap.place.low] = -1.0, 1.0
    vertex = program.maximise(cost)
    return None if vertex is None else max(0.0, -vertex.objective / gap.unit)
