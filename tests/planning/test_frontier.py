"""Frontiers against the claims of evaluation.md, section 6.4 (Figure 8), and against themselves."""

import csv
import io
import json

import numpy as np
import pytest
from fluid_oracle import random_scenario, two_class

from fluidgate.errors import FluidgateError, InfeasiblePlanError
from fluidgate.model import Indicators
from fluidgate.planning import frontier, plan
from fluidgate.planning.frontier import LIMITS

R = 297.70316986424
LEAST_TPOT = 1 / 45.45


def test_tpot_costs_more_and_more():
    """In steps: 558,000 per second of TPOT under some 0.0222 s, 91,000 above, 66,000 at the end."""
    found = frontier(two_class(), "max_tpot", points=201)
    assert found.least_limit == pytest.approx(LEAST_TPOT, rel=1e-9)
    assert found.free_limit == pytest.approx(plan(two_class()).tpot, rel=1e-9)
    assert (found.objective[0], found.objective[-1]) == pytest.approx((0, R), abs=1e-6)
    price, limit = found.shadow_price, found.limit
    assert price[limit < 0.02219] == pytest.approx(558_000, rel=0.003)
    assert price[(limit > 0.0223) & (limit < 0.0240)] == pytest.approx(91_000, rel=0.015)
    assert price[(limit > 0.0241) & (limit < found.free_limit - 1e-6)] == pytest.approx(65_900, rel=0.003)
    assert price[-1] == 0


def test_the_tpot_frontier_is_not_quite_linear_between_its_breakpoints():
    """`X <= B (eta - 1/gamma)/(tau (B-1) - B/gamma + eta)` where (47) binds: linear in X, not in eta."""
    found = frontier(two_class(), "max_tpot", low=0.0224, high=0.0238, points=15)
    batch, tau, gamma = 16, 0.0174 + 6.2e-5 * 256, 45.45
    slope = batch * tau * (batch - 1) * (1 - 1 / (gamma * tau)) / (tau * (batch - 1) - batch / gamma + found.limit) ** 2
    per_fraction = found.shadow_price / slope
    assert per_fraction == pytest.approx(np.full(15, per_fraction[0]), rel=1e-9)
    assert found.shadow_price[0] / found.shadow_price[-1] > 1.01
    assert (found.price_below > found.price_above).all()


def test_below_a_solo_step_nothing_can_be_planned():
    with pytest.raises(InfeasiblePlanError, match=r"max_tpot 0\.022 cannot be met: the least that can is 0\.0220023"):
        frontier(two_class(), "max_tpot", low=0.022)


def test_prefill_fairness_is_expensive():
    found = frontier(two_class(), "max_prefill_gap")
    assert found.least_limit == 0
    assert found.objective[0] == pytest.approx(134.0, abs=1e-6)  # 55 % of R* lost
    assert found.free_limit == pytest.approx(np.ptp(plan(two_class()).prefill), rel=1e-6)
    assert (found.shadow_price[:-1] > 600).all()


def test_decode_fairness_is_free_over_a_wide_range():
    found = frontier(two_class(), "max_solo_gap", low=0.0, high=16.0, points=65)
    assert found.free_limit == pytest.approx(3.788, abs=1e-3)  # the plan's own split, unconstrained, is at 5.05
    free = found.limit >= found.free_limit
    assert found.objective[free] == pytest.approx(R)
    assert not found.shadow_price[free].any()
    assert found.objective[0] > 0.86 * R


@pytest.mark.parametrize("name", LIMITS)
def test_each_price_is_a_slope(name):
    found = frontier(two_class(), name)
    assert found.price_confirmed.all()
    inner = slice(1, -1)
    assert found.shadow_price[inner] == pytest.approx(found.price_above[inner], rel=1e-3)
    assert np.isnan(found.price_below[0])
    assert found.price_below[-1] > 100 * found.price_above[-1]  # the end of the default range is a breakpoint
    assert np.all(np.diff(found.shadow_price) <= 1e-6)  # concave
    assert np.all(np.diff(found.objective) > 0)
    assert (found.value <= found.limit * (1 + 1e-9) + 1e-9).all()


def test_a_wrong_price_is_noticed():
    found = frontier(two_class(), "max_solo_gap", points=5)
    object.__setattr__(found, "shadow_price", found.shadow_price * 1.01)
    assert found.price_confirmed.tolist() == [True, False, False, False, True]  # any price from 10.6 up at the least


