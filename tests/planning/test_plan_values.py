"""Plans against the numbers of evaluation.md and against linprog."""

import json

import numpy as np
import pytest
from fluid_oracle import FluidOracle, random_scenario, request_class, two_class, with_rates

from fluidgate.errors import InfeasiblePlanError
from fluidgate.model import Indicators
from fluidgate.planning import Planner, plan

CAPACITIES = ("prefill_capacity", "mixed_capacity", "solo_capacity")


def drawn(seed):
    """Random scenarios of every kind: limits, penalties, both and neither; classes that never leave."""
    return random_scenario(seed, limits=seed % 2 == 0, weights=seed % 3 == 0, forever=seed % 5 == 0)


def planned(scenario):
    """The plan, or None where there is none."""
    try:
        return plan(scenario)
    except InfeasiblePlanError:
        return None


def test_two_class_bundled():
    best = plan(two_class(), gpus=500)
    assert best.revenue_rate == pytest.approx(297.70316986424, rel=1e-9)
    assert best.mixed_fraction == pytest.approx(0.213211446, abs=1e-8)
    assert best.shadow_prices["prefill_capacity"] == 0
    assert best.shadow_prices["mixed_capacity"] == pytest.approx(6.83902, abs=1e-5)
    assert best.shadow_prices["solo_capacity"] == pytest.approx(10.34206, abs=1e-5)
    assert best.tpot == pytest.approx(0.0242853, abs=1e-7)
    assert (best.partition.mixed, best.partition.solo) == (107, 393)
    assert best.partition.prefill_utilisation == pytest.approx(0.9963, abs=1e-4)
    assert best.decode_buffer_free


def test_two_class_separate():
    best = plan(two_class(), scheme="separate")
    assert best.revenue_rate == pytest.approx(298.58655675, rel=1e-9)
    assert not best.decode_buffer_free
    assert plan(two_class("separate"), allow_decode_buffer=False).decode_buffer_free


def test_prices_of_tpot():
    price = lambda limit: plan(two_class(max_tpot=limit)).indicators["max_tpot"]["shadow_price"]  # noqa: E731
    assert price(0.0224) == pytest.approx(91_000, rel=0.02)
    assert price(0.0221) == pytest.approx(558_000, rel=0.002)
    assert price(0.0245) == 0


@pytest.mark.parametrize("seed", range(150))
def test_objective_and_feasibility_against_linprog(seed):
    scenario = drawn(seed)
    oracle, best = FluidOracle(scenario), planned(scenario)
    reference = oracle.maximise()
    assert (best is None) == (reference is None)
    if best is not None:
        assert best.objective == pytest.approx(reference[0], rel=1e-9, abs=1e-9 * best.revenue_rate)
        assert oracle.violation(best) < 1e-9
        assert best.revenue_rate == pytest.approx(oracle.revenue @ oracle.point(best), rel=1e-9)
        assert best.mixed_fraction == pytest.approx(best.prefill.sum(), rel=1e-9)


@pytest.mark.parametrize("seed", range(60))
def test_prices_against_finite_differences(seed):
    """The objective is concave in a right-hand side: its price lies between the two one-sided slopes."""
    scenario = drawn(seed)
    best = planned(scenario)
    if best is None:
        return

    def check(price, perturbed, step):
        values = [FluidOracle(s, extra=extra).maximise() for s, extra in map(perturbed, (-step, 0.0, step))]
        if None in values:
            return
        left, right = ((values[k + 1][0] - values[k][0]) / step for k in range(2))
        slack = 1e-5 * max(abs(left), abs(right)) + 1e-10 * abs(best.revenue_rate) / step
        assert min(left, right) - slack <= price <= max(left, right) + slack

    nothing = (0.0, 0.0, 0.0)
    for k, name in enumerate(CAPACITIES):
        check(
            best.shadow_prices[name],
            lambda h, k=k: (scenario, tuple(h * (j == k) for j in range(3))),
            step=1e-5,
        )
    for i, c in enumerate(scenario.classes):
        rate = c.arrival_rate
        check(
            best.flow_price[i],
            lambda h, i=i, rate=rate: (with_rates(scenario, i, rate + h), nothing),
            1e-5 * rate,
        )
    for name, entry in best.indicators.items():
        if "limit" in entry:

            def loosened(h, name=name, limit=entry["limit"]):
                update = scenario.indicators.model_copy(update={name: limit + h})
                return scenario.replace(indicators=update), nothing

            check(entry["shadow_price"], loosened, 1e-5 * entry["limit"])


