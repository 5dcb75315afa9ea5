"""Programs without a solution: what the error says."""

import re

import pytest
from fluid_oracle import FluidOracle, random_scenario, two_class

from fluidgate.errors import InfeasiblePlanError
from fluidgate.model import Indicators
from fluidgate.planning import plan


def patient(scenario, arrival=None):
    """The scenario when nobody ever leaves."""
    update = {"patience_rate": 0.0} | ({} if arrival is None else {"arrival_rate": arrival})
    return scenario.replace(classes=tuple(c.model_copy(update=update) for c in scenario.classes))


def message(scenario, **options):
    with pytest.raises(InfeasiblePlanError) as error:
        plan(scenario, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_classes_over_capacity_are_named_with_the_shortage():
    text = message(patient(two_class()).replace(cluster_gpus=40), gpus=40)
    assert "class 'decode-heavy'" in text
    assert "prefill-heavy" not in text
    assert "use 42 GPUs instead of 40" in text
    multiple = float(re.search(r"need ([\d.]+) times", text)[1])
    unserved = float(re.search(r"at least ([\d.]+) requests/s", text)[1])
    scenario = patient(two_class())
    for k, feasible in ((multiple, True), (multiple * 0.999, False)):
        oracle = FluidOracle(patient(two_class(), arrival=0.5 / k))
        assert (oracle.maximise() is not None) == feasible
    kept = scenario.classes[0].model_copy(update={"arrival_rate": 0.5 - unserved * 1.001})
    assert plan(scenario.replace(classes=(kept, scenario.classes[1]))).served_fraction == pytest.approx([1, 1])


def test_classes_that_can_be_served_are_served():
    best = plan(patient(two_class(), arrival=0.4))
    assert best.served_fraction == pytest.approx([1, 1])
    assert not best.prefill_queue.any()
    assert not best.decode_queue.any()


def test_gpus_that_suffice_are_enough():
    scenario = patient(two_class()).replace(cluster_gpus=40)
    assert plan(scenario, gpus=42).partition.gpus == 42
    message(scenario, gpus=41)


def test_tpot_below_a_solo_step():
    text = message(two_class(max_tpot=0.0220))
    assert "max_tpot 0.022 cannot be met: the least that can is 0.0220023" in text
    assert "looser limit" in text
    assert plan(two_class(max_tpot=0.0220023)).tpot <= 0.0220023 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("max_prefill_gap", 0.01, 0.2), ("max_solo_gap", 0.01, 5.0), ("max_tpot", 0.0222, 0.03)],
)
def test_the_nearest_limit_that_can_be_met(name, low, high):
    scenario = patient(two_class(), arrival=0.3)
    text = message(scenario.replace(indicators=Indicators(**{name: low})))
    nearest = float(re.search(rf"{name} \S+ cannot be met: the least that can is ([\d.]+)", text)[1])
    assert low < nearest < high
    plan(scenario.replace(indicators=Indicators(**{name: nearest})))
    message(scenario.replace(indicators=Indicators(**{name: nearest * (1 - 1e-4)})))


def test_limits_that_cannot_be_met_together():
    scenario = patient(two_class(), arrival=0.3)
    text = message(scenario.replace(indicators=Indicators(max_prefill_gap=0.01, max_solo_gap=0.01)))
    assert "max_prefill_gap" in text
    assert "max_solo_gap" in text


def test_only_the_limit_in_the_way_is_named():
    scenario = patient(two_class(), arrival=0.3)
    text = message(scenario.replace(indicators=Indicators(max_prefill_gap=0.15, max_tpot=0.0222)))
    assert "max_tpot" in text
    assert "max_prefill_gap" not in text


@pytest.mark.parametrize("seed", range(60))
def test_every_failure_is_explained(seed):
    scenario = random_scenario(seed, limits=True, tpot_weight=seed % 3 == 0, forever=True)
    if FluidOracle(scenario).maximise() is None:
        assert re.search(r"use|loosen|set", message(scenario))
