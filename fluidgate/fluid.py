"""Fluid trajectories: the ODE of [LDHZ] (24)-(35) under gate-and-route and under the SLI-aware policy.

The state moves in explicit Euler steps, after each of which the policy fills what is free: prefill slots by least
`x_i/x*_i` among the classes that wait, decode slots as the router does. A steady state of the ODE stays where it is for
any step; transients are right to first order in the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
from numba import njit

from fluidgate.arguments import checked
from fluidgate.compiled import kept
from fluidgate.errors import FluidgateError
from fluidgate.model import AnyScenario, Array, Scenario
from fluidgate.planning import Plan
from fluidgate.shown import rate, several
from fluidgate.trajectory import Trajectory

NOTHING = 1e-15
"""Mass below which nobody waits, requests per GPU."""

FluidPolicy = Literal["gate-and-route", "sli-aware"]


@dataclass(frozen=True, repr=False)
class FluidState:
    """Occupancies and queues per GPU, each of shape (classes,)."""

    prefill_queue: Array
    prefill: Array
    decode_queue: Array
    mixed_decode: Array
    solo_decode: Array

    def __repr__(self) -> str:
        held = ", ".join(f"{f.name} {rate(float(getattr(self, f.name).sum()))}" for f in fields(self))
        return f"<FluidState of {several(len(self.prefill), 'class')}: {held}>"

    @staticmethod
    @checked
    def empty(classes: int) -> FluidState:
        """A cluster with nobody in it."""
        return FluidState(*(np.zeros(classes) for _ in range(5)))

    @staticmethod
    @checked
    def of_plan(plan: Plan) -> FluidState:
        """The steady state that a plan aims at."""
        return FluidState(plan.prefill_queue, plan.prefill, plan.decode_queue, plan.mixed_decode, plan.solo_decode)


@checked
def fluid_trajectory(
    scenario: AnyScenario,
    plan: Plan,
    policy: FluidPolicy = "gate-and-route",
    *,
    start: FluidState | None = None,
    horizon: float = 200.0,
    points: int = 401,
    step: float | None = None,
) -> Trajectory:
    """The fluid path of a policy that follows `plan`, from any start.

    The mixed group is `sum x*` of the cluster. Outside the steady state a share `sum x / sum x*` of its decodes runs at
    the mixed speed (an approximation: model.md, section 2). A buffer that empties in part keeps its mix of classes.

    Args:
        start: state at time 0, an empty cluster by default. How its decodes are spread over the two groups follows
            from the approximation above, so that their sum over the modes is kept, class by class.
        horizon: s.
        points: how many epochs are returned, evenly over the horizon.
        step: s; by default a twentieth of the shortest mean service time.

    Raises:
        FluidgateError: the start breaks a capacity (33)-(35), or an option is out of range.
    """
    scenario = Scenario.of(scenario)
    if policy not in get_args(FluidPolicy):
        raise FluidgateError(f"fluid policy: must be one of {', '.join(get_args(FluidPolicy))}, but is '{policy}'")
    if not 0 < horizon < math.inf or points < 2 or (step is not None and not 0 < step < math.inf):
        raise FluidgateError("fluid trajectory: horizon and step must be above 0 s and finite, and points at least 2")
    rates = plan.rates.of_demand(scenario.rates)
    fastest = max(rates.prefill.max(), rates.solo_decode.max(), rates.mixed_decode.max(), rates.patience.max())
    interval = horizon / (points - 1)
    steps = int(np.ceil(interval / (step or 0.05 / fastest)))
    state = _grouped(scenario, plan, start or FluidState.empty(len(scenario.classes)))
    path = fluid_kernel(
        state,
        points,
        steps,
        interval / steps,
        float(scenario.gpu.batch_size),
        np.ascontiguousarray(plan.prefill),
        np.ascontiguousarray(plan.solo_probability),
        policy == "sli-aware",
        np.stack([rates.arrival, rates.patience, rates.prefill, rates.mixed_decode, rates.solo_decode]),
    )
    time, names = np.linspace(0.0, horizon, points), tuple(scenario.class_names)
    return Trajectory(time, path[:, 0], path[:, 1], path[:, 2], path[:, 3], path[:, 4], names)


def _grouped(scenario: Scenario, plan: Plan, start: FluidState) -> Array:
    """Rows q_p, x, buffer of the mixed side, buffer of the solo side, decodes of the mixed group, of the solo group."""
    batch, group = scenario.gpu.batch_size, plan.mixed_fraction
    fraction = float(start.prefill.sum())
    if fraction > group * (1 + 1e-9):
        raise FluidgateError(f"start.prefill: sums to {fraction:g}, above the mixed group of {group:g}; lower it")
    decodes = start.mixed_decode + start.solo_decode
    running = fraction / group if group > 0 else 0.0
    in_mixed = np.minimum(start.mixed_decode / running, decodes) if running > 0 else np.zeros_like(decodes)
    in_solo = decodes - in_mixed
    over = float(in_solo.sum()) - batch * (1.0 - group)
    if over > 0:
        moved = in_solo * (over / in_solo.sum())
        in_mixed, in_solo = in_mixed + moved, in_solo - moved
    room = (batch - 1) * group * (1 + 1e-9) + 1e-12
    if any(getattr(start, field.name).min() < 0 for field in fields(start)) or in_mixed.sum() > room:
        raise FluidgateError("start: must be at least 0, and its decodes must fit the partition, (33)-(35); lower them")
    solo = plan.solo_probability
    return np.stack(
        [
            start.prefill_queue,
            start.prefill,
            start.decode_queue * (1.0 - solo),
            start.decode_queue * solo,
            in_mixed,
            in_solo,
        ]
    )


def _fluid_path(state, points, steps, dt, batch, target, solo_share, split, rates):
    """Euler steps of the grouped state; returns q_p, x, q_d, y_m, y_s at the points, shape (points, 5, classes)."""
    classes = state.shape[1]
    group = target.sum()
    path = np.zeros((points, 5, classes))
    waiting, prefill, mixed_buffer = state[0], state[1], state[2]
    solo_buffer, mixed, solo = state[3], state[4], state[5]
    arrival, patience, mu_prefill, mu_mixed, mu_solo = rates[0], rates[1], rates[2], rates[3], rates[4]
    for point in range(points):
        running = min(1.0, prefill.sum() / group) if group > 0.0 else 0.0
        path[point, 0] = waiting
        path[point, 1] = prefill
        path[point, 2] = mixed_buffer + solo_buffer
        path[point, 3] = running * mixed
        path[point, 4] = solo + (1.0 - running) * mixed
        for _ in range(steps):
            running = min(1.0, prefill.sum() / group) if group > 0.0 else 0.0
            finished = dt * mu_prefill * prefill
            mixed -= dt * (running * mu_mixed + (1.0 - running) * mu_solo) * mixed
            solo -= dt * mu_solo * solo
            waiting += dt * (arrival - patience * waiting)
            prefill -= finished
            mixed_buffer -= dt * patience * mixed_buffer
            solo_buffer -= dt * patience * solo_buffer

            solo_room = batch * (1.0 - group) - solo.sum()
            mixed_room = (batch - 1.0) * group - mixed.sum()
            if split:
                to_solo = finished * solo_share
                finished -= to_solo
                place(solo_buffer, to_solo, solo, solo_room)
                solo_buffer += to_solo
                place(mixed_buffer, finished, mixed, mixed_room)
                mixed_buffer += finished
            else:
                mixed_buffer += solo_buffer
                solo_buffer[:] = 0.0
                place(mixed_buffer, finished, solo, solo_room)
                place(mixed_buffer, finished, mixed, mixed_room)
                mixed_buffer += finished
            admit(waiting, prefill, target, group - prefill.sum())
    return path


@njit(nogil=True, error_model="numpy")
def place(buffer, fresh, decodes, room):
    """Move up to `room` into `decodes`, from the buffer first, then from the fresh completions."""
    pour(fresh, decodes, pour(buffer, decodes, room))


@njit(nogil=True, error_model="numpy")
def pour(source, decodes, room):
    """Move up to `room` from `source` into `decodes`, each class in proportion; returns the room left."""
    available = source.sum()
    if room <= 0.0 or available <= 0.0:
        return room
    share = min(1.0, room / available)
    decodes += share * source
    source *= 1.0 - share
    return room - share * available


@njit(nogil=True, error_model="numpy")
def admit(waiting, prefill, target, room):
    """The occupancy gate: raise the least `x/x*` among the classes that wait until `room` is used up."""
    while room > NOTHING:
        level = np.full(len(waiting), np.inf)
        for i in range(len(waiting)):
            if waiting[i] > 0.0 and target[i] > 0.0:
                level[i] = prefill[i] / target[i]
        least = level.min()
        if not np.isfinite(least):
            break
        lowest = level <= least + 1e-12 * max(least, 1.0)
        rise = room / np.where(lowest, target, 0.0).sum()
        for i in range(len(waiting)):  # the lowest rise together, to the next level or until one no longer waits
            rise = min(rise, waiting[i] / target[i] if lowest[i] else level[i] - least)
        admitted = np.where(lowest, rise * target, 0.0)
        prefill += admitted
        waiting[:] = np.where(waiting - admitted > NOTHING, waiting - admitted, 0.0)
        room -= admitted.sum()
    if room > NOTHING:  # classes without a target, once nobody else waits
        available = waiting.sum()
        if available > 0.0:
            share = min(1.0, room / available)
            prefill += share * waiting
            waiting *= 1.0 - share


fluid_kernel = kept(_fluid_path, allocates=True)