def test_indicator_entries():
    best = plan(two_class(max_solo_gap=2.0, max_tpot=0.0245, prefill_gap_weight=3.0, tpot_weight=100.0))
    assert list(best.indicators) == ["max_solo_gap", "max_tpot", "prefill_gap_weight", "tpot_weight"]
    assert best.indicators["max_solo_gap"]["value"] == pytest.approx(2.0)
    assert best.indicators["max_solo_gap"]["shadow_price"] > 0
    assert best.penalty == pytest.approx(3 * np.ptp(best.prefill) + 100 * best.tpot)
    assert best.objective == pytest.approx(best.revenue_rate - best.penalty)
    assert plan(two_class(max_solo_gap=2.0), with_indicators=False).indicators == {}


def test_penalties_alone_keep_the_decode_buffer():
    assert not plan(two_class("separate", solo_gap_weight=1e-3)).decode_buffer_free
    for limit in ({"max_prefill_gap": 1.0}, {"max_solo_gap": 16.0}, {"max_tpot": 1.0}):
        assert plan(two_class("separate", **limit)).decode_buffer_free


@pytest.mark.parametrize("scheme", ["bundled", "separate"])
def test_lengths_that_differ_widely(scheme):
    classes = (request_class("write", 28, 12000, 1e-4, 0.1), request_class("read", 12000, 28, 2.0, 0.1))
    scenario = two_class(scheme).replace(classes=classes)
    assert plan(scenario).objective == pytest.approx(FluidOracle(scenario).maximise()[0], rel=1e-10)


@pytest.mark.parametrize("scheme", ["bundled", "separate"])
@pytest.mark.parametrize("batch", [1, 2])
def test_small_batches(scheme, batch):
    scenario = two_class(scheme)
    scenario = scenario.replace(gpu=scenario.gpu.model_copy(update={"batch_size": batch}))
    best = plan(scenario)
    assert best.objective == pytest.approx(FluidOracle(scenario).maximise()[0], rel=1e-10)
    if batch == 1:
        assert not best.mixed_decode.any()
        assert best.tpot == pytest.approx(1 / 45.45)


def test_one_class_and_no_prices():
    scenario = two_class()
    one = scenario.replace(classes=scenario.classes[:1], indicators=Indicators(max_prefill_gap=0.0))
    assert plan(one).objective == pytest.approx(FluidOracle(one).maximise()[0])
    free = scenario.replace(pricing=scenario.pricing.model_copy(update={"prompt": 0.0, "output": 0.0}))
    assert plan(free).objective == 0


def test_a_cluster_shares_its_load():
    scenario = two_class().replace(cluster_gpus=10)
    shared = plan(scenario, gpus=20)
    assert shared.scenario.classes[0].arrival_rate == 0.25
    assert shared.partition.gpus == 20


def test_json_is_the_contracts():
    record = json.loads(plan(two_class(max_tpot=0.0245), gpus=500).to_json())
    assert list(record) == [
        "schema", "scenario", "scheme", "revenue_rate", "penalty", "objective", "mixed_fraction", "kappa",
        "tpot", "decode_buffer_free", "shadow_prices", "indicators", "partition", "iteration", "classes", "warnings",
    ]  # fmt: skip
    assert list(record["classes"][0]) == [
        "name", "prefill", "mixed_decode", "solo_decode", "prefill_queue", "decode_queue", "completion_rate",
        "served_fraction", "flow_price",
    ]  # fmt: skip
    assert set(record["indicators"]["max_tpot"]) == {"limit", "value", "shadow_price"}
    assert "partition" not in plan(two_class()).to_dict()


