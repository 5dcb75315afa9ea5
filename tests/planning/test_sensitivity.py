"""Sweeps and heat maps against plan, and the claims of evaluation.md, section 6.4 (Figures 9 and 10)."""

import json

import numpy as np
import pytest
from fluid_oracle import two_class

from fluidgate.errors import FluidgateError
from fluidgate.model import Indicators
from fluidgate.planning import heat_map, plan, sweep

R = 297.70316986424
SLACK = 1e-7
"""Of objectives of some 300: where one does not change, its solutions differ by rounding."""


def test_gains_in_batch_size_level_off_near_16():
    found = sweep(two_class(), "gpu.batch_size", range(1, 41))
    gains = np.diff(found.objective)
    assert (gains[:15] > 9).all()
    assert gains[16:] == pytest.approx(0, abs=SLACK)  # from 17 on all the load is served
    assert found.objective[-1] == pytest.approx(305.0)
    assert found.objective[15] > 0.97 * found.objective[-1]


def test_revenue_falls_steeply_in_beta():
    found = sweep(two_class(), "gpu.iteration.beta", np.geomspace(1e-5, 1e-3, 21))
    assert np.all(np.diff(found.objective) <= SLACK)
    assert found.objective[0] == pytest.approx(305.0)
    assert found.objective[-1] < 0.45 * found.objective[0]


def test_alpha_and_gamma():
    assert np.all(np.diff(sweep(two_class(), "gpu.iteration.alpha", np.linspace(0.005, 0.03, 11)).objective) <= SLACK)
    assert np.all(np.diff(sweep(two_class(), "gpu.iteration.gamma", np.linspace(30, 60, 11)).objective) >= -SLACK)


def test_on_a_line_of_prices_the_best_ratio_is_a_corner():
    """`R*` is convex and homogeneous of degree 1 in the prices: the best point of any segment is an end."""
    for total in (0.1, 0.3, 1.0):
        shares = np.linspace(0, 1, 11)
        along = [
            heat_map(two_class(), "pricing.prompt", [total * s], "pricing.output", [total * (1 - s)]).objective[0, 0]
            for s in shares
        ]
        assert np.all(np.diff(along, 2) >= -SLACK)
        assert np.argmax(along) in (0, 10)
        assert np.argmax(along) == 10  # all on the prompt, here, whatever the total
        assert np.array(along) / total == pytest.approx(np.array(along_one(shares)), rel=1e-9)


def along_one(shares):
    scenario = two_class()
    prices = [scenario.pricing.model_copy(update={"prompt": s, "output": 1 - s}) for s in shares]
    return [plan(scenario.replace(pricing=p)).objective for p in prices]


def test_a_heat_map_is_a_plan_at_each_pair():
    batches, betas = [8, 16, 24], np.array([3e-5, 6.2e-5])
    found = heat_map(two_class(), "gpu.batch_size", batches, "gpu.iteration.beta", betas)
    assert found.objective.shape == (2, 3)
    for row, beta in enumerate(betas):
        for column, batch in enumerate(batches):
            gpu = two_class().gpu
            gpu = gpu.model_copy(
                update={"batch_size": batch, "iteration": gpu.iteration.model_copy(update={"beta": beta})}
            )
            best = plan(two_class().replace(gpu=gpu))
            assert found.objective[row, column] == pytest.approx(best.objective, rel=1e-9)
            assert found.tpot[row, column] == pytest.approx(best.tpot, rel=1e-9)
            assert found.mixed_fraction[row, column] == pytest.approx(best.mixed_fraction, abs=1e-9)


@pytest.mark.parametrize(
    ("field", "value", "changed"),
    [
        ("gpu.batch_size", 12, lambda s: s.gpu.batch_size),
        ("gpu.chunk_size", np.int64(512), lambda s: s.gpu.chunk_size),
        ("gpu.batch_size", np.float64(12.0), lambda s: s.gpu.batch_size),
        ("pricing.output", 0.5, lambda s: s.pricing.output),
        ("pricing.scheme", "separate", lambda s: s.pricing.scheme),
        ("indicators.max_solo_gap", 2.0, lambda s: s.indicators.max_solo_gap),
        ("classes[1].prompt_tokens", 2000.0, lambda s: s.classes[1].prompt_tokens),
        ("classes.prefill-heavy.patience_rate", 0.0, lambda s: s.classes[1].patience_rate),
    ],
)
def test_a_field_is_set(field, value, changed, monkeypatch):
    seen = []
    monkeypatch.setattr("fluidgate.planning.sensitivity._solved", lambda planner, s: (seen.append(s), (None, "no"))[1])
    sweep(two_class(), field, [value])
    assert changed(seen[0]) == value
    assert isinstance(changed(seen[0]), type(changed(two_class())) if changed(two_class()) is not None else float)


def test_all_classes_are_set_or_scaled():
    scenario = two_class()
    uneven = scenario.replace(
        classes=(scenario.classes[0], scenario.classes[1].model_copy(update={"arrival_rate": 0.25}))
    )
    set_to = sweep(uneven, "classes.*.arrival_rate", [0.5])
    scaled = sweep(uneven, "classes.*.arrival_rate", [1.0, 0.5], scale=True)
    assert set_to.objective[0] == pytest.approx(R)
    assert scaled.objective[0] == pytest.approx(plan(uneven).objective)
    assert scaled.objective[1] < scaled.objective[0]
    assert scaled.scale
    assert scaled.values == (1.0, 0.5)


def test_a_class_whose_name_has_dots():
    classes = (two_class().classes[0].model_copy(update={"name": "qwen2.5"}), two_class().classes[1])
    found = sweep(two_class().replace(classes=classes), "classes.qwen2.5.arrival_rate", [0.5])
    assert found.objective[0] == pytest.approx(R)


