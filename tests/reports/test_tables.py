"""Tables of plans, simulations, comparisons, policies, profiles and workloads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluidgate.model import EngineModel, Indicators, IterationTime
from fluidgate.planning import plan
from fluidgate.policies import find_policy
from fluidgate.profiles import Profile, find_profile
from fluidgate.reports.tables import (
    comparison_tables,
    number,
    plan_tables,
    policy_table,
    profile_table,
    simulation_tables,
    with_interval,
    workload_tables,
)
from fluidgate.simulation import Comparison
from fluidgate.workloads import workload
from tests.reports.results import NOTHING, RUN, simulated, value
from tests.reports.seen import by_first, cells, headers
from tests.scenarios import two_class_scenario

SCENARIO = two_class_scenario()


@pytest.mark.parametrize(
    ("found", "digits", "written"),
    [
        (None, 4, "-"),
        (0.0, 4, "0"),
        (297.70316, 4, "297.7"),
        (0.000123456, 3, "0.000123"),
        (9_999.6, 4, "1e+04"),
        (12_345.6, 4, "12,346"),
        (-12_345.6, 4, "-12,346"),
        (1_234_567.0, 6, "1,234,567"),
    ],
)
def test_numbers_have_significant_digits_and_thousands_are_set_apart(
    found: float | None, digits: int, written: str
) -> None:
    assert number(found, digits) == written


def test_intervals_are_half_their_width() -> None:
    assert with_interval(value(0.25, 0.0123)) == "0.25 ±0.012"
    assert with_interval(value(0.25, 0.0123), unit=1000.0) == "250 ±12"
    assert with_interval(value(0.25)) == "0.25"
    assert with_interval(NOTHING) == "-"


def test_a_plan_shows_what_it_earns_its_prices_and_its_classes() -> None:
    solved = plan(SCENARIO, gpus=500)
    whole, prices, classes = plan_tables(solved)
    said = by_first(whole)
    assert said["revenue rate, R*"] == ["297.703 /s"]
    assert said["time per output token, all slots busy, (47)"] == ["24.29 ms"]
    assert said["decode buffer"] == ["empty"]
    assert said["split of 500 GPUs"] == ["107 mixed + 393 solo"]
    assert "penalty" not in said
    assert by_first(prices) == {
        "prefill capacity": ["0"], "mixed capacity": ["6.839"], "solo capacity": ["10.342"]
    }  # fmt: skip
    assert headers(classes)[:3] == ["class", "served", "done/s"]
    for k, (name, served, *_) in enumerate(cells(classes)):
        assert (name, served) == (SCENARIO.classes[k].name, f"{100 * solved.served_fraction[k]:.1f} %")


def test_a_plan_with_indicators_shows_limits_and_penalties() -> None:
    indicators = Indicators(max_tpot=0.0235, prefill_gap_weight=3.0)
    solved = plan(SCENARIO.replace(indicators=indicators))
    whole, prices, _ = plan_tables(solved)
    said = by_first(whole)
    assert "revenue rate, R*" not in said, "that of the plan without indicators is R*"
    assert said["penalty"] == [f"{number(solved.penalty, 6)} /s"]
    assert said["objective"] == [f"{number(solved.objective, 6)} /s"]
    priced = by_first(prices)
    assert priced["max_tpot (limit 0.0235, value 0.0235)"] == [number(solved.indicators["max_tpot"]["shadow_price"], 5)]
    assert priced[f"prefill_gap_weight (weight 3, value {number(np.ptp(solved.prefill))})"] == ["-"]


def test_a_plan_by_batch_shows_the_iterations_that_it_read() -> None:
    law = IterationTime(alpha=0.009, beta=9e-5, delta=2e-4, epsilon=1e-7, solo_alpha=0.017, solo_delta=6e-5)
    gpu = SCENARIO.gpu.model_copy(update={"iteration": law})
    solved = plan(SCENARIO.replace(gpu=gpu))
    said, point = by_first(next(iter(plan_tables(solved)))), solved.operating_point
    assert point is not None
    assert said["mixed iteration, mean"] == [f"{number(1000 * point.mixed_iteration)} ms"]
    assert said["solo iteration, mean"] == [f"{number(1000 * point.solo_iteration)} ms"]
    assert said["decodes in a batch, mean"] == [number(point.decodes)]
    assert said["KV memory in use, mean"] == [f"{number(point.kv_tokens)} tokens"]
    assert said["busy"] == ["100.0 %"]
    assert said["time per output token, of the decodes"] == [f"{number(1000 * solved.tpot)} ms"]


def test_one_gpu_is_one() -> None:
    assert "split of 1 GPU" in by_first(next(iter(plan_tables(plan(SCENARIO, gpus=1)))))


def test_a_plan_with_prefix_caching_shows_what_it_took_for_found() -> None:
    classes = tuple(c.model_copy(update={"prefix_hit_rate": 0.25}) for c in SCENARIO.classes)
    found = SCENARIO.replace(classes=classes, engine=EngineModel(prefix_caching=True))
    solved = plan(found)
    whole, _, classes = plan_tables(solved)
    assert by_first(whole)["prompt tokens found in memory"] == ["25.0 %"]
    assert headers(classes)[-2:] == ["found", "price of 1 % more"]
    assert solved.hit_price is not None
    for price, row in zip(solved.hit_price, cells(classes), strict=True):
        assert row[-2:] == ("25.0 %", number(price / 100.0))
    assert "prompt tokens found in memory" not in by_first(next(iter(plan_tables(plan(SCENARIO)))))


def test_a_simulation_shows_revenue_states_flows_and_times() -> None:
    whole, occupancies, flows, times = simulation_tables(simulated())
    assert "'gate-and-route' on 'small': 10 GPUs, 500 s, 3 replications (95 % confidence)" in str(whole.title)
    said = by_first(whole)
    assert said["revenue rate per GPU"] == ["200 ±4 /s"]
    assert said["share of R* (without indicators)"] == ["0.8 ±0.016"]
    assert said["events"] == ["12,345"]
    assert [row[0] for row in cells(occupancies)] == ["chat", "code"]
    assert by_first(flows)["code"][:3] == ["0.4", "0", "0.2"]
    assert headers(times) == ["class", "TTFT, s", "wait for decode, s", "TPOT, ms"]
    assert by_first(times) == {"chat": ["0.25 ±0.01", "0", "30"], "code": ["-", "0", "-"]}


def test_a_comparison_ranks_policies_and_tells_their_differences_to_the_first() -> None:
    results = (simulated("low", value(100.0, 2.0)), simulated("high", value(150.0, 5.0)))
    (made,) = comparison_tables(Comparison("small", RUN, results))
    assert [row[0] for row in cells(made)] == ["high", "low"]
    said = by_first(made)
    # replications at 98, 100, 102 and 145, 150, 155: differences of 47, 50 and 53
    assert said["low"][2] == "reference"
    assert said["high"][2].startswith("50 ±")
    assert said["high"][3:] == ["0.25 / -", "30 / -", "0.0 % / 50.0 %"]
    assert "difference to low, paired" in str(made.title)
    assert str(made.caption).endswith("by class: chat / code")


def test_policies_are_shown_with_their_other_names() -> None:
    made = policy_table([find_policy("gate-and-route"), find_policy("fi-wsp")], {"gg-sp": "gate-and-route"})
    assert [row[:2] for row in cells(made)] == [("gate-and-route = gg-sp", "paper"), ("fi-wsp", "baseline")]


def test_profiles_are_shown_with_what_they_are_and_what_for() -> None:
    ((name, text),) = cells(profile_table([find_profile("h100/qwen3-32b-tp2")]))
    assert name == "h100/qwen3-32b-tp2"
    assert text == "2 x H100 SXM, bf16, vLLM 0.24.0, 2026\nQwen3 32B: a mid-size model on two cards"
    ((_, bare),) = cells(profile_table([Profile(name="lab", iteration=IterationTime(alpha=1, beta=1, gamma=1))]))
    assert bare == ""


def test_a_workload_shows_its_classes_and_how_far_they_are_from_exponential(tmp_path: Path) -> None:
    file = tmp_path / "day_chat.csv"
    file.write_text("arrival_time,prompt_tokens,output_tokens\n0,100,10\n1,100,20\n4,100,30\n")
    classes, laws = workload_tables(workload([file], gpus=2, profile="a100-40gb/qwen-8b"))
    (row,) = cells(classes)
    # three requests in the 4 s between the first and the last
    assert row[1:] == ("3", "100", "20", "0.75", "0.375")
    told = {(quantity, mean): cv for _, quantity, mean, cv, _ in cells(laws)}
    assert told["prompt tokens", "100 tokens"] == "0"
    assert told["output tokens", "20 tokens"] == number(float(np.std([10, 20, 30]) / 20), 3)