def test_dataframe_has_a_row_for_each_class():
    frame = plan(two_class()).to_dataframe()
    assert list(frame["name"]) == ["decode-heavy", "prefill-heavy"]
    assert frame["served_fraction"].between(0, 1 + 1e-12).all()


def test_warnings():
    assert any("no margin" in w for w in plan(two_class(), gpus=500).warnings)
    assert plan(two_class()).warnings == ()
    slow = two_class().gpu.iteration.model_copy(update={"gamma": 20.0})
    scenario = two_class()
    scenario = scenario.replace(gpu=scenario.gpu.model_copy(update={"iteration": slow}))
    warnings = plan(scenario).warnings
    assert any("decode buffer on purpose" in w for w in warnings)
    assert any("calibrated range" in w for w in warnings)


def test_nothing_is_printed(capfd):
    plan(two_class(tpot_weight=1e4))
    assert capfd.readouterr() == ("", "")


def test_a_planner_gives_what_plan_gives():
    """Loads, GPU, prices, lengths, limits and number of classes all change from one scenario to the next."""
    planner, scenarios = (
        Planner(),
        [two_class(), two_class("separate", max_solo_gap=2.0), two_class(max_tpot=0.01)],
    )
    faster = two_class().gpu.iteration.model_copy(update={"alpha": 0.01, "gamma": 50.0})
    for seed in range(40):
        base = drawn(seed // 4)
        r = np.random.default_rng(seed)
        for i, c in enumerate(base.classes):
            base = with_rates(base, i, c.arrival_rate * r.uniform(0.9, 1.1))
        scenarios.append(base)
    scenarios += [s.replace(gpu=s.gpu.model_copy(update={"iteration": faster})) for s in scenarios[:10]]
    for scenario in scenarios:
        cold = planned(scenario)
        if cold is None:
            with pytest.raises(InfeasiblePlanError):
                planner.solve(scenario)
            continue
        hot = planner.solve(scenario)
        assert hot.objective == pytest.approx(cold.objective, rel=1e-9)
        for name in ("prefill", "mixed_decode", "solo_decode", "prefill_queue", "decode_queue"):
            np.testing.assert_allclose(getattr(hot, name), getattr(cold, name), rtol=1e-7, atol=1e-8)


def many_classes(count, seed=0):
    r = np.random.default_rng(seed)
    lengths = np.exp(r.uniform(np.log(28), np.log(12000), (count, 2)))
    classes = tuple(
        request_class(str(i), *lengths[i], r.uniform(0.1, 1) / count, r.uniform(0.01, 1)) for i in range(count)
    )
    return two_class().replace(classes=classes)


@pytest.mark.parametrize("scheme", ["bundled", "separate"])
@pytest.mark.parametrize("limits", [{}, {"max_prefill_gap": 0.003, "max_solo_gap": 0.1}, {"tpot_weight": 4e4}])
def test_a_thousand_classes(scheme, limits):
    """A hot re-solve agrees with a cold one; the best of a few takes far less than a second."""
    scenario = many_classes(1000).replace(indicators=Indicators(**limits))
    planner = Planner()
    planner.solve(scenario, scheme=scheme)
    r = np.random.default_rng(1)
    classes = tuple(
        c.model_copy(update={"arrival_rate": c.arrival_rate * r.uniform(0.98, 1.02)}) for c in scenario.classes
    )
    hot, cold = (
        planner.solve(scenario.replace(classes=classes), scheme=scheme),
        plan(scenario.replace(classes=classes), scheme=scheme),
    )
    assert hot.objective == pytest.approx(cold.objective, rel=1e-9)
    np.testing.assert_allclose(hot.prefill, cold.prefill, atol=1e-9)
    np.testing.assert_allclose(hot.solo_decode, cold.solo_decode, atol=1e-8)
