"""The rule: when a plan is solved again, and from what."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fluidgate import find_policy, plan
from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.replanning import Replanner, Replanning, Timetable
from fluidgate.replanning.replanner import same_tables
from tests.scenarios import two_class_scenario

GPUS = 20
POLICIES = ("gate-and-route", "sli-aware-general", "prioritize-and-route", "index-and-pool")


def feed(replanner: Replanner, rates: dict[int, float], since: float, until: float) -> None:
    """Arrivals of each class at even gaps, at so many a second over the cluster."""
    events = [(float(t), cls) for cls, rate in rates.items() for t in np.arange(since + 0.5 / rate, until, 1.0 / rate)]
    for epoch, cls in sorted(events):
        replanner.estimator.arrived(cls, epoch)


@pytest.mark.parametrize("policy", POLICIES)
def test_estimates_equal_to_the_plans_inputs_change_nothing(policy: str) -> None:
    """Nothing seen for no time: the estimates are the prior; and again from a hot start."""
    scenario = two_class_scenario()
    replanner = Replanner(scenario, find_policy(policy), GPUS, Replanning(period=1e-12, look=1e-12))
    before = replanner.tables
    for k in range(1, 4):
        solved = replanner.look(1e-12 * k)
        assert solved is not None
        assert not solved.changed
        assert replanner.tables is before
    chosen = find_policy(policy)
    scheme, allow = chosen.program.key(scenario)
    cold = chosen.tabulate(plan(scenario, gpus=GPUS, scheme=scheme, allow_decode_buffer=allow), GPUS)
    assert same_tables(before, cold)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_plan_solved_hot_is_the_plan_solved_cold(policy: str) -> None:
    replanner = Replanner(two_class_scenario(), find_policy(policy), GPUS, Replanning(period=20.0, window=30.0))
    for k, mix in enumerate(({0: 18.0, 1: 2.0}, {0: 2.0, 1: 25.0}, {0: 10.0, 1: 10.0})):
        feed(replanner, mix, 20.0 * k, 20.0 * (k + 1))
        now = 20.0 * (k + 1)
        solved = replanner.look(now)
        assert solved is not None
        fresh = Replanner(replanner.estimator.scenario_at(now), find_policy(policy), GPUS)
        for one, other in zip(solved.tables, fresh.tables, strict=True):
            assert np.allclose(one, other, rtol=1e-6, atol=1e-6)


def test_the_mixed_group_follows_the_prompts() -> None:
    replanner = Replanner(two_class_scenario(), find_policy("gate-and-route"), GPUS, Replanning(window=30.0))
    small = int(replanner.tables.mixed_gpus)
    feed(replanner, {0: 2.0, 1: 28.0}, 0.0, 100.0)
    solved = replanner.look(100.0)
    assert solved is not None
    assert solved.changed
    assert replanner.tables.mixed_gpus > 1.5 * small


def test_a_plan_is_solved_when_it_is_old_or_the_load_has_moved() -> None:
    scenario = two_class_scenario()
    own = dict(enumerate(scenario.rates.arrival * GPUS))
    replanner = Replanner(scenario, find_policy("gate-and-route"), GPUS, Replanning(period=45.0, look=10.0))
    epochs = []
    for k in range(1, 10):
        feed(replanner, own, 10.0 * (k - 1), 10.0 * k)
        assert replanner.next_look == 10.0 * k
        if replanner.look(10.0 * k) is not None:
            epochs.append(10.0 * k)
    assert epochs == [50.0], "the load is as planned: by age alone"
    feed(replanner, {0: own[0] * 4.0, 1: own[1]}, 90.0, 99.0)
    assert replanner.look(99.0) is not None
    assert replanner.look(99.5) is None, "the plan is for this load now"
    assert replanner.next_look > 99.5


def test_a_change_within_the_noise_does_not_count() -> None:
    scenario = two_class_scenario()
    classes = tuple(c.model_copy(update={"arrival_rate": c.arrival_rate / GPUS}) for c in scenario.classes)
    quiet = scenario.replace(classes=classes)
    rule = Replanning(period=math.inf, window=30.0)
    replanner = Replanner(quiet, find_policy("gate-and-route"), GPUS, rule)
    feed(replanner, {0: 0.5, 1: 0.7}, 0.0, 30.0)  # 0.2/s more than planned: one and a half standard deviations
    load = replanner.estimator.at(30.0)
    assert load.arrival[1] > 1.1 * quiet.rates.arrival[1]
    assert replanner.look(30.0) is None
    bold = Replanner(quiet, find_policy("gate-and-route"), GPUS, Replanning(period=math.inf, window=30.0, deviations=0))
    feed(bold, {0: 0.5, 1: 0.7}, 0.0, 30.0)
    assert bold.look(30.0) is not None


def endless() -> Scenario:
    """Nobody leaves: over capacity there is no plan."""
    scenario = two_class_scenario()
    classes = tuple(
        c.model_copy(update={"patience_rate": 0.0, "arrival_rate": 0.2 * c.arrival_rate}) for c in scenario.classes
    )
    return scenario.replace(classes=classes)


def test_a_load_beyond_the_capacity_of_those_who_never_leave_has_a_plan() -> None:
    replanner = Replanner(endless(), find_policy("gate-and-route"), GPUS, Replanning(window=20.0))
    feed(replanner, {0: 60.0, 1: 60.0}, 0.0, 100.0)
    solved = replanner.look(100.0)
    assert solved is not None
    assert solved.tables.mixed_gpus > 0
    assert replanner.kept == 0


def test_where_there_is_no_plan_at_all_the_one_in_force_stays() -> None:
    """Mixed iterations faster than solo ones, and a limit on TPOT that asks for prefills: without load none is met."""
    scenario = two_class_scenario()
    slow = scenario.gpu.iteration.model_copy(update={"gamma": 20.0})
    gpu = scenario.gpu.model_copy(update={"iteration": slow})
    limit = scenario.indicators.model_copy(update={"max_tpot": 0.047})
    replanner = Replanner(
        scenario.replace(gpu=gpu, indicators=limit), find_policy("gate-and-route"), GPUS, Replanning(window=10.0)
    )
    before = replanner.tables
    assert replanner.look(1000.0) is None
    assert replanner.kept == 1
    assert replanner.tables is before


def test_a_timetable_gives_each_scenario_its_turn() -> None:
    scenario = two_class_scenario()
    other = scenario.replace(
        classes=(scenario.classes[0], scenario.classes[1].model_copy(update={"arrival_rate": 1.2}))
    )
    parts = [(0.0, scenario), (10.0, scenario), (20.0, other)]
    table = Timetable(parts, find_policy("gate-and-route"), GPUS)
    first = table.tables
    assert table.next_look == 10.0
    table.look(10.0)
    assert table.tables is first
    table.look(20.0)
    assert table.tables.mixed_gpus > first.mixed_gpus
    assert table.next_look == math.inf


@pytest.mark.parametrize("wrong", [{"period": 0.0}, {"look": 0.0}, {"look": math.inf}, {"moved": -1.0}])
def test_rules_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(FluidgateError, match="replanning"):
        Replanning(**wrong)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("follows", [True, False])
def test_a_plan_for_a_cluster_of_another_size_is_the_one_made_for_it(policy: str, follows: bool) -> None:
    """Whatever the sizes on the way; the load is the cluster's, seen or foreseen, and fewer GPUs share it."""
    rule = Replanning(window=30.0) if follows else Replanning(period=math.inf, moved=math.inf)
    replanner = Replanner(two_class_scenario(), find_policy(policy), GPUS, rule)
    if follows:
        feed(replanner, {0: 18.0, 1: 2.0}, 0.0, 30.0)
    for gpus in (GPUS - 1, 3, GPUS - 5):
        replanner.resize(gpus, 30.0)
        assert replanner.gpus == gpus
    assert replanner.solved == 3
    load = replanner.estimator.scenario_at(30.0) if follows else two_class_scenario()
    share = 1.0 if follows else GPUS / gpus
    classes = tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * share}) for c in load.classes)
    fresh = Replanner(load.replace(classes=classes), find_policy(policy), gpus)
    for one, other in zip(replanner.tables, fresh.tables, strict=True):
        assert np.allclose(one, other, rtol=1e-6, atol=1e-6)


def test_estimates_of_a_cluster_that_changes_are_per_gpu_that_is_left() -> None:
    replanner = Replanner(two_class_scenario(), find_policy("gate-and-route"), GPUS, Replanning(window=30.0))
    feed(replanner, {0: 20.0, 1: 4.0}, 0.0, 300.0)
    whole = replanner.estimator.at(300.0).arrival
    replanner.resize(GPUS // 2, 300.0)
    assert replanner.estimator.at(300.0).arrival == pytest.approx(2.0 * whole)
    assert replanner.look(300.1) is None, "the plan is for this load already"
