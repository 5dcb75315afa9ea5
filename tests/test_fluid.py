"""Fluid trajectories against the plan they aim at, the simulator at scale, and the ODE itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fluidgate import FluidgateError, FluidState, Trajectory, fluid_trajectory, plan, simulate
from tests.scenarios import two_class_scenario

SCENARIO = two_class_scenario()
PLAN = plan(SCENARIO)
STAGES = tuple(field.name for field in dataclasses.fields(FluidState))


def at_end(path: Trajectory) -> FluidState:
    return FluidState(**{stage: getattr(path, stage)[-1] for stage in STAGES})


@pytest.mark.parametrize("policy", ["gate-and-route", "sli-aware"])
def test_the_plan_is_a_fixed_point(policy: str) -> None:
    path = fluid_trajectory(SCENARIO, PLAN, policy, start=FluidState.of_plan(PLAN), horizon=100)  # type: ignore[arg-type]
    for stage in STAGES:
        assert getattr(at_end(path), stage) == pytest.approx(getattr(PLAN, stage), abs=1e-9)


@pytest.mark.parametrize("policy", ["gate-and-route", "sli-aware"])
def test_any_start_leads_to_the_plan(policy: str) -> None:
    flooded = FluidState(
        prefill_queue=np.array([9.0, 7.0]),
        prefill=np.array([0.1, 0.02]),
        decode_queue=np.array([3.0, 1.0]),
        mixed_decode=np.array([0.0, 1.0]),
        solo_decode=np.array([2.0, 6.0]),
    )
    for start in (FluidState.empty(2), flooded):
        end = at_end(fluid_trajectory(SCENARIO, PLAN, policy, start=start, horizon=800))  # type: ignore[arg-type]
        assert end.prefill == pytest.approx(PLAN.prefill, abs=1e-6)
        assert end.prefill_queue == pytest.approx(PLAN.prefill_queue, abs=1e-3)
        rates = SCENARIO.rates
        done = rates.mixed_decode * end.mixed_decode + rates.solo_decode * end.solo_decode
        assert done == pytest.approx(PLAN.completion_rate, rel=1e-3)


def test_sli_aware_reaches_every_occupancy() -> None:
    end = at_end(fluid_trajectory(SCENARIO, PLAN, "sli-aware", horizon=800))
    for stage in STAGES:
        assert getattr(end, stage) == pytest.approx(getattr(PLAN, stage), abs=1e-3)


def test_starts_where_it_is_told() -> None:
    start = FluidState(*(np.array([0.01 * k, 0.02 * k]) for k in (1, 2, 3, 4, 5)))
    path = fluid_trajectory(SCENARIO, PLAN, start=start, horizon=1.0, points=3)
    for stage in ("prefill_queue", "prefill", "decode_queue"):
        assert getattr(path, stage)[0] == pytest.approx(getattr(start, stage))
    assert path.mixed_decode[0] + path.solo_decode[0] == pytest.approx(start.mixed_decode + start.solo_decode)


def test_capacities_and_balances_hold_on_the_way() -> None:
    """(33)-(35), and the balances (24)-(28) summed over a class: what came in is here, done or gone."""
    step = 1e-3
    path = fluid_trajectory(SCENARIO, PLAN, horizon=20.0, points=20_001, step=step)
    batch, fraction = SCENARIO.gpu.batch_size, path.prefill.sum(axis=1)
    assert fraction.max() <= PLAN.mixed_fraction + 1e-9
    assert np.all(path.mixed_decode.sum(axis=1) <= (batch - 1) * fraction + 1e-9)
    assert np.all(path.solo_decode.sum(axis=1) <= batch * (1 - fraction) + 1e-9)
    rates = SCENARIO.rates
    for stage in STAGES:
        assert getattr(path, stage).min() >= 0.0
    gone = rates.patience * (path.prefill_queue + path.decode_queue)
    done = rates.mixed_decode * path.mixed_decode + rates.solo_decode * path.solo_decode
    present = sum(getattr(path, stage) for stage in STAGES)
    change = np.diff(present, axis=0) / step
    assert change == pytest.approx(rates.arrival - (gone + done)[:-1], abs=1e-6)


def test_queue_decays_to_its_target_as_the_theory_says() -> None:
    """Past the transient `q_p' = theta (q* - q_p)` for classes with a target queue, under gate-and-route."""
    start = FluidState(
        PLAN.prefill_queue + np.array([2.0, 0.0]), PLAN.prefill, PLAN.decode_queue, PLAN.mixed_decode, PLAN.solo_decode
    )
    path = fluid_trajectory(SCENARIO, PLAN, start=start, horizon=30.0, points=31)
    expected = PLAN.prefill_queue[0] + 2.0 * np.exp(-SCENARIO.rates.patience[0] * path.time)
    assert path.prefill_queue[:, 0] == pytest.approx(expected, rel=1e-3)


def test_error_falls_with_the_step() -> None:
    def midway(step: float) -> np.ndarray:
        path = fluid_trajectory(SCENARIO, PLAN, horizon=10.0, points=11, step=step)
        return np.concatenate([getattr(path, stage)[5] for stage in STAGES])

    fine = midway(1e-4)
    coarse, middle = (float(np.abs(midway(step) - fine).max()) for step in (4e-3, 1e-3))
    assert middle < coarse / 3
    assert middle < 1e-3


@pytest.mark.parametrize("policy", ["gate-and-route", "sli-aware"])
def test_the_simulated_path_follows_the_fluid_one(policy: str) -> None:
    """Theorem 3.1 at n = 5000 from an empty cluster: within 3 % of B (decodes), 2 % of a GPU (prefills)."""
    fluid = fluid_trajectory(SCENARIO, PLAN, policy, horizon=60.0, points=61)  # type: ignore[arg-type]
    seen = simulate(SCENARIO, policy, gpus=5000, horizon=60.0, warmup=0.0, replications=1, samples=61).trajectory
    assert seen is not None
    assert seen.prefill == pytest.approx(fluid.prefill, abs=0.02)
    decoding = (seen.mixed_decode + seen.solo_decode, fluid.mixed_decode + fluid.solo_decode)
    assert decoding[0] == pytest.approx(decoding[1], abs=0.03 * SCENARIO.gpu.batch_size)


def test_class_without_target_is_admitted_last() -> None:
    """With room for all, a class that the plan turns away is served only from what the others leave."""
    shy = dataclasses.replace(PLAN, prefill=np.array([PLAN.mixed_fraction, 0.0]))
    path = fluid_trajectory(SCENARIO, shy, horizon=50.0)
    assert path.prefill[-1, 0] == pytest.approx(0.5 / SCENARIO.rates.prefill[0], rel=0.01)
    assert path.prefill[-1, 1] == pytest.approx(PLAN.mixed_fraction - path.prefill[-1, 0], rel=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefill": np.array([0.2, 0.2])}, "start.prefill"),
        ({"solo_decode": np.array([20.0, 0.0])}, "start"),
        ({"mixed_decode": np.array([-1.0, 0.0])}, "start"),
        ({"prefill_queue": np.array([-1.0, 0.0])}, "start"),
    ],
)
def test_impossible_starts_are_refused(changes: dict[str, np.ndarray], message: str) -> None:
    start = dataclasses.replace(FluidState.empty(2), **changes)
    with pytest.raises(FluidgateError, match=message):
        fluid_trajectory(SCENARIO, PLAN, start=start)


def test_bad_options_are_refused() -> None:
    with pytest.raises(FluidgateError, match="horizon"):
        fluid_trajectory(SCENARIO, PLAN, horizon=0.0)
    with pytest.raises(FluidgateError, match="policy: must be 'gate-and-route' or 'sli-aware'"):
        fluid_trajectory(SCENARIO, PLAN, "fi-wsp")  # type: ignore[arg-type]
