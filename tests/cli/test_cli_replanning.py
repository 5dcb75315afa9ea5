"""Plans that follow the load: `NAME+replan` in `replay`, `simulate` and `compare`, its rule, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import TWO_CLASS, Command
from test_cli_bad_input import refused
from test_cli_simulations import timeless

from fluidgate.replanning import Replanning

NAMES = "gate-and-route,gate-and-route+replan,index-and-pool+replan,vllm-round-robin"
RULE = ("--replan-every", "20", "--look-every", "5", "--estimate-over", "15")
DRAWN = ("--gpus", "5", "--horizon", "200", "--replications", "2", "--fidelity", "iteration")


@pytest.fixture
def flipped(scenario: Callable[..., Path]) -> tuple[Path, Path]:
    """The two-class scenario, and a trace for 4 GPUs that is decode-heavy for 150 s, then prefill-heavy."""
    rng = np.random.default_rng(1)
    lines = ["arrival_time,prompt_tokens,output_tokens,class\n"]
    for start, mix in ((0.0, {"decode-heavy": 400, "prefill-heavy": 60}), (150.0, {"prefill-heavy": 600})):
        rows = [(start + rng.uniform(0.0, 150.0), name) for name, count in mix.items() for _ in range(count)]
        for epoch, name in sorted(rows):
            prompt, output = (300, 1000) if name == "decode-heavy" else (3000, 400)
            lines.append(f"{epoch:.6f},{rng.geometric(1 / prompt)},{rng.geometric(1 / output)},{name}\n")
    file = scenario()
    Path("t.csv").write_text("".join(lines))
    return file, Path("t.csv")


def by_policy(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {body["policy"]: body for body in found["policies"]}


def test_a_replay_says_how_the_plan_followed(fluidgate: Command, flipped: tuple[Path, Path]) -> None:
    found = by_policy(fluidgate("replay", *flipped, "--policy", NAMES, "--gpus", "4", *RULE, "--json").json)
    assert list(found) == NAMES.split(",")
    for name in ("gate-and-route", "vllm-round-robin"):
        assert "replanning" not in found[name]
    told = found["gate-and-route+replan"]["replanning"]
    assert (told["every"], told["look_every"], told["estimate_over"]) == (20.0, 5.0, 15.0)
    assert told["solved"]["mean"] >= told["changed"]["mean"] > 5
    assert told["kept"]["mean"] == 0
    group = told["mixed_group"]
    assert group["time"][:3] == [5.0, 10.0, 15.0]
    assert {len(path) for path in group.values()} == {len(group["time"])}
    time, target = np.array(group["time"]), np.array(group["target"])
    before, after = (time > 50) & (time <= 150), (time > 200) & (time <= 300)
    assert target[before].max() < target[after].min()
    assert (np.array(group["gpus"]) >= target).all(), "it shrinks as prefills end"
    assert (np.array(group["reading"]) <= np.array(group["gpus"])).all()
    assert (np.ceil(np.array(group["planned"]) - 1e-6) == target).all()
    earned = {name: body["revenue_rate"]["mean"] * body["window"] for name, body in found.items()}
    assert earned["gate-and-route+replan"] > 1.2 * earned["gate-and-route"]
    pool = found["index-and-pool+replan"]["replanning"]["mixed_group"]
    assert set(pool["target"]) == {4.0}, "one pool"
    assert max(pool["planned"]) > 1.5 * min(pool["planned"][:30])


def test_the_others_are_as_without_it(fluidgate: Command, flipped: tuple[Path, Path]) -> None:
    both = by_policy(timeless(fluidgate("replay", *flipped, "--policy", NAMES, "--gpus", "4", "--json").json))
    options = ("--policy", "gate-and-route,vllm-round-robin", "--gpus", "4", "--json")
    alone = by_policy(timeless(fluidgate("replay", *flipped, *options).json))
    for name, body in alone.items():
        assert both[name] == body


def test_a_rule_that_never_solves_is_the_plan_that_stands(fluidgate: Command, flipped: tuple[Path, Path]) -> None:
    never = ("--replan-every", "inf", "--replan-moved", "1e9")
    options = ("--policy", "gate-and-route,gate-and-route+replan", "--gpus", "4", *never, "--json")
    found = by_policy(timeless(fluidgate("replay", *flipped, *options).json))
    told = found["gate-and-route+replan"].pop("replanning")
    assert told["every"] is None
    assert (told["solved"]["mean"], told["changed"]["mean"]) == (0, 0)
    assert len(set(told["mixed_group"]["planned"])) == 1
    assert {**found["gate-and-route+replan"], "policy": ""} == {**found["gate-and-route"], "policy": ""}


def test_the_same_numbers_whatever_the_workers(fluidgate: Command, flipped: tuple[Path, Path]) -> None:
    drawn = ("--times", "resample", "--requests", "400", "--replications", "2", "--json")
    command = ("replay", *flipped, "--policy", "gate-and-route+replan,fi-wsp", "--gpus", "4", *RULE, *drawn)
    one, two = (fluidgate(*command, "--workers", w).json for w in ("1", "2"))
    assert timeless(one) == timeless(two)
    assert one["policies"][0]["replanning"]["solved"]["std"] is not None


def test_simulate_and_compare_at_the_fidelity_of_iterations(fluidgate: Command, tmp_path: Path) -> None:
    names = "index-and-pool,index-and-pool+replan,gate-and-route+replan"
    compared = by_policy(fluidgate("compare", TWO_CLASS, "--policy", names, *DRAWN, *RULE, "--json").json)
    single = fluidgate("simulate", TWO_CLASS, "--policy", "gate-and-route+replan", *DRAWN, *RULE, "--json").json
    for key in ("revenue_rate", "classes", "replanning"):
        assert single[key] == compared["gate-and-route+replan"][key]
    assert single["replanning"]["mixed_group"]["time"] == [5.0 * k for k in range(1, 40)]
    picture = tmp_path / "p.svg"
    plotted = fluidgate("simulate", TWO_CLASS, "--policy", "gate-and-route+replan", *DRAWN, *RULE, "--plot", picture)
    assert plotted.status == 0
    assert "plan" in picture.read_text()
    assert "Plans that follow the load" in plotted.output


def test_a_policy_file_and_an_alias_take_it_too(fluidgate: Command, flipped: tuple[Path, Path]) -> None:
    Path("w.toml").write_text('schema = 1\npolicy = "gate-and-route"\n\n[parameters]\nmargin = 0.5\n')
    options = ("--policy", "w.toml+replan,gg-sp+replan", "--gpus", "4", *RULE, "--json")
    wider, alias = fluidgate("replay", *flipped, *options).json["policies"]
    groups = [np.array(body["replanning"]["mixed_group"]["target"]) for body in (wider, alias)]
    assert alias["policy"] == "gate-and-route+replan"
    assert groups[0].mean() > groups[1].mean()


def test_tables_log_and_picture(fluidgate: Command, flipped: tuple[Path, Path]) -> None:
    written = ("--plot", "p.svg", "--log", "l.csv")
    outcome = fluidgate("replay", *flipped, "--policy", NAMES, "--gpus", "4", *RULE, *written)
    assert outcome.status == 0
    for words in ("Plans that follow the load", "solved again", "mixed GPUs, first plan", "gate-and-route+replan"):
        assert words in outcome.output, words
    picture, log = Path("p.svg").read_text(), Path("l.csv").read_text()
    for words in ("mixed group", "in the group", "gate-and-route+replan"):
        assert words in picture, words
    assert log.count("gate-and-route+replan") == 1060, "nobody is lost"
    plain = fluidgate("replay", *flipped, "--policy", "gate-and-route", "--gpus", "4", "--plot", "q.svg")
    assert "follow the load" not in plain.output
    assert "mixed group" not in Path("q.svg").read_text()


def test_a_run_without_a_look(fluidgate: Command, flipped: tuple[Path, Path]) -> None:
    options = ("--policy", "gate-and-route+replan", "--gpus", "4", "--horizon", "8", "--plot", "p.png")
    outcome = fluidgate("replay", *flipped, *options)
    assert outcome.status == 0
    assert "Plans that follow the load" in outcome.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--policy", "vllm-round-robin+replan"), ("'vllm-round-robin'", "no plan", "leave +replan out")),
        (("--policy", "gate-and-rout+replan"), ("'gate-and-rout'", "'gate-and-route'")),
        (("--policy", "fi-wsp+replan,fi-wsp+replan"), ("twice",)),
        (("--policy", "fi-wsp", "--replan-every", "5"), ("no policy follows", "index-and-pool+replan")),
        (("--policy", "fi-wsp+replan", "--replan-every", "0"), ("--replan-every", "0")),
        (("--policy", "fi-wsp+replan", "--look-every", "-1"), ("--look-every",)),
        (("--policy", "fi-wsp+replan", "--look-every", "inf"), ("above 0 s", "inf")),
        (("--policy", "fi-wsp+replan", "--estimate-over", "nan"), ("window", "nan")),
        (("--policy", "fi-wsp+replan", "--estimate-over", "inf"), ("window", "inf")),
        (("--policy", "fi-wsp+replan", "--replan-moved", "-0.1"), ("--replan-moved",)),
        (("--policy", "fi-wsp+replan", "--replan-moved", "nan"), ("moved", "at least 0")),
    ],
    ids=lambda value: " ".join(value)[-40:],
)
def test_what_is_refused(
    fluidgate: Command, flipped: tuple[Path, Path], options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(fluidgate, ["replay", *flipped, "--gpus", "4", *options], *words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("simulate", "--policy", "fi-wsp+replan"), ("'fi-wsp+replan'", "--fidelity iteration")),
        (("simulate", "--policy", "fi-wsp", "--replan-every", "9"), ("--replan-every", "--fidelity iteration")),
        (("compare", "--policy", "fi-wsp,gi-wsp+replan"), ("'gi-wsp+replan'", "--fidelity iteration")),
    ],
    ids=lambda value: " ".join(value)[-40:],
)
def test_the_markov_network_keeps_its_plan(
    fluidgate: Command, scenario: Callable[..., Path], command: tuple[str, ...], words: tuple[str, ...]
) -> None:
    name, *options = command
    refused(fluidgate, [name, scenario(), "--gpus", "2", *options], *words)


@pytest.mark.parametrize("command", ["replay", "simulate", "compare"])
def test_the_help_shows_the_rule_s_defaults(fluidgate: Command, command: str) -> None:
    text = " ".join(fluidgate(command, "--help").output.split())
    rule = Replanning()
    for option, value in (
        ("--replan-every S", rule.period),
        ("--look-every S", rule.look),
        ("--estimate-over S", rule.window),
        ("--replan-moved SHARE", rule.moved),
    ):
        found = re.search(rf"{option}.*?\[default: ([0-9.]+)\]", text)
        assert found, option
        assert float(found[1]) == value
