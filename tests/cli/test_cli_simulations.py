"""`simulate` and `compare`: the contract's objects, the same numbers for the same seed, and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import TWO_CLASS, Command

SMALL = ("--gpus", "5", "--horizon", "200", "--replications", "2")
WHOLE = ("revenue_rate", "optimality_ratio", "objective_ratio")
OF_CLASS = (
    "prefill",
    "mixed_decode",
    "solo_decode",
    "prefill_queue",
    "decode_queue",
    "arrival_rate",
    "prefill_completion_rate",
    "completion_rate",
    "prefill_abandonment_rate",
    "decode_abandonment_rate",
    "ttft",
    "decode_wait",
    "tpot",
)
RUN: dict[str, Any] = {
    "schema": 1,
    "scenario": "two-class",
    "fidelity": "markov",
    "gpus": 5,
    "horizon": 200.0,
    "warmup": 20.0,
    "replications": 2,
    "seed": 0,
}
BODY = {"policy", "events", "wall_seconds", "classes", "indicators", "warnings", *WHOLE}

Scenario = Callable[..., Path]


def check_statistic(statistic: dict[str, Any]) -> None:
    assert set(statistic) == {"mean", "std", "ci95"}
    mean, (low, high) = statistic["mean"], statistic["ci95"]
    assert low <= mean <= high
    assert statistic["std"] >= 0
    half = 12.706204736 * statistic["std"] / math.sqrt(2)  # Student t, one degree of freedom
    assert (high - low) / 2 == pytest.approx(half, rel=1e-6, abs=1e-12)


def check_body(body: dict[str, Any]) -> None:
    assert isinstance(body["events"], int)
    assert body["events"] > 1000
    assert body["wall_seconds"] > 0
    for key in WHOLE:
        check_statistic(body[key])
    assert body["optimality_ratio"]["mean"] == pytest.approx(body["revenue_rate"]["mean"] / 297.70317, rel=1e-6)
    assert [c["name"] for c in body["classes"]] == ["decode-heavy", "prefill-heavy"]
    for each in body["classes"]:
        assert set(each) == {"name", *OF_CLASS}
        for key in OF_CLASS:
            check_statistic(each[key])


def timeless(value: Any) -> Any:
    """The same object without `wall_seconds`, which alone may differ."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key != "wall_seconds"}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def test_simulate_json(fluidgate: Command) -> None:
    outcome = fluidgate("simulate", TWO_CLASS, "--policy", "gate-and-route", *SMALL, "--json")
    assert outcome.status == 0
    assert {key: outcome.json[key] for key in RUN} == RUN
    assert set(outcome.json) == {*RUN, *BODY}
    assert outcome.json["policy"] == "gate-and-route"
    check_body(outcome.json)


def test_one_replication_has_no_interval(fluidgate: Command) -> None:
    found = fluidgate("simulate", TWO_CLASS, "--policy", "fi-wsp", *SMALL, "--replications", "1", "--json").json
    for statistic in (found["revenue_rate"], found["classes"][1]["ttft"]):
        assert statistic["mean"] > 0
        assert (statistic["std"], statistic["ci95"]) == (None, None)


def test_an_alias_is_its_policy(fluidgate: Command) -> None:
    found = [
        fluidgate("simulate", TWO_CLASS, "--policy", name, *SMALL, "--json").json
        for name in ("gg-sp", "gate-and-route")
    ]
    assert timeless(found[0]) == timeless(found[1])


def test_compare_json(fluidgate: Command) -> None:
    names = ["gate-and-route", "fi-wsp", "sli-aware"]
    compared = fluidgate("compare", TWO_CLASS, "--policy", ",".join(names), *SMALL, "--seed", "3", "--json").json
    run = {**RUN, "seed": 3}
    assert {key: compared[key] for key in run} == run
    assert set(compared) == {*run, "policies", "reference", "paired", "warnings"}
    assert compared["reference"] == "gate-and-route"
    assert [p["policy"] for p in compared["paired"]] == names[1:]
    assert [p["policy"] for p in compared["policies"]] == names
    for entry in compared["policies"]:
        assert set(entry) == BODY
        check_body(entry)
        alone = fluidgate("simulate", TWO_CLASS, "--policy", entry["policy"], *SMALL, "--seed", "3", "--json").json
        assert timeless(entry) == {key: timeless(alone[key]) for key in BODY - {"wall_seconds"}}
    first = compared["policies"][0]["revenue_rate"]["mean"]
    for entry, paired in zip(compared["policies"][1:], compared["paired"], strict=True):
        check_statistic(paired["revenue_difference"])
        assert paired["revenue_difference"]["mean"] == pytest.approx(entry["revenue_rate"]["mean"] - first)


