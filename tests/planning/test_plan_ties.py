"""The choice among optimal plans, model.md, section 3."""

import numpy as np
import pytest
from fluid_oracle import FluidOracle, random_scenario, two_class
from scipy.optimize import minimize

from fluidgate.errors import InfeasiblePlanError
from fluidgate.planning import plan
from fluidgate.planning.projection import nearest_within_gap


@pytest.mark.parametrize("seed", range(100))
def test_least_decode_queue_then_most_solo(seed):
    scenario = random_scenario(seed, limits=seed % 2 == 0, weights=seed % 3 == 0, forever=seed % 5 == 0)
    try:
        best = plan(scenario)
    except InfeasiblePlanError:
        return
    oracle = FluidOracle(scenario)
    least_queue, most_solo = -oracle.row(qd=np.ones(oracle.n)), oracle.row(ys=np.ones(oracle.n))
    optimal = (oracle.linear_objective, best.objective - 1e-9 * max(1e-3, best.revenue_rate))
    queue = -oracle.maximise(least_queue, at_least=[optimal])[0]
    assert best.decode_queue.sum() == pytest.approx(queue, rel=1e-4, abs=1e-4)
    shortest = (least_queue, -best.decode_queue.sum() * (1 + 1e-9) - 1e-9)
    solo = oracle.maximise(most_solo, at_least=[optimal, shortest])[0]
    assert best.solo_decode.sum() == pytest.approx(solo, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_classes_are_split_in_the_same_proportion(seed):
    best = plan(random_scenario(seed))
    if best.solo_decode.any() and best.mixed_decode.any():
        served = (best.mixed_decode + best.solo_decode) > 1e-6
        share = best.solo_probability[served]
        np.testing.assert_allclose(share, share[0], rtol=1e-4)


def test_solo_probability_of_a_class_that_is_not_served():
    best = plan(two_class(max_tpot=0.0221))
    assert not best.prefill[1]
    assert best.solo_probability[1] == 1


def test_split_is_projected_where_the_solo_gap_binds():
    free, bound = plan(two_class(max_solo_gap=16.0)), plan(two_class(max_solo_gap=4.0))
    assert np.ptp(free.solo_decode) > 4
    assert np.ptp(bound.solo_decode) == pytest.approx(4)
    assert bound.objective == pytest.approx(free.objective)  # decode fairness is nearly free
    assert bound.solo_decode.sum() == pytest.approx(free.solo_decode.sum())


@pytest.mark.parametrize("seed", range(30))
def test_projection_against_slsqp(seed):
    r = np.random.default_rng(seed)
    n = int(r.integers(2, 7))
    capacity = r.uniform(0.05, 3, n)
    target = capacity * r.uniform(0.2, 1)
    least = _least_spread(target, capacity)
    gap = least + r.uniform(0.02, 1.0) * (np.ptp(target) - least)
    close = nearest_within_gap(target, capacity, gap)
    assert close.sum() == pytest.approx(target.sum())
    assert (close >= -1e-12).all()
    assert (close <= capacity + 1e-12).all()
    assert np.ptp(close) <= gap + 1e-9
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    reference = minimize(
        lambda y: np.sum((y - target) ** 2),
        close,
        jac=lambda y: 2 * (y - target),
        bounds=[(0, c) for c in capacity],
        constraints=[{"type": "eq", "fun": lambda y: y.sum() - target.sum()}]
        + [{"type": "ineq", "fun": lambda y, i=i, j=j: gap - y[i] + y[j]} for i, j in pairs],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert np.sum((close - target) ** 2) <= reference.fun + 1e-7
    np.testing.assert_allclose(close, reference.x, atol=2e-4)


def _least_spread(target, capacity):
    """Least spread of numbers with the target's sum under the capacities."""
    low, high = 0.0, capacity.max()
    for _ in range(100):
        level = (low + high) / 2
        low, high = (level, high) if np.minimum(capacity, level).sum() < target.sum() else (low, level)
    return high - min(capacity.min(), high)


@pytest.mark.parametrize("seed", range(40))
def test_no_decode_buffer_when_kappa_is_large_enough(seed):
    """Proposition 3.2, bundled."""
    assert plan(random_scenario(seed, kappa="above"), scheme="bundled").decode_buffer_free


def test_a_decode_buffer_may_be_kept_when_kappa_is_small():
    kept = [not plan(random_scenario(seed, kappa="below"), scheme="bundled").decode_buffer_free for seed in range(60)]
    assert any(kept)
