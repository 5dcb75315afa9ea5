"""The penalty on the average time per output token (48), which is not linear."""

from itertools import pairwise

import numpy as np
import pytest
from fluid_oracle import FluidOracle, random_scenario, two_class, with_rates

from fluidgate.errors import InfeasiblePlanError
from fluidgate.planning import plan
from fluidgate.planning.tpot import AverageTpot, Tangent, best_mixed_fraction


class Roof:
    """A concave piecewise linear `V` over 0..1, and its tangents."""

    def __init__(self, seed):
        r = np.random.default_rng(seed)
        inside = np.sort(r.uniform(0, 1, int(r.integers(0, 12))))
        self.places = np.concatenate([[0.0], inside, [1.0]])
        slopes = np.sort(r.normal(0, 1, len(self.places) - 1))[::-1]
        self.heights = np.concatenate([[1.0], 1.0 + np.cumsum(slopes * np.diff(self.places))])
        self.touched = 0

    def touch(self, slope):
        self.touched += 1
        top = int(np.argmax(self.heights - slope * self.places))
        return Tangent(self.places[top], self.heights[top], slope)

    def at(self, fraction):
        return np.interp(fraction, self.places, self.heights)


@pytest.mark.parametrize("tau", [0.04, 0.021, 0.02, 0.019, 0.006])
@pytest.mark.parametrize("seed", range(40))
def test_search_against_a_fine_grid(tau, seed):
    """`kappa` on both sides of 1, 1/gamma being 0.02 s."""
    r = np.random.default_rng(1000 + seed)
    tpot = AverageTpot(int(r.choice([2, 8, 64])), tau, 50.0)
    weight = np.exp(r.uniform(-3, 3)) / max(1e-4, abs(tpot(1.0) - tpot(0.0)))
    roof = Roof(seed)
    best = best_mixed_fraction(roof.touch, tpot, weight)
    grid = np.concatenate([np.linspace(0, 1, 20001), roof.places])
    values = roof.at(grid) - weight * tpot(grid)
    reached = roof.at(best) - weight * tpot(best)
    assert reached >= values.max() - 1e-11 * (1 + weight)
    assert reached <= values.max() + 1e-6 * (1 + np.ptp(values)) * (1 + weight * abs(tpot.slope(1.0)))
    assert roof.touched <= 4 * len(roof.places)


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("kappa", ["above", "below"])
def test_penalised_plan_against_a_grid(kappa, seed):
    scenario = random_scenario(seed, kappa=kappa, limits=seed % 2 == 0, weights=seed % 3 == 0, tpot_weight=True)
    try:
        best = plan(scenario)
    except InfeasiblePlanError:
        return
    oracle, weight = FluidOracle(scenario), scenario.indicators.tpot_weight
    scale = max(1.0, abs(best.objective), best.penalty)
    assert best.objective >= oracle.penalised(points=25) - 1e-9 * scale
    there = oracle.maximise(fraction=best.mixed_fraction)[0] - weight * oracle.f(best.mixed_fraction)
    assert best.objective == pytest.approx(there, abs=1e-8 * scale)
    assert oracle.violation(best) < 1e-9


@pytest.mark.parametrize("weight", [1e3, 3e4, 9e4, 92e3, 3e5, 1e6])
def test_prices_beside_the_penalty(weight):
    """Envelope theorem: the prices are those of the penalised objective."""
    scenario = two_class(tpot_weight=weight)
    best = plan(scenario)
    for i, c in enumerate(scenario.classes):
        step = 1e-5
        more, less = (plan(with_rates(scenario, i, c.arrival_rate + h)).objective for h in (step, -step))
        right, left = (more - best.objective) / step, (best.objective - less) / step
        assert right - 1e-2 <= best.flow_price[i] <= left + 1e-2


def test_a_stationary_point_inside_a_straight_piece():
    """Between the weights at which an end of the piece is best, the optimum moves along it."""
    low, high = plan(two_class(max_tpot=0.0223)), plan(two_class(max_tpot=0.0240))
    price = 0.5 * (low.indicators["max_tpot"]["shadow_price"] + high.indicators["max_tpot"]["shadow_price"])
    fractions = [plan(two_class(tpot_weight=price * k)).mixed_fraction for k in np.linspace(0.9, 1.1, 41)]
    inside = [x for x in fractions if 0.0195 + 1e-6 < x < 0.2132]
    assert len(set(np.round(inside, 9))) > 3
    assert all(a >= b - 1e-9 for a, b in pairwise(fractions))


def test_average_tpot():
    tpot = AverageTpot(16, 0.033272, 45.45)
    assert tpot(0.0) == pytest.approx(1 / 45.45)
    assert tpot(1.0) == pytest.approx(0.033272)
    assert tpot.slope(0.3) == pytest.approx((tpot(0.3 + 1e-6) - tpot(0.3 - 1e-6)) / 2e-6, rel=1e-6)
    assert AverageTpot(1, 0.03, 50.0)(1.0) == pytest.approx(0.02)
