"""Warnings stand in every JSON object, and beside every table on standard error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command import Command

FINE = ("chunk_size = 256", "chunk_size = 8")  # a mixed iteration is then faster than a solo one
SMALL = ("--gpus", "5", "--horizon", "100", "--replications", "1")
KAPPA = "is faster than a solo one"
SINGLE = ("batch_size = 16", "batch_size = 1")

Scenario = Callable[..., Path]


@pytest.mark.parametrize(
    "command",
    [
        ("plan", "FILE"),
        ("simulate", "FILE", "--policy", "fi-wsp", *SMALL),
        ("simulate", "FILE", "--policy", "vllm-round-robin", *SMALL, "--fidelity", "iteration"),
        ("compare", "FILE", "--policy", "fi-wsp,gi-wsp", *SMALL),
        ("replay", "FILE", "decode-heavy=t.csv", "--policy", "fi-wsp", "--gpus", "2"),
        ("frontier", "FILE", "--indicator", "max_solo_gap", "--points", "3", "--from", "0", "--to", "1"),
    ],
    ids=lambda command: command[0],
)
def test_what_the_plan_says_is_said_everywhere(
    fluidgate: Command, scenario: Scenario, command: tuple[str, ...]
) -> None:
    Path("t.csv").write_text("arrival_time,prompt_tokens,output_tokens\n0,300,1000\n1,300,1000\n")
    for change, warned in (((FINE,), True), ((), False)):
        words = [str(scenario(*change)) if word == "FILE" else word for word in command]
        in_json, as_table = fluidgate(*words, "--json"), fluidgate(*words)
        found = in_json.json["warnings"]
        assert any(KAPPA in warning for warning in found) == warned
        for outcome in (in_json, as_table):
            assert outcome.notices == [f"fluidgate: warning: {warning}" for warning in found]
        for entry in in_json.json.get("policies", []):
            assert set(entry["warnings"]) <= set(found)
            assert any(KAPPA in warning for warning in entry["warnings"]) == warned


def test_a_doubt_is_said_beside_table_and_object(fluidgate: Command, scenario: Scenario) -> None:
    words = ("simulate", scenario(SINGLE), "--policy", "gate-and-route", "--gpus", "1", "--horizon", "200")
    (in_json,), (shown,) = fluidgate(*words, "--json").json["warnings"], fluidgate(*words).notices
    assert shown == f"fluidgate: warning: {in_json}"
    assert "no request is completed" in in_json


def test_optimum_and_its_policies(fluidgate: Command, scenario: Scenario) -> None:
    small = scenario(("batch_size = 16", "batch_size = 1"), more="[engine]\nkv_tokens = 50000\n")
    words = ("optimum", small, "--gpus", "1", "--accuracy", "1e-2", "--json")
    simulated = ("--policy", "gate-and-route", "--horizon", "500", "--replications", "1")
    alone, beside = fluidgate(*words).json, fluidgate(*words, *simulated)
    assert any("[engine] kv_tokens" in warning for warning in alone["warnings"])
    assert any("no request is completed" in warning for warning in beside.json["policies"][0]["warnings"])
    assert set(alone["warnings"]) | set(beside.json["policies"][0]["warnings"]) == set(beside.json["warnings"])
    assert beside.notices == [f"fluidgate: warning: {warning}" for warning in beside.json["warnings"]]


def test_a_list_without_doubt_is_empty(fluidgate: Command) -> None:
    assert fluidgate("policies", "--json").json["warnings"] == []
