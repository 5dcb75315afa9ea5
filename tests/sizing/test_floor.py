"""What no number of engines keeps is said at once, and only where it is so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluidgate.model import Scenario
from fluidgate.simulation import simulate
from fluidgate.sizing import size
from fluidgate.sizing.choices import choices_of
from fluidgate.sizing.floor import Floor, Pace, beyond_reach, requests_of
from fluidgate.sizing.observed import statistic
from fluidgate.sizing.size import load_of
from fluidgate.sizing.targets import Target, targets_of
from tests.sizing.instances import chat

MANY = 24
TARGETS = "ttft_p99 = 0.01\nttft_mean = 0.01\ntpot_p50 = 0.001\nlatency_p90 = 1.0\ntpot = 0.05"
CASES = {
    "token budget": ("index-and-pool", chat(rate=2.0, targets=TARGETS)),
    "single prefill": ("gate-and-route", chat(rate=2.0, targets=TARGETS)),
    "prefill first": ("prefill-first-least-loaded", chat(rate=2.0, targets=TARGETS)),
    "prompts first": ("slai", chat(rate=2.0, targets=TARGETS)),
    "pools": ("distserve", chat(rate=2.0, targets=TARGETS)),
    "another profile": ("vllm-least-loaded", chat(rate=1.0, targets=TARGETS, profile="rtx4090/llama-3.1-8b")),
    "fixed lengths": (
        "index-and-pool",
        chat(rate=2.0, targets=TARGETS, more='[lengths]\nprompt = "fixed"\noutput = "fixed"'),
    ),
}


def _floors(scenario: Scenario, policy: str) -> dict[Target, float]:
    """What each target comes to at best, in the mean over replications."""
    choice, targets = choices_of(scenario, policies=[policy])[0], targets_of(scenario)
    sample = list(requests_of(choice, load_of(scenario, targets, 0, (), 1.0, None), MANY))
    pace = Pace.of(scenario, policy)
    return {t: float(np.mean([statistic(t, pace.best(t, r, scenario)) for r in sample])) for t in targets}


@pytest.mark.parametrize("case", CASES)
def test_many_engines_come_near_the_floor_and_never_below_it(case: str) -> None:
    policy, scenario = CASES[case]
    run = simulate(scenario, policy, gpus=MANY, horizon=2000, replications=3, seed=5, workers=1, fidelity="iteration")
    for target, floor in _floors(scenario, policy).items():
        time = getattr(run.overall, target.measure)  # type: ignore[attr-defined]
        reached = getattr(time, target.statistic)
        assert reached > 0.97 * floor, target.name  # the two have other requests
        if policy != "distserve" and target.statistic in ("p50", "mean"):
            assert reached < 2.0 * floor, target.name


def test_a_target_below_the_floor_is_impossible_without_a_simulation() -> None:
    scenario = chat(targets="tpot_p95 = 0.03\nttft_p99 = 0.1")
    (answer,) = size(scenario).answers
    assert (answer.status, answer.trials) == ("impossible", ())
    assert answer.reason is not None
    assert "ttft p99 is at least 12" in answer.reason
    assert "with any number of engines: a prompt alone takes as long to be read" in answer.reason
    assert "give another limit, other sizes, or faster GPUs" in answer.reason
    floor = next(value for target, value in _floors(scenario, "index-and-pool").items() if target.measure == "ttft")
    (above,) = size(chat(targets=f"ttft_p99 = {1.3 * floor}"), max_gpus=60).answers
    assert above.trials


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ("tpot_p50 = 0.004", "tpot p50 is at least 6.6"),
        ("latency_mean = 1.0", "latency mean is at least 1.4"),
        ("goodput = 0.99\nttft = 0.03\ntpot = 0.02", "goodput is at most 6"),
    ],
)
def test_each_measure_has_its_floor(targets: str, said: str) -> None:
    (answer,) = size(chat(targets=targets)).answers
    assert (answer.status, answer.trials) == ("impossible", ())
    assert answer.reason is not None
    assert said in answer.reason


def test_a_trace_and_a_class_have_theirs(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = (f"{k / 40},{1000 if k % 2 else 4000},100" for k in range(400))
    path.write_text("arrival_time,prompt_tokens,output_tokens\n" + "\n".join(rows), "utf-8")
    (traced,) = size(chat(targets="ttft_p50 = 0.01"), traces=[path]).answers
    assert (traced.status, traced.trials) == ("impossible", ())
    (own,) = size(chat(targets="ttft_p99 = 9.0", more="ttft_p95 = 0.02")).answers
    assert own.reason is not None
    assert own.reason.startswith("ttft p95 of chat is at least")


def test_nothing_is_said_where_requests_leave_or_are_found_in_memory() -> None:
    def floor(scenario: Scenario) -> Floor | None:
        choice, targets = choices_of(scenario)[0], targets_of(scenario)
        load = load_of(scenario, targets, 0, (), 1.0, None)
        return beyond_reach(choice, load, list(requests_of(choice, load, 8)))

    tight = "ttft_p99 = 0.1"
    assert floor(chat(targets=tight)) is not None
    impatient = tuple(c.model_copy(update={"patience_rate": 0.1}) for c in chat().classes)
    assert floor(chat(targets=tight).replace(classes=impatient)) is None
    shared = chat(
        targets=tight, prompt=2500, more="turns = 5\nturn_tokens = 200\nthink = 1.0\n[engine]\nprefix_caching = true"
    )
    assert floor(shared) is None
    little = chat(targets=tight, more="[engine]\nkv_tokens = 4000")
    assert floor(little) is None


def test_requests_that_no_engine_has_memory_for_count_as_lost() -> None:
    """Prompt and output are geometric of one mean, so that their sum is beyond the memory by chance."""
    equal = {"prompt": 500, "output": 500, "rate": 8.0, "targets": "ttft_p95 = 5.0"}
    found = size(chat(more="[engine]\nkv_tokens = 1600", **equal), workers=1)
    (answer,) = found.answers
    assert [(each.name, each.implied) for each in found.targets] == [("ttft p95", False), ("served", True)]
    assert answer.status == "impossible"
    assert answer.reason is not None
    fits = 1.0 - (1 - 1 / 500) ** 1600 * (1 + 1600 / 499)
    assert float(answer.reason.split()[4]) == pytest.approx(100.0 * fits, abs=1.0)
    assert "the KV memory of an engine holds none of the other requests" in answer.reason
    few = size(chat(more="[engine]\nkv_tokens = 6000", **equal), workers=1)
    assert few.best is not None
    assert few.best.whole is not None
    assert few.best.whole.readings[1].value > 0.99
    asked = chat(more="[engine]\nkv_tokens = 1600", **{**equal, "targets": "ttft_p95 = 5.0\nserved = 0.5"})
    assert size(asked, workers=1).best is not None


def test_sessions_that_outgrow_the_memory_of_an_engine_count_as_lost() -> None:
    turns = "turns = 5\nturn_tokens = 400\nthink = 1.0"
    given = {"prompt": 2500, "rate": 6.0, "targets": "ttft_p95 = 5.0"}
    cramped = size(
        chat(more=f"{turns}\n[engine]\nprefix_caching = true\nkv_tokens = 4000", **given), max_gpus=6, workers=1
    )
    assert cramped.targets[1].implied
    assert cramped.best is None
    assert "served is 9" in (cramped.answers[0].reason or "")
    roomy = size(chat(more=f"{turns}\n[engine]\nprefix_caching = true", **given), max_gpus=6, workers=1)
    assert len(roomy.targets) == 1
    assert roomy.best is not None