@pytest.mark.parametrize("seed", range(36))
def test_random_scenarios(seed):
    scenario = random_scenario(
        seed, limits=seed % 4 == 0, weights=seed % 3 == 0, kappa="below" if seed % 2 else "above", forever=seed % 5 == 0
    )
    name = LIMITS[seed % 3]
    try:
        found = frontier(scenario, name, points=7)
    except InfeasiblePlanError:
        with pytest.raises(InfeasiblePlanError):
            plan(scenario.replace(indicators=scenario.indicators.model_copy(update={name: None})))
        return
    except FluidgateError:  # a limit that costs nothing: the next test
        found = frontier(
            scenario, name, high=max(0.1, 2 * scenario.gpu.tau, 2 / scenario.gpu.iteration.gamma), points=3
        )
        assert found.free_limit == found.least_limit
        assert np.ptp(found.objective) <= 1e-9 * np.abs(found.objective).max()
        return
    assert found.price_confirmed.all()
    scale = np.abs(found.objective).max()
    assert np.all(np.diff(found.objective) >= -1e-9 * scale)
    assert found.unlimited_objective >= found.objective[-1] - 1e-9 * scale
    if found.least_limit > 0:
        tighter = scenario.indicators.model_copy(update={name: found.least_limit * (1 - 1e-5)})
        with pytest.raises(InfeasiblePlanError):
            plan(scenario.replace(indicators=tighter))


def test_pieces_bend_upwards_when_kappa_is_below_1():
    """TPOT then falls in the mixed fraction, and costs something only beside another indicator."""
    slow = two_class().gpu.iteration.model_copy(update={"gamma": 10.0})
    scenario = two_class(prefill_gap_weight=1000.0)
    scenario = scenario.replace(gpu=scenario.gpu.model_copy(update={"iteration": slow}))
    found = frontier(scenario, "max_tpot", points=9)
    assert scenario.gpu.kappa < 1
    assert found.price_confirmed.all()
    assert (found.price_below < found.price_above)[1:-1].all()
    assert (np.diff(found.shadow_price[:-1]) > 0).all()


def test_the_other_indicators_stay_and_the_own_limit_goes():
    scenario = two_class(max_solo_gap=2.0, max_tpot=0.0223, tpot_weight=1000.0)
    found = frontier(scenario, "max_tpot", points=3)
    alone = plan(scenario.replace(indicators=Indicators(max_solo_gap=2.0, tpot_weight=1000.0)))
    assert found.unlimited_objective == pytest.approx(alone.objective)
    assert found.objective[-1] == pytest.approx(alone.objective)
    assert found.revenue_rate[-1] == pytest.approx(alone.revenue_rate)
    assert found.revenue_rate[-1] > found.objective[-1]


def test_a_limit_empties_the_decode_buffer():
    found = frontier(two_class("separate"), "max_prefill_gap", points=3)
    assert found.unlimited_objective == pytest.approx(298.58655675)
    assert found.objective[-1] < found.unlimited_objective - 0.1


def test_a_cluster_shares_its_load():
    cluster = two_class().replace(cluster_gpus=10)
    more = frontier(cluster, "max_tpot", points=3, gpus=20)
    assert more.objective[-1] < frontier(cluster, "max_tpot", points=3).objective[-1]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("max_tpott", {}, r"indicator: no limit is named 'max_tpott'; did you mean 'max_tpot'\?"),
        ("max_tpot", {"points": 1}, "points: must be from 2 to 10000, but is 1"),
        ("max_tpot", {"low": 0.03}, r"high: 0\.0242852963 is not above low=0\.03; give a larger limit"),
        ("max_tpot", {"high": 0.02}, r"high: 0\.02 is not above the least limit that can be met, 0\.0220022002,"),
        ("max_tpot", {"low": float("nan")}, "low: must be at least 0 and finite, but is nan"),
        ("max_solo_gap", {"high": float("inf")}, "high: must be at least 0 and finite"),
    ],
)
def test_arguments(name, options, message):
    with pytest.raises(FluidgateError, match=message):
        frontier(two_class(), name, **options)


def test_a_limit_that_costs_nothing():
    one = two_class().replace(classes=two_class().classes[:1])
    with pytest.raises(FluidgateError, match="max_prefill_gap costs nothing from the least limit"):
        frontier(one, "max_prefill_gap")
    flat = frontier(one, "max_prefill_gap", high=0.1, points=3)
    assert np.ptp(flat.objective) == pytest.approx(0, abs=1e-9)


def test_records():
    found = frontier(two_class(), "max_tpot", points=4)
    record = json.loads(found.to_json())
    assert (record["schema"], record["indicator"], len(record["points"])) == (1, "max_tpot", 4)
    assert record["points"][0]["price_below"] is None
    assert record["points"][1]["price_below"] > 0
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [float(row["limit"]) for row in rows] == found.limit.tolist()
    assert (rows[0]["schema"], rows[0]["scenario"], rows[0]["price_below"]) == ("1", "two-class", "")
    assert found.to_dataframe()["price_below"].isna().tolist() == [True, False, False, False]