def test_policies_meet_the_same_arrivals(fluidgate: Command) -> None:
    compared = fluidgate("compare", TWO_CLASS, *SMALL, "--json").json
    arrivals = [[c["arrival_rate"] for c in p["classes"]] for p in compared["policies"]]
    assert len(arrivals) == 8
    assert all(each == arrivals[0] for each in arrivals)


def test_same_seed_same_numbers_whatever_the_workers(fluidgate: Command) -> None:
    compare = ("compare", TWO_CLASS, "--policy", "gate-and-route,gf-wsp", *SMALL, "--json", "--seed")
    one, two = (fluidgate(*compare, "11", "--workers", workers) for workers in ("1", "2"))
    assert (one.status, two.status) == (0, 0)
    assert timeless(one.json) == timeless(two.json)
    assert timeless(fluidgate(*compare, "11").json) == timeless(one.json)
    assert timeless(fluidgate(*compare, "12").json["policies"]) != timeless(one.json["policies"])


def test_load_of_a_cluster_is_shared(fluidgate: Command) -> None:
    azure = TWO_CLASS.parent / "azure.toml"
    options = ("--policy", "fi-wsp", "--horizon", "20", "--replications", "1", "--json")
    own, half = (fluidgate("simulate", azure, *options, *more).json for more in ((), ("--gpus", "30")))
    assert (own["gpus"], half["gpus"]) == (60, 30)
    rates = [sum(c["arrival_rate"]["mean"] for c in found["classes"]) for found in (own, half)]
    assert rates[1] == pytest.approx(2 * rates[0], rel=0.1)


def test_tables(fluidgate: Command) -> None:
    simulated = fluidgate("simulate", TWO_CLASS, "--policy", "gate-and-route", *SMALL)
    found = fluidgate("simulate", TWO_CLASS, "--policy", "gate-and-route", *SMALL, "--json").json
    for words in ("TTFT", "TPOT", "decode-heavy", "prefill-heavy", f"{found['revenue_rate']['mean']:.6g}"):
        assert words in simulated.output
    compared = fluidgate("compare", TWO_CLASS, "--policy", "fi-wsp,gg-sp", *SMALL)
    lines = [line.split() for line in compared.output.splitlines()]
    assert [words[0] for words in lines if words and words[0] in ("fi-wsp", "gate-and-route")] != []
    assert any(words[0] == "fi-wsp" and "reference" in words for words in lines if words)


@pytest.mark.parametrize(
    ("command", "suffix"),
    [
        (("simulate", "s.toml", "--policy", "gate-and-route", *SMALL), "png"),
        (("simulate", "s.toml", "--policy", "fi-wsp", *SMALL), "svg"),
        (("compare", "s.toml", "--policy", "gate-and-route,fi-wsp", *SMALL), "png"),
        (("plan", "s.toml", "--gpus", "5"), "svg"),
    ],
    ids=lambda c: c if isinstance(c, str) else f"{c[0]}-{c[3]}",
)
def test_pictures(fluidgate: Command, scenario: Scenario, command: tuple[str, ...], suffix: str) -> None:
    scenario()
    outcome = fluidgate(*command, "--plot", f"p.{suffix}", "--json")
    assert outcome.status == 0
    assert outcome.json["schema"] == 1
    content = Path(f"p.{suffix}").read_bytes()
    assert content.startswith(b"\x89PNG\r\n" if suffix == "png" else b"<?xml")
    assert len(content) > 5_000
    assert sorted(p.name for p in Path.cwd().iterdir()) == [f"p.{suffix}", "s.toml"]


def test_the_picture_changes_no_number(fluidgate: Command, scenario: Scenario) -> None:
    command = ("simulate", scenario(), "--policy", "sli-aware", *SMALL, "--json")
    assert timeless(fluidgate(*command, "--plot", "p.png").json) == timeless(fluidgate(*command).json)
