"""The published policies in the commands: each by its name, with what is found for it and what it is refused for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command import TWO_CLASS, Command
from test_cli_bad_input import refused
from test_cli_simulations import timeless

from fluidgate.policies import PLACED

SMALL = ("--gpus", "4", "--horizon", "150", "--fidelity", "iteration")
TARGETS = "[targets]\nttft = 1\ntpot = 0.1\n"
WHERE_THEY_DIFFER = ("overall", "gpu_time", "kv_tokens")

Scenario = Callable[..., Path]


def test_all_are_listed_with_their_sources(fluidgate: Command) -> None:
    listed = {p["name"]: p for p in fluidgate("policies", "--json").json["policies"]}
    for name, policy in PLACED.items():
        assert (listed[name]["source"], listed[name]["fidelity"]) == (policy.source, ["iteration"])
        assert [p["name"] for p in listed[name]["parameters"]] == [p.name for p in policy.parameters]
    assert all(name in fluidgate("policies").output for name in (*PLACED, "prefill-first", "lmetric"))


def test_every_policy_runs_by_name_whatever_the_workers(fluidgate: Command, scenario: Scenario) -> None:
    command = ("compare", scenario(more=TARGETS), "--policy", ",".join(PLACED), *SMALL, "--replications", "2")
    one = fluidgate(*command, "--json", "--workers", "1").json
    assert timeless(fluidgate(*command, "--json", "--workers", "2").json) == timeless(one)
    bodies = {body["policy"]: body for body in one["policies"]}
    assert list(bodies) == list(PLACED)
    told = [str([body[key] for key in WHERE_THEY_DIFFER]) for body in bodies.values()]
    alike = 2  # where no prefixes are kept: sticky as least-prefill, cache-aware as least-loaded
    assert len(set(told)) == len(told) - alike, "no others do the same"
    for name, body in bodies.items():
        assert body["batching"] == PLACED[name].batching
        assert body["overall"]["completion_rate"]["mean"] > 0.2
        assert set(body["parameters"]) == set(PLACED[name].values)
    for name in ("distserve", "splitwise"):
        assert 1 <= bodies[name]["parameters"]["prompt_gpus"] <= 3
        maximised = "requests within targets, then least mean latency"
        assert bodies[name]["pilot"]["maximised"] == maximised
        assert 400 < bodies[name]["pilot"]["requests"] <= 4 * 2 * 300
        assert bodies[name]["gpu_time"]["prefill"]["mean"] > 0
    assert bodies["slai"]["pilot"] is None


def test_the_size_of_a_prompt_pool_is_shown_and_can_be_given(fluidgate: Command, scenario: Scenario) -> None:
    file = scenario()
    found = fluidgate("simulate", file, "--policy", "distserve", *SMALL, "--replications", "1", "--json").json
    size = found["parameters"]["prompt_gpus"]
    assert found["pilot"]["maximised"] == "revenue, then least mean latency", "there are no targets"
    Path("given.toml").write_text(f"schema = 1\npolicy = 'distserve'\n[parameters]\nprompt_gpus = {size}\n")
    Path("other.toml").write_text(f"schema = 1\npolicy = 'distserve'\n[parameters]\nprompt_gpus = {4 - size}\n")
    names = ["distserve", "given.toml", *(["other.toml"] if size != 2 else [])]
    command = ("compare", file, "--policy", ",".join(names), *SMALL, "--replications", "1")
    bodies = fluidgate(*command, "--json").json["policies"]
    assert bodies[1]["overall"] == bodies[0]["overall"] == found["overall"]
    assert (bodies[1]["pilot"], bodies[1]["parameters"]) == (None, bodies[0]["parameters"])
    for other in bodies[2:]:
        assert other["overall"]["latency"] != found["overall"]["latency"]
    lines = [line.split() for line in fluidgate(*command).output.splitlines()]
    assert any(words[:2] == ["distserve", "a"] and words[-2:] == [str(size), str(4 - size)] for words in lines)
    assert any(words[:2] == ["given.toml", "given"] for words in lines)
    alone = fluidgate("simulate", file, "--policy", "distserve", *SMALL, "--replications", "1").output
    assert f"prompt_gpus {size}, pilot 300" in alone
    assert "a pilot run of" in alone


def test_slai_keeps_the_deadline_of_the_targets(fluidgate: Command, scenario: Scenario) -> None:
    def first_token(policy: str, tpot: float) -> float:
        light = ("arrival_rate = 0.5", "arrival_rate = 0.2")
        file = scenario(light, more=f"[targets]\ntpot = {tpot}\n[engine]\nmax_batched_tokens = 40\n")
        found = fluidgate("simulate", file, "--policy", policy, *SMALL, "--replications", "1", "--json").json
        return float(found["overall"]["ttft"]["mean"])

    # An iteration of 40 tokens takes 20 ms: decodes are always critical for 30 ms, and hardly ever for 1 s.
    assert first_token("slai", 0.03) == pytest.approx(first_token("vllm-round-robin", 0.03))
    assert first_token("slai", 1.0) < 0.95 * first_token("vllm-round-robin", 1.0)
    without = ("simulate", TWO_CLASS, "--policy", "slai", *SMALL)
    refused(
        fluidgate, without, "targets.tpot: last-schedulable batching (slai) keeps to the least TPOT target", "give one"
    )


def test_replay_runs_them(fluidgate: Command, scenario: Scenario) -> None:
    lines = ["arrival_time,prompt_tokens,output_tokens,class"]
    lines += [f"{k * 0.7:.3f},{100 + 37 * k % 900},{50 + 11 * k % 90},prefill-heavy" for k in range(200)]
    Path("t.csv").write_text("\n".join(lines) + "\n")
    file = scenario(("patience_rate = 0.1", "patience_rate = 0"), more=TARGETS)
    command = ("replay", file, "t.csv", "--gpus", "3", "--policy", "distserve,splitwise,slai,wait")
    found = fluidgate(*command, "--json").json
    assert [body["overall"]["latency"]["count"] for body in found["policies"]] == [200] * 4
    assert [body["pilot"] and body["pilot"]["requests"] for body in found["policies"]] == [200, 200, None, None]
    assert "Pools" in fluidgate(*command).output


@pytest.mark.parametrize("policy", ["distserve", "splitwise"])
def test_pools_that_the_gpus_cannot_fill(fluidgate: Command, scenario: Scenario, policy: str) -> None:
    file = scenario()
    one = ("simulate", file, "--policy", policy, *SMALL, "--gpus", "1")
    refused(fluidgate, one, f"policy '{policy}' needs a GPU for prompts and one for decodes; give at least 2 GPUs")
    Path("p.toml").write_text(f"schema = 1\npolicy = '{policy}'\n[parameters]\nprompt_gpus = 4\n")
    four = ("simulate", file, "--policy", "p.toml", *SMALL)
    refused(fluidgate, four, "policy 'p.toml': parameters.prompt_gpus: 4 of 4 GPUs", "give at most 3")


def test_other_fidelities_and_tuning_refuse_them(fluidgate: Command, scenario: Scenario) -> None:
    for command, policy in (("simulate", "wait"), ("tune", "lmetric")):
        refused(fluidgate, (command, scenario(), "--policy", policy, "--gpus", "4"), "--fidelity iteration")
