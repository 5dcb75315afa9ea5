"""Where nobody leaves, index-and-pool keeps deadlines: goodput on a mix of three classes near capacity."""

import pytest

from fluidgate import RequestClass, Scenario, compare
from fluidgate.model import Lengths

MIX = (
    RequestClass(name="fast", prompt_tokens=500, output_tokens=200, arrival_rate=5.7, patience_rate=0, ttft_target=0.3),
    RequestClass(
        name="chat", prompt_tokens=1500, output_tokens=300, arrival_rate=5.7, patience_rate=0, ttft_target=1.0
    ),
    RequestClass(
        name="batch", prompt_tokens=4000, output_tokens=400, arrival_rate=2.85, patience_rate=0, ttft_target=10.0
    ),
)


@pytest.mark.parametrize("gpus", [4, 20])
def test_the_earliest_deadline_first_keeps_nearly_all(gpus: int) -> None:
    given = Scenario.load("examples/azure-h100.toml")
    lengths = Lengths(prompt="lognormal", prompt_cv=1.0, output="lognormal", output_cv=1.0)
    scenario = given.replace(classes=MIX, lengths=lengths, cluster_gpus=None)
    result = compare(
        scenario,
        ["index-and-pool", "fi-wsp", "vllm-least-loaded"],
        gpus=gpus,
        horizon=200.0,
        replications=2,
        seed=2,
        fidelity="iteration",
    )
    good = {}
    for each in result.policies:
        done = sum(c.completion_rate.mean or 0.0 for c in each.classes)
        good[each.policy] = each.overall.goodput.mean / done  # type: ignore[attr-defined]
    assert good["index-and-pool"] > 0.985
    assert good["index-and-pool"] > good["fi-wsp"] - 0.005
    assert good["index-and-pool"] > good["vllm-least-loaded"] + 0.01
