"""What a plan says of the profile that its iteration times are from."""

from __future__ import annotations

from typing import Any

import pytest

from fluidgate.model import Calibrated, Scenario
from fluidgate.planning import plan
from fluidgate.profiles import find_profile
from tests.scenarios import two_class_scenario


def warnings_with(prompt: float = 300.0, **known: Any) -> list[str]:
    return list(plan(scenario_with(Calibrated(profile="lab", **known), prompt)).warnings)


def scenario_with(calibrated: Calibrated, prompt: float = 300.0) -> Scenario:
    scenario = two_class_scenario()
    first, second = scenario.classes
    classes = (
        first.model_copy(update={"prompt_tokens": prompt, "output_tokens": 100.0}),
        second.model_copy(update={"prompt_tokens": 200.0, "output_tokens": 100.0}),
    )
    return scenario.replace(gpu=scenario.gpu.model_copy(update={"calibrated": calibrated}), classes=classes)


def test_nothing_is_said_where_nothing_is_amiss() -> None:
    assert warnings_with() == []
    assert warnings_with(contexts=(256, 2304), measured="2026", batch_sizes=(8, 64), chunk_sizes=(64, 512)) == []


@pytest.mark.parametrize(("prompt", "warned"), [(2000.0, False), (2250.0, True), (16000.0, True), (100_000.0, True)])
def test_longer_contexts_than_were_measured(prompt: float, warned: bool) -> None:
    found = [line for line in warnings_with(prompt, contexts=(2048, 2304)) if "contexts" in line]
    assert len(found) == warned
    if warned:
        assert found[0].startswith(f"class 'decode-heavy' has {prompt + 100:,.6g} tokens of prompt and output")
        assert "more than 2,304 were not measured" in found[0]


@pytest.mark.parametrize("measured", ["2023", "2024", "2024-12-31"])
def test_times_of_older_engines(measured: str) -> None:
    (line,) = warnings_with(measured=measured)
    assert line.startswith(f"profile lab is of {measured}: engines of today ")


@pytest.mark.parametrize("measured", ["2025", "2025-01", "2026-02-28"])
def test_times_of_engines_of_today(measured: str) -> None:
    assert warnings_with(measured=measured) == []


def test_a_gpu_that_is_a_group() -> None:
    (line,) = warnings_with(gpus=4)
    assert line == "each GPU of this scenario is a group of 4 GPUs: 4 times as many are needed"


@pytest.mark.parametrize(("size", "warned"), [(4, True), (8, False), (16, False), (64, False), (65, True)])
def test_sizes_within_a_table_were_measured(size: int, warned: bool) -> None:
    scenario = scenario_with(Calibrated(batch_sizes=(8, 64)))
    gpu = scenario.gpu.model_copy(update={"batch_size": size})
    assert any("batch_size" in line for line in plan(scenario.replace(gpu=gpu)).warnings) == warned


def test_the_shipped_profile_of_2024_warns_and_is_a_group() -> None:
    lines = plan(scenario_with(find_profile("a100-80gb/llama2-70b-tp2").calibrated)).warnings
    assert any("is of 2024" in line for line in lines)
    assert any("a group of 2 GPUs" in line for line in lines)
