"""The value index against the plan's own duals, and the policy that follows it."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate import Indicators, Scenario, compare, find_policy, plan, simulate
from fluidgate.model import Pricing
from fluidgate.paper.instances import random_instance
from fluidgate.policies import GateRule, RouteRule
from fluidgate.policies.value import (
    FREE,
    binding,
    gate_index,
    is_binding,
    ranked,
    request_cost,
    serves_everyone,
    value_index,
)
from tests.scenarios import two_class_scenario

SCENARIO = two_class_scenario()
OVERLOADED = [s for s in (random_instance(5, k) for k in range(60)) if s.gpu.kappa >= 1]


def test_two_class_index() -> None:
    """Decode-heavy requests are marginal, prefill-heavy ones are worth 3.3 times their slots."""
    assert value_index(plan(SCENARIO)) == pytest.approx([1.0, 3.28892], rel=1e-5)


@pytest.mark.parametrize("scenario", OVERLOADED[:20], ids=lambda s: s.name)
def test_index_tells_who_is_served(scenario: Scenario) -> None:
    """Complementary slackness: above 1 served in full, 1 marginal, below 1 turned away."""
    solved = plan(scenario)
    for index, served in zip(value_index(solved), solved.served_fraction, strict=True):
        if served > 1e-6:
            assert index >= 1 - 1e-6
        if served < 1 - 1e-6:
            assert index <= 1 + 1e-6


@pytest.mark.parametrize(
    "limits", [{}, {"max_tpot": 0.0235}, {"tpot_weight": 30_000.0}], ids=["none", "limit", "weight"]
)
def test_value_less_cost_is_the_flow_price(limits: dict[str, float]) -> None:
    """What one more request per second earns, for classes that are served: the dual of its balance."""
    scenario = SCENARIO.replace(indicators=Indicators(**limits))
    solved = plan(scenario)
    net = scenario.rates.bundled_value - request_cost(solved)
    served = solved.served_fraction > 1e-9
    assert served.any()
    assert net[served] == pytest.approx(solved.flow_price[served], abs=1e-4)


def test_nothing_is_scarce_in_an_empty_cluster() -> None:
    idle = SCENARIO.replace(
        classes=tuple(c.model_copy(update={"arrival_rate": c.arrival_rate / 20}) for c in SCENARIO.classes)
    )
    assert value_index(plan(idle)).tolist() == [FREE, FREE]


def test_mode_follows_the_plan() -> None:
    policy = find_policy("index-and-pool")
    tables = policy.tabulate(plan(SCENARIO), 40)
    assert (tables.gate_rule, tables.route_rule) == (GateRule.VALUE, RouteRule.POOL)
    assert (tables.mixed_gpus, tables.reserve) == (40, False)
    assert tables.max_prefills > 40
    assert tables.priority == pytest.approx(value_index(plan(SCENARIO)))
    separate = SCENARIO.replace(pricing=Pricing(scheme="separate", prompt=0.1, output=0.2))
    overflowing = policy.tabulate(plan(separate), 40)
    assert plan(separate).decode_queue.any()
    assert (overflowing.gate_rule, overflowing.route_rule) == (GateRule.VALUE, RouteRule.BUFFER)


@pytest.mark.parametrize("scheme", ["bundled", "separate"])
def test_gap_is_a_fraction_of_the_papers(scheme: str) -> None:
    """At n = 50 on the two-class instance the gap to R* is under 40 % of that of the paper's policy for the scheme."""
    scenario = SCENARIO.replace(pricing=Pricing(scheme=scheme, prompt=0.1, output=0.2))  # type: ignore[arg-type]
    paper = "gate-and-route" if scheme == "bundled" else "prioritize-and-route"
    result = compare(scenario, [paper, "index-and-pool"], gpus=50, horizon=5000.0, replications=6)
    theirs, ours = (1 - np.array(r.optimality_ratio.values) for r in result.policies)
    assert ours.mean() + 2 * ours.std(ddof=1) / np.sqrt(6) < 0.4 * theirs.mean()


def scaled(load: float, **change: float) -> Scenario:
    classes = tuple(
        c.model_copy(update={"arrival_rate": c.arrival_rate * load, **(change if k == 0 else {})})
        for k, c in enumerate(SCENARIO.classes)
    )
    return SCENARIO.replace(classes=classes)


def test_order_is_the_index_where_someone_is_turned_away() -> None:
    solved = plan(SCENARIO)
    assert not serves_everyone(solved)
    assert gate_index(solved).tolist() == value_index(solved).tolist()


def test_order_below_the_critical_load_weighs_who_leaves_and_what_a_request_is_worth() -> None:
    solved = plan(scaled(0.3))
    assert serves_everyone(solved)
    assert not is_binding(solved)
    at = binding(solved)
    assert is_binding(at)
    load = at.scenario.classes[0].arrival_rate / solved.scenario.classes[0].arrival_rate
    lighter = plan(scaled(0.3 * load / 1.02))
    assert not is_binding(lighter)  # the least such load, to 1 %
    rates = solved.scenario.rates
    assert gate_index(solved) == pytest.approx(value_index(at) * rates.patience * np.sqrt(rates.bundled_value))
    hasty = plan(scaled(0.3, patience_rate=1.0))
    assert gate_index(hasty)[0] / gate_index(hasty)[1] > 9 * gate_index(solved)[0] / gate_index(solved)[1]


def test_a_class_that_never_leaves_goes_last_where_everyone_is_served() -> None:
    assert gate_index(plan(scaled(0.3, patience_rate=0.0)))[0] == 0.0


def test_equal_indices_are_ranked_by_the_second_order() -> None:
    index = np.array([2.0, 1.0, 2.0 * (1 + 1e-9), 3.0])
    assert ranked(index, np.array([5.0, 9.0, 4.0, 0.0])).tolist() == [2.0, 0.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("prices", "limits"),
    [
        (Pricing(scheme="bundled", prompt=0.1, output=0.2), {"max_tpot": 0.0225}),
        (Pricing(scheme="separate", prompt=0.1, output=0.2), {"max_prefill_gap": 0.01}),
        (Pricing(scheme="bundled", prompt=0.0, output=0.0), {}),
        (Pricing(scheme="separate", prompt=0.0, output=0.0), {"max_tpot": 0.0225}),
    ],
    ids=["a TPOT limit", "a gap limit", "no prices", "no prices and a limit"],
)
def test_the_search_for_what_is_scarce_has_an_end(prices: Pricing, limits: dict[str, float]) -> None:
    """A limit that binds before any slot does, or prices under which nothing ever is scarce."""
    reading = SCENARIO.classes[1].model_copy(update={"output_tokens": 50.0, "arrival_rate": 0.05})
    scenario = SCENARIO.replace(classes=(reading,), pricing=prices, indicators=Indicators(**limits))
    index = gate_index(plan(scenario))
    assert np.isfinite(index).all()
    assert index.tolist() == [1.0] or prices.output > 0
    simulated = simulate(scenario, "index-and-pool", gpus=2, horizon=50.0, replications=1)
    assert simulated.events > 0
