"""Closed loops, and scenarios without prices or classes, from the command line."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from command import Command
from test_cli_bad_input import refused

Scenario = Callable[..., Path]
SHORT = ("--gpus", "2", "--horizon", "100", "--replications", "2")


def trace(count: int = 40, times: bool = False) -> str:
    """A log of as many requests, 0.1 s apart, perhaps with the times of their tokens."""
    names = ["queued_ts", "input_toks", "output_toks"]
    rows = []
    for k in range(count):
        row = dict(zip(names, (0.1 * k, 200 + k, 20 + k % 7), strict=True))
        row |= {"first_token_ts": 0.1 * k + 1.0, "last_token_ts": 0.1 * k + 2.0} if times else {}
        rows.append(str(row).replace("'", '"'))
    Path("t.jsonl").write_text("\n".join(rows))
    return "t.jsonl"


def bare(more: str = "") -> str:
    text = 'name = "bare"\n[gpu]\nbatch_size = 16\nchunk_size = 256\nalpha = 0.0174\nbeta = 6.2e-5\ngamma = 45.45\n'
    Path("bare.toml").write_text(text + more)
    return "bare.toml"


def test_users_in_place_of_arrivals(fluidgate: Command, scenario: Scenario) -> None:
    options = (*SHORT, "--users", "5", "--think", "2", "--think-law", "exponential")
    found = fluidgate("simulate", scenario(), "--policy", "gate-and-route", *options, "--json").json
    assert (found["fidelity"], found["users"], found["think"]) == ("iteration", 5, 2.0)
    assert found["optimality_ratio"]["mean"] is None
    assert found["overall"]["completion_rate"]["mean"] > 0
    keys = '[arrivals]\nprocess = "closed"\nusers = 3\nthink = 2.0\nthink_law = "exponential"\n'
    same = fluidgate(
        "simulate", scenario(more=keys), "--policy", "gate-and-route", *SHORT, "--users", "5", "--json"
    ).json
    assert same["overall"] == found["overall"]
    both = fluidgate(
        "compare", "s.toml", "--policy", "gate-and-route,vllm-round-robin", *SHORT, "--users", "5", "--json"
    )
    assert both.json["policies"][0]["overall"] == found["overall"]
    shown = fluidgate("compare", "s.toml", "--policy", "gate-and-route,vllm-round-robin", *SHORT)
    assert "3 users who think 2 s, exponential" in shown.output
    assert "share of R*" not in shown.output


def test_what_a_closed_loop_is_not(fluidgate: Command, scenario: Scenario) -> None:
    closed = scenario(more='[arrivals]\nprocess = "closed"\nusers = 3\n')
    run = ("simulate", closed, "--policy", "gate-and-route", *SHORT)
    refused(fluidgate, (*run, "--fidelity", "markov"), "a closed loop", "--fidelity iteration")
    refused(fluidgate, ("optimum", closed, "--gpus", "1"), "closed")
    assert any("as if requests came by themselves" in line for line in fluidgate("plan", closed).notices)
    scenario()
    refused(fluidgate, (*run, "--think", "1"), "--think: only in a closed loop; give --users too")
    closed = scenario(more="[arrivals]\nusers = 3\n")
    refused(fluidgate, ("plan", closed), 'arrivals.users: only with process = "closed"')


@pytest.mark.parametrize("option", [("--rate-scale", 2), ("--match-load",), ("--times", "resample", "--requests", 9)])
def test_a_closed_loop_reads_no_times(fluidgate: Command, scenario: Scenario, option: tuple[object, ...]) -> None:
    scenario()
    run = ("replay", bare(), trace(), "--policy", "vllm-round-robin", "--gpus", "1", "--users", "2")
    refused(fluidgate, (*run, *option), "closed loop")


def test_users_send_the_requests_of_a_trace_in_their_order(fluidgate: Command, scenario: Scenario) -> None:
    scenario()
    run = ("replay", bare(), trace(), "--policy", "vllm-round-robin", "--gpus", "1", "--users", "4")
    found = fluidgate(*run, "--times", "repeat", "--requests", "60", "--log", "log.csv", "--json").json
    assert (found["users"], found["requests"], found["agreement"]) == (4, 60, [])
    with Path("log.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["number"]))
    assert [int(row["prompt"]) for row in rows] == [200 + k % 40 for k in range(60)]
    assert {row["user"] for row in rows} == {"0", "1", "2", "3"}
    for user in "0123":  # each waits for its answer
        own = [row for row in rows if row["user"] == user]
        for before, after in pairwise(own):
            assert float(after["arrival"]) == pytest.approx(float(before["last_token"]))


@pytest.mark.parametrize("classes", [False, True])
def test_users_need_no_times_of_a_trace(fluidgate: Command, scenario: Scenario, classes: bool) -> None:
    file = scenario()
    file = file if classes else bare()
    Path("lengths.csv").write_text("prompt_tokens,output_tokens\n300,20\n200,10\n100,5\n")
    given = "decode-heavy=lengths.csv" if classes else "lengths.csv"
    run = ("replay", file, given, "--policy", "vllm-round-robin", "--gpus", "1")
    found = fluidgate(*run, "--users", "2", "--json").json
    assert found["policies"][0]["overall"]["latency"]["count"] == 3
    refused(fluidgate, run, "arriv")


def test_a_log_of_a_closed_loop_is_compared_with(fluidgate: Command, scenario: Scenario) -> None:
    scenario()
    run = ("replay", bare(), trace(times=True), "--policy", "vllm-round-robin", "--gpus", "1", "--users", "4")
    assert {row["quantity"] for row in fluidgate(*run, "--json").json["agreement"]} >= {
        "TTFT",
        "TPOT",
        "output throughput",
    }


def test_a_replay_needs_no_prices_and_no_classes(fluidgate: Command, scenario: Scenario) -> None:
    scenario()
    names = "vllm-round-robin,gate-and-route,index-and-pool,distserve"
    run = ("replay", bare("[targets]\nttft = 3.0\n"), trace(), "--policy", names, "--gpus", "2")
    found = fluidgate(*run, "--json").json
    assert [c["name"] for c in found["policies"][0]["classes"]] == ["all"]
    for body in found["policies"]:
        assert body["revenue_rate"] == {"mean": None, "std": None, "ci95": None}
        assert body["overall"]["completion_rate"]["mean"] > 0
    shown = fluidgate(*run, "--plot", "p.png").output
    assert "done /s" in shown
    assert "revenue" not in shown
    assert Path("p.png").exists()
    refused(fluidgate, ("plan", "bare.toml"), "classes: missing")
    refused(fluidgate, run[:-2], "--gpus: missing")


def test_commands_without_prices(fluidgate: Command, scenario: Scenario) -> None:
    text = scenario().read_text()
    start, end = text.index("[pricing]"), text.index("[[classes]]")
    Path("s.toml").write_text(text[:start] + text[end:])
    plan = fluidgate("plan", "s.toml", "--gpus", "4", "--plot", "p.png", "--json").json
    assert (plan["scheme"], plan["revenue_rate"], plan["objective"]) == (None, None, None)
    assert plan["token_rate"] > 0
    assert "no prices" in fluidgate("plan", "s.toml").output
    for fidelity in ("markov", "iteration"):
        run = (*SHORT, "--fidelity", fidelity)
        found = fluidgate("simulate", "s.toml", "--policy", "gate-and-route", *run, "--json").json
        assert found["revenue_rate"]["mean"] is None
        assert found["optimality_ratio"]["mean"] is None
        assert "completed per GPU" in fluidgate("simulate", "s.toml", "--policy", "gate-and-route", *run).output
        both = ("compare", "s.toml", "--policy", "gate-and-route,fi-wsp", *run, "--plot", "p.png")
        assert fluidgate(*both, "--json").json["paired"][0]["revenue_difference"]["mean"] is None
    for command in (
        ("frontier", "s.toml", "--indicator", "max_tpot"),
        ("optimum", "s.toml", "--gpus", "1"),
        ("bound", "s.toml", "--gpus", "2"),
        ("tune", "s.toml", "--policy", "index-and-pool", "--gpus", "2"),
    ):
        refused(fluidgate, command, "pricing: missing")
