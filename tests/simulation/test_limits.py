"""index-and-pool holds the limits of a scenario, at both fidelities, at 97 % of the plan's revenue or more."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate import Indicators, Planner, Scenario, find_policy, simulate
from fluidgate.model import Pricing
from fluidgate.paper.instances import random_instance
from fluidgate.policies.decisions.tables import RouteRule
from fluidgate.simulation import SimulationResult
from tests.scenarios import two_class_scenario

HELD = 1.05
EARNED = 0.97


def limited(scenario: Scenario, scheme: str = "bundled", **limits: float) -> Scenario:
    pricing = Pricing(scheme=scheme, prompt=0.1, output=0.2)  # type: ignore[arg-type]
    return scenario.replace(pricing=pricing, indicators=Indicators(**limits))


SCENARIOS = {
    "prefill gap": limited(two_class_scenario(), max_prefill_gap=0.12),
    "solo gap": limited(two_class_scenario(), max_solo_gap=2.0),
    "tpot": limited(two_class_scenario(), max_tpot=0.0235),
    "all three": limited(two_class_scenario(), max_prefill_gap=0.12, max_solo_gap=2.0, max_tpot=0.0235),
    "tpot and gap, four classes of one index": limited(random_instance(3, 3), max_prefill_gap=0.0707, max_tpot=0.0224),
    "all three, four classes": limited(
        random_instance(3, 31), max_prefill_gap=0.0616, max_solo_gap=8.83, max_tpot=0.0333
    ),
    "tpot, paid apart": limited(random_instance(3, 12), "separate", max_tpot=0.0214),
    "solo gap, paid apart": limited(random_instance(3, 22), "separate", max_solo_gap=3.11),
    "all three, three classes": limited(
        random_instance(3, 1), max_prefill_gap=0.0418, max_solo_gap=10.7, max_tpot=0.0337
    ),
}


def run(scenario: Scenario, policy: str, gpus: int, fidelity: str) -> SimulationResult:
    return simulate(scenario, policy, gpus=gpus, fidelity=fidelity, horizon=3000.0, replications=2, seed=7)


@pytest.mark.parametrize("fidelity", ["markov", "iteration"])
@pytest.mark.parametrize("gpus", [20, 50])
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_held_without_losing_revenue(name: str, gpus: int, fidelity: str) -> None:
    scenario = SCENARIOS[name]
    result = run(scenario, "index-and-pool", gpus, fidelity)
    assert set(result.indicators) == set(Planner().solve(scenario).indicators)
    for indicator in result.indicators.values():
        assert indicator.value.mean is not None
        assert indicator.value.mean <= HELD * indicator.limit
    assert result.objective_ratio.mean is not None
    assert result.objective_ratio.mean >= EARNED


def test_a_limit_that_does_not_bind_costs_nothing() -> None:
    free = two_class_scenario()
    loose = limited(free, max_prefill_gap=0.5, max_solo_gap=12.0, max_tpot=0.03)
    for fidelity in ("markov", "iteration"):
        with_limits, without = (run(each, "index-and-pool", 20, fidelity) for each in (loose, free))
        assert with_limits.revenue_rate.mean == pytest.approx(without.revenue_rate.mean, rel=0.01)


def test_equal_occupancies_where_the_limit_is_nothing() -> None:
    scenario = limited(two_class_scenario(), max_prefill_gap=0.0)
    result = run(scenario, "index-and-pool", 20, "markov")
    x = [c.prefill.mean or 0.0 for c in result.classes]
    assert x[0] == pytest.approx(x[1], rel=0.01)
    assert (result.revenue_rate.mean or 0.0) >= EARNED * Planner().solve(scenario).revenue_rate


def test_one_gpu_starves_nobody() -> None:
    """The time to come lets them start, though nobody else's event does."""
    for limits in ({"max_prefill_gap": 0.0}, {"max_solo_gap": 0.0}, {"max_tpot": 0.02201}):
        scenario = limited(two_class_scenario(), **limits)
        for fidelity in ("markov", "iteration"):
            result = run(scenario, "index-and-pool", 1, fidelity)
            assert sum(c.completion_rate.mean or 0.0 for c in result.classes) > 0.0, limits


def test_a_gap_that_one_pool_cannot_keep_keeps_decodes_apart() -> None:
    policy, planner = find_policy("index-and-pool"), Planner()
    apart = policy.tabulate(planner.solve(SCENARIOS["solo gap"]), 20)
    assert apart.route_rule == RouteRule.APART
    assert apart.beside.tolist() == [True, False]
    assert 4 <= apart.mixed_gpus <= 7
    pooled = policy.tabulate(planner.solve(limited(two_class_scenario(), max_solo_gap=6.0)), 20)
    assert pooled.route_rule == RouteRule.POOL
    assert pooled.limited


def test_an_audited_run_says_the_same() -> None:
    found = [
        simulate(
            SCENARIOS["all three"], "index-and-pool", gpus=5, horizon=100.0, replications=1, fidelity=fidelity,
            audited=audited,
        ).revenue_rate.mean
        for fidelity in ("markov", "iteration")
        for audited in (False, True)
    ]  # fmt: skip
    assert found[0] == found[1]
    assert found[2] == found[3]


def test_results_report_limits_and_values() -> None:
    result = run(SCENARIOS["all three"], "sli-aware", 20, "markov")
    body = result.to_dict()["indicators"]
    assert body["max_solo_gap"]["limit"] == 2.0
    gaps = np.ptp([c.solo_decode.mean or 0.0 for c in result.classes])
    assert body["max_solo_gap"]["value"]["mean"] == pytest.approx(gaps, rel=1e-9)
    assert gaps > 2.0 * HELD
