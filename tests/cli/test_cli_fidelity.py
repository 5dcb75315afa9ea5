"""`simulate` and `compare` at the fidelity of iterations: the contract's keys, common requests, the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import TWO_CLASS, Command
from test_cli_simulations import OF_CLASS, timeless

SMALL = ("--gpus", "5", "--horizon", "200", "--replications", "2", "--fidelity", "iteration")
TIMES = ("ttft", "tpot", "decode_wait", "prefill_wait", "latency", "gap", "stall")
QUANTILES = ("p50", "p90", "p95", "p99")
RATES = (
    "goodput",
    "prompt_token_rate",
    "output_token_rate",
    "preemption_rate",
    "rejection_rate",
    "loss_rate",
    "prefix_hit_rate",
)
BODY = {
    *("policy", "events", "wall_seconds", "revenue_rate", "optimality_ratio", "objective_ratio", "classes", "warnings"),
    *("batching", "parameters", "pilot", "overall", "gpu_time", "indicators", "kv_tokens", "iterations", "window"),
    *("gpu_hours", "availability"),
}
RUN = {"schema", "scenario", "fidelity", "gpus", "horizon", "warmup", "replications", "seed"}
R_STAR = 297.70317

Scenario = Callable[..., Path]


def check_class(each: dict[str, Any]) -> None:
    assert set(each) == {"name", *OF_CLASS, *TIMES, *RATES}
    for key in TIMES:
        time = each[key]
        assert set(time) == {"mean", "std", "ci95", "count", *QUANTILES, *(f"{name}_ci95" for name in QUANTILES)}
        assert time["count"] > 0
        quantiles = [time[name] * (1 + k * 1e-9) for k, name in enumerate(QUANTILES)]
        assert quantiles[0] >= 0
        assert quantiles == sorted(quantiles)
        for name in QUANTILES:
            low, high = time[f"{name}_ci95"]
            assert low <= high
        assert time["ci95"][0] <= time["mean"] <= time["ci95"][1]
    assert each["ttft"]["mean"] + each["tpot"]["mean"] < each["latency"]["mean"]
    assert each["tpot"]["p50"] >= 1 / 45.45 * 0.998, "no token comes faster than on a solo GPU"


def test_simulate_json(fluidgate: Command) -> None:
    found = fluidgate("simulate", TWO_CLASS, "--policy", "gate-and-route", *SMALL, "--json").json
    assert set(found) == BODY | RUN
    assert (found["fidelity"], found["batching"], found["window"]) == ("iteration", "single-prefill", 180.0)
    assert found["optimality_ratio"]["mean"] == pytest.approx(found["revenue_rate"]["mean"] / R_STAR, rel=1e-6)
    assert [c["name"] for c in found["classes"]] == ["decode-heavy", "prefill-heavy"]
    for each in (*found["classes"], found["overall"]):
        check_class(each)
        assert each["goodput"]["mean"] is None, "the scenario has no targets"
    assert sum(share["mean"] for share in found["gpu_time"].values()) == pytest.approx(1.0)
    # What is paid are the tokens of completed requests, at 0.1 and 0.2.
    output = found["overall"]["output_token_rate"]["mean"]
    assert 0.2 * output < found["revenue_rate"]["mean"] < 0.2 * output + 0.1 * 3000
    total = sum(c["completion_rate"]["mean"] for c in found["classes"])
    assert found["overall"]["completion_rate"]["mean"] == pytest.approx(total)


def test_compare_meets_the_same_requests_and_gives_what_simulate_gives(fluidgate: Command) -> None:
    names = ["gate-and-route", "vllm-round-robin", "prefill-first-least-loaded"]
    command = ("compare", TWO_CLASS, "--policy", ",".join(names), *SMALL, "--json")
    compared = fluidgate(*command, "--workers", "1").json
    assert timeless(fluidgate(*command, "--workers", "2").json) == timeless(compared)
    assert set(compared) == {*RUN, "policies", "reference", "paired", "warnings"}
    assert [p["policy"] for p in compared["paired"]] == names[1:]
    assert [p["batching"] for p in compared["policies"]] == ["single-prefill", "token-budget", "prefill-first"]
    arrivals = [[c["arrival_rate"] for c in p["classes"]] for p in compared["policies"]]
    assert arrivals[1:] == arrivals[:-1]
    for entry in compared["policies"]:
        alone = fluidgate("simulate", TWO_CLASS, "--policy", entry["policy"], *SMALL, "--json").json
        assert timeless(entry) == {key: timeless(alone[key]) for key in BODY - {"wall_seconds"}}
    revenues = [p["revenue_rate"]["mean"] for p in compared["policies"]]
    for paired, revenue in zip(compared["paired"], revenues[1:], strict=True):
        assert paired["revenue_difference"]["mean"] == pytest.approx(revenue - revenues[0])
    assert revenues[0] != revenues[1]


def test_the_engine_of_the_scenario_is_what_runs(fluidgate: Command, scenario: Scenario) -> None:
    def run(policy: str, more: str) -> dict[str, Any]:
        file = scenario(more=more)
        outcome = fluidgate("simulate", file, "--policy", policy, *SMALL, "--replications", "1", "--json")
        assert outcome.status == 0, outcome
        return outcome.json

    plain = run("vllm-round-robin", "")
    tight = run("vllm-round-robin", "[engine]\nkv_tokens = 16000\n")
    assert plain["overall"]["preemption_rate"]["mean"] == 0.0
    assert tight["overall"]["preemption_rate"]["mean"] > 0.0
    assert plain["kv_tokens"]["peak"] > 16000 >= tight["kv_tokens"]["peak"]
    swapped = run("vllm-round-robin", '[engine]\nkv_tokens = 16000\npreemption = "swap"\nswap_seconds = 1e-5\n')
    assert swapped["revenue_rate"] != tight["revenue_rate"]
    small = run("vllm-round-robin", "[engine]\nmax_batched_tokens = 32\n")
    assert small["overall"]["ttft"]["mean"] > plain["overall"]["ttft"]["mean"]
    rejecting = run("vllm-round-robin", "[engine]\nkv_tokens = 2000\n")
    assert rejecting["overall"]["rejection_rate"]["mean"] > 0.0

    plain = run("gate-and-route", "")
    slow = run("gate-and-route", "[engine]\ntransfer_latency = 2.0\ntransfer_bandwidth = 1e4\n")
    assert slow["overall"]["decode_wait"]["mean"] > plain["overall"]["decode_wait"]["mean"] + 0.5


def test_goodput_counts_what_keeps_its_targets(fluidgate: Command, scenario: Scenario) -> None:
    def goodput(more: str) -> list[dict[str, Any]]:
        file = scenario(more=more)
        found = fluidgate("simulate", file, "--policy", "fi-wsp", *SMALL, "--json").json
        return [*found["classes"], found["overall"]]

    for each in goodput("[targets]\nttft = 1e6\n"):
        assert each["goodput"] == each["completion_rate"]
    for each in goodput("[targets]\nttft = 0.5\ntpot = 0.03\n"):
        assert 0 < each["goodput"]["mean"] < each["completion_rate"]["mean"]
    first, second, _ = goodput("ttft_target = 1e-6\n")  # goes to the last class
    assert first["goodput"]["mean"] is None
    assert second["goodput"]["mean"] == 0.0


def test_a_policy_that_batches_otherwise_than_the_engine_is_refused(fluidgate: Command, scenario: Scenario) -> None:
    file = scenario(more='[engine]\nbatching = "token-budget"\n')
    refused = fluidgate("compare", file, "--policy", "vllm-lmetric,fi-wsp", *SMALL)
    assert refused.status == 2
    assert refused.notices == [
        "fluidgate: policy 'fi-wsp' needs single-prefill batching, but the scenario has "
        'engine.batching = "token-budget"; remove that key, or name another policy'
    ]
    assert fluidgate("simulate", file, "--policy", "vllm-lmetric", *SMALL, "--json").status == 0


def test_arrivals_that_the_markov_network_does_not_know(fluidgate: Command, scenario: Scenario) -> None:
    file = scenario(more='[arrivals]\nprocess = "mmpp"\nlevels = [1, 8]\nsojourns = [50, 5]\n')
    refused = fluidgate("simulate", file, "--policy", "fi-wsp", *SMALL[:-2], "--fidelity", "markov")
    assert refused.status == 2
    assert "'mmpp' is unknown to the Markov network; use --fidelity iteration" in refused.notices[0]
    assert fluidgate("simulate", file, "--policy", "fi-wsp", *SMALL[:-2], "--json").json["fidelity"] == "iteration"


def test_tables_and_pictures(fluidgate: Command, scenario: Scenario) -> None:
    file = scenario(more="[targets]\nttft = 1\n")
    simulated = fluidgate("simulate", file, "--policy", "vllm-least-loaded", *SMALL, "--plot", "p.png")
    for words in (
        "token-budget",
        "p99",
        "TTFT, s",
        "TPOT, ms",
        "latency, s",
        "goodput",
        "KV tokens",
        "GPU time",
        "all",
    ):
        assert words in simulated.output, words
    assert Path("p.png").stat().st_size > 5000
    compared = fluidgate("compare", file, "--policy", "fi-wsp,vllm-least-loaded", *SMALL)
    lines = [line.split() for line in compared.output.splitlines()]
    assert sum(words[:1] == ["vllm-least-loaded"] for words in lines) == 2 + 4 * 3
    assert any(words[:2] == ["fi-wsp", "single-prefill"] for words in lines)
