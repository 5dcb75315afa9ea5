"""`fluidgate tune` and policy files on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command import Command

Scenario = Callable[..., Path]
TUNE = ("tune", "s.toml", "--gpus", "4", "--policy", "gate-and-route", "--budget", "6e6", "--workers", "1")
SMALL = ("--gpus", "4", "--horizon", "100", "--replications", "2")
WIDE = 'schema = 1\npolicy = "gate-and-route"\n[parameters]\nmargin = 1.0\n'


def test_file_is_written_and_read(fluidgate: Command, scenario: Scenario) -> None:
    scenario()
    tuned = fluidgate(*TUNE, "-o", "p.toml", "--plot", "p.svg")
    assert tuned.status == 0
    assert "less the default" in tuned.output
    assert "next: fluidgate simulate s.toml --policy p.toml" in tuned.output
    assert Path("p.svg").read_bytes().startswith(b"<?xml")
    text = Path("p.toml").read_text("utf-8")
    assert 'command = "fluidgate tune s.toml --gpus 4 --policy gate-and-route --budget 6e+06 --seed 0"' in text
    compared = fluidgate("compare", "s.toml", "--policy", "gate-and-route,p.toml", *SMALL, "--json").json
    assert [p["policy"] for p in compared["policies"]] == ["gate-and-route", "p.toml"]
    elsewhere = fluidgate("simulate", "s.toml", "--policy", "p.toml", *SMALL, "--gpus", "5")
    assert any("p.toml was tuned for 'two-class' on 4 GPUs" in line for line in elsewhere.notices)
    again = fluidgate(*TUNE, "--json")
    shown = fluidgate(*TUNE)
    assert again.json["parameters"]["margin"] == pytest.approx(float(text.split("margin = ")[1].split()[0]))
    assert text in shown.output


def test_nothing_is_overwritten_unasked(fluidgate: Command, scenario: Scenario) -> None:
    scenario()
    Path("p.toml").write_text(WIDE, "utf-8")
    refused = fluidgate(*TUNE, "-o", "p.toml")
    assert (refused.status, refused.output) == (2, "")
    assert refused.notices == ["fluidgate: p.toml: is there already; give another path, or --force to replace it"]
    assert Path("p.toml").read_text("utf-8") == WIDE
    assert fluidgate(*TUNE, "-o", "p.toml", "--force").status == 0
    assert "[tuned]" in Path("p.toml").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tune", "s.toml", "--gpus", "4", "--policy", "fi-wsp"), "no parameters to tune"),
        (("tune", "s.toml", "--gpus", "4", "--policy", "none.toml"), "none.toml: no such file"),
        (("tune", "s.toml"), "--gpus: missing"),
        (("tune", "s.toml", "--gpus", "4", "--budget", "9"), "--budget: must be"),
        (("tune", "s.toml", "--gpus", "4", "-o", "p.json"), "p.json: a policy file ends in .toml"),
        (("tune", "s.toml", "--gpus", "4", "-o", "none/p.toml"), "no folder 'none'"),
        (("simulate", "s.toml", "--policy", "wrong.toml", *SMALL), "wrong.toml: parameters.margim"),
        (("compare", "s.toml", "--policy", "gg-sp,wrong.toml", *SMALL), "wrong.toml: parameters.margim"),
        (("optimum", "s.toml", "--gpus", "1", "--policy", "wrong.toml"), "wrong.toml: parameters.margim"),
        (("schema", "policies"), "'policy'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes(fluidgate: Command, scenario: Scenario, arguments: tuple[str, ...], words: str) -> None:
    scenario()
    Path("wrong.toml").write_text(WIDE.replace("margin", "margim"), "utf-8")
    outcome = fluidgate(*arguments)
    assert (outcome.status, outcome.output, len(outcome.notices)) == (2, "", 1)
    assert words in outcome.notices[0]
