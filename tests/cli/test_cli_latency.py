"""`plan --latency`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command import ROOT, TWO_CLASS, Command

H100 = ROOT / "examples" / "azure-h100.toml"
KEYS = ("mean", "p50", "p90", "p95", "p99")


def test_latency_by_class_and_of_all(fluidgate: Command) -> None:
    outcome = fluidgate("plan", H100, "--gpus", "14", "--latency", "--json")
    assert outcome.status == 0
    rows = outcome.json["latency"]
    assert [row["name"] for row in rows] == ["code", "conv", "all"]
    for row in rows:
        for measure in ("ttft", "tpot", "latency"):
            times = [row[measure][key] for key in KEYS[1:]]
            assert tuple(row[measure]) == KEYS
            assert times == sorted(times)
            assert times[0] > 0.0
    assert any("leave while they wait" in doubt for doubt in outcome.json["doubts"])
    assert outcome.json["doubts"][0] in " ".join(outcome.notices)
    assert "revenue_rate" in outcome.json
    assert "latency" not in fluidgate("plan", H100, "--json").json


def test_the_table_has_a_line_a_time(fluidgate: Command) -> None:
    output = fluidgate("plan", H100, "--latency").output
    assert "Times of 'azure-h100' on 12 GPUs, predicted (single-prefill batching)" in output
    assert [output.count(name) for name in ("TTFT, s", "TPOT, ms", "latency, s")] == [3, 3, 3]


def test_policy_says_whose_queues(fluidgate: Command) -> None:
    placed = fluidgate("plan", H100, "--latency", "--policy", "vllm-round-robin")
    assert "(token-budget batching)" in placed.output
    pooled = fluidgate("plan", H100, "--latency", "--policy", "index-and-pool", "--json").json
    own = fluidgate("plan", H100, "--latency", "--policy", "vllm-round-robin", "--json").json
    assert own["latency"][2]["ttft"]["p99"] > pooled["latency"][2]["ttft"]["p99"]


def test_targets_have_their_share(fluidgate: Command, scenario: Callable[..., Path]) -> None:
    path = scenario(("arrival_rate = 0.5", "arrival_rate = 0.3"), more="\n[targets]\nttft = 1.0\ntpot = 0.03\n")
    outcome = fluidgate("plan", path, "--gpus", "6", "--latency", "--json")
    assert 0.5 < outcome.json["latency"][2]["goodput"] <= 1.0
    assert "within targets" in fluidgate("plan", path, "--gpus", "6", "--latency").output


def test_overload_has_no_end(fluidgate: Command) -> None:
    outcome = fluidgate("plan", TWO_CLASS, "--gpus", "4", "--latency")
    assert outcome.status == 0
    assert "no end" in outcome.output
    assert any("more arrives than can be served" in line for line in outcome.notices)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--latency",), ("--gpus", "how many GPUs")),
        (("--policy", "fi-wsp"), ("--policy", "--latency")),
        (("--latency", "--gpus", "4", "--policy", "nobody"), ("unknown policy", "nobody")),
    ],
)
def test_what_is_wrong_is_one_line(fluidgate: Command, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    outcome = fluidgate("plan", TWO_CLASS, *arguments)
    assert (outcome.status, outcome.output, len(outcome.notices)) == (2, "", 1)
    for word in words:
        assert word in outcome.notices[0]


def test_a_closed_loop_is_one_line(fluidgate: Command, scenario: Callable[..., Path]) -> None:
    path = scenario(more='\n[arrivals]\nprocess = "closed"\nusers = 20\n')
    outcome = fluidgate("plan", path, "--gpus", "4", "--latency")
    assert (outcome.status, len(outcome.notices)) == (2, 1)
    assert "closed loop" in outcome.notices[0]