def test_gpus_share_the_load():
    cluster = two_class().replace(cluster_gpus=10)
    found = sweep(cluster, "cluster_gpus", [5, 10, 20])
    assert found.objective == pytest.approx([plan(cluster, gpus=n).objective for n in (5, 10, 20)])
    for places in (("cluster_gpus", [20], "classes[0].arrival_rate", [0.3]),
                   ("classes[0].arrival_rate", [0.3], "cluster_gpus", [20])):  # fmt: skip
        shared = heat_map(cluster, *places).objective[0, 0]
        rates = cluster.for_gpus(20)
        first = rates.classes[0].model_copy(update={"arrival_rate": 0.3})
        assert shared == pytest.approx(plan(rates.replace(classes=(first, rates.classes[1]))).objective)


def test_where_there_is_no_plan():
    found = sweep(two_class(), "indicators.max_tpot", [None, 0.02, 0.023])
    assert np.isnan(found.objective).tolist() == [False, True, False]
    assert "max_tpot 0.02 cannot be met" in found.reasons[1]
    assert (found.reasons[0], found.reasons[2]) == (None, None)
    assert np.isnan(found.shadow_prices["max_tpot"]).tolist() == [True, True, False]
    record = json.loads(found.to_json())
    assert record["points"][1]["objective"] is None
    assert record["points"][1]["flow_price"] == [None, None]
    limited = two_class().replace(indicators=Indicators(max_tpot=0.023))
    grid = heat_map(limited, "gpu.iteration.gamma", [40.0, 45.45], "gpu.batch_size", [16])
    assert np.isnan(grid.objective).tolist() == [[True, False]]
    assert grid.reasons[0][0] is not None
    json.loads(grid.to_json())
    assert grid.to_dataframe()["gpu.iteration.gamma"].tolist() == [40.0, 45.45]


def test_prices_along_a_sweep_are_the_plans():
    found = sweep(two_class(max_tpot=0.0235), "gpu.batch_size", [16, 18])
    best = plan(two_class(max_tpot=0.0235))
    for name, price in best.shadow_prices.items():
        assert found.shadow_prices[name][0] == pytest.approx(price)
    assert found.shadow_prices["max_tpot"][0] == pytest.approx(best.indicators["max_tpot"]["shadow_price"])
    assert found.flow_price[0] == pytest.approx(best.flow_price)
    assert found.flow_price.shape == (2, 2)
    frame = found.to_dataframe()
    assert frame["gpu.batch_size"].tolist() == [16, 18]
    assert frame["price of decode-heavy"].tolist() == found.flow_price[:, 0].tolist()


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("gpu.beta", [1], r"gpu\.beta: no such field of a scenario; did you mean 'gpu\.iteration\.beta'\?"),
        ("gpu.iteration", [1], "no such field"),
        ("foo", [1], r"foo: no such field of a scenario; a path is such as gpu\.batch_size"),
        ("", [1], "no such field"),
        ("classes[0].name", ["x"], "no such field"),
        ("classes.heavy.arrival_rate", [1], "no class is named 'heavy'; did you mean 'decode-heavy'"),
        ("classes[2].arrival_rate", [1], "there are 2 classes; give a number from 0 to 1"),
        ("classes.decode-heavy.arival_rate", [1], "did you mean 'classes.decode-heavy.arrival_rate'"),
        ("gpu.batch_size", [0], r"gpu\.batch_size: must be at least 1, but is 0; give another"),
        ("gpu.batch_size", [1.5], "must be a whole number"),
        ("gpu.batch_size", [True], "must be a number, but is True"),
        ("gpu.batch_size", [], "no values; give at least one"),
        ("pricing.prompt", [-0.1], "must be at least 0"),
        ("pricing.prompt", [None], "must be a number"),
        ("pricing.scheme", ["bundeld"], "must be 'bundled' or 'separate'"),
        ("indicators.max_tpot", [np.nan], "must be a finite number"),
        ("gpu.iteration.alpha", [-1.0], r"gpu\.iteration\.alpha: alpha \+ beta \* chunk_size must be > 0"),
        ("cluster_gpus", [3], "the scenario's rates are per GPU"),
    ],
)
def test_wrong_fields_and_values(field, values, message):
    with pytest.raises(FluidgateError, match=message) as error:
        sweep(two_class(), field, values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("pricing.scheme", [2.0], "has 'bundled' to scale"),
        ("indicators.max_tpot", [2.0], "has no value to scale"),
        ("gpu.batch_size", [1.3], "must be a whole number"),
        ("gpu.batch_size", ["2"], "a factor must be a number"),
    ],
)
def test_wrong_factors(field, values, message):
    with pytest.raises(FluidgateError, match=message):
        sweep(two_class(), field, values, scale=True)


def test_one_field_twice():
    with pytest.raises(FluidgateError, match="name the same field"):
        heat_map(two_class(), "classes.*.arrival_rate", [1], "classes[1].arrival_rate", [1])


def test_what_its_plans_warn_of_stands_once() -> None:
    """A chunk of 8 tokens makes a mixed iteration faster than a solo one; one of 256 does not."""
    quiet, warned = (sweep(two_class(), "gpu.chunk_size", sizes) for sizes in ((128, 256), (8, 8, 256)))
    assert json.loads(quiet.to_json())["warnings"] == []
    found = json.loads(warned.to_json())["warnings"]
    assert len(found) == len(set(found)) > 0
    assert any("is faster than a solo one" in sentence for sentence in found)
    map_of = heat_map(two_class(), "gpu.chunk_size", (8, 256), "pricing.prompt", (0.1, 0.2))
    assert json.loads(map_of.to_json())["warnings"] == found
