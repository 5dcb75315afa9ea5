"""How commands print: widths, formats, and what they do with options that were spelt otherwise."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, TWO_CLASS, Command, Outcome

SMALL = ("--gpus", "2", "--horizon", "50", "--replications", "2")
COMPARE = ("compare", TWO_CLASS, *SMALL)


def untimed(outcome: Outcome) -> dict[str, Any]:
    """JSON without what the clock says."""
    text = re.sub(r'"wall_seconds": [^,\n]+', '"wall_seconds": 0', json.dumps(outcome.json))
    return json.loads(text)  # type: ignore[no-any-return]


def test_names_are_whole_at_80_columns(fluidgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command, key in (("policies", "policies"), ("profiles", "profiles")):
        names = [each["name"] for each in fluidgate(command, "--json").json[key]]
        lines = fluidgate(command).output.splitlines()
        assert max(map(len, lines)) <= 80
        for name in names:
            assert any(name in line.split() for line in lines), name
    compared = fluidgate(*COMPARE, "--policy", "capped-gate-and-route,gate-and-route").output.splitlines()
    assert max(map(len, compared)) <= 80
    assert sum("capped-gate-and-route " in line for line in compared) >= 1


def test_policies_are_named_one_way(fluidgate: Command) -> None:
    once = fluidgate(*COMPARE, "--policy", "gate-and-route,fi-wsp", "--json")
    assert [each["policy"] for each in once.json["policies"]] == ["gate-and-route", "fi-wsp"]
    for spelt in (("--policy", "gate-and-route", "--policy", "fi-wsp"), ("--policies", "gate-and-route,fi-wsp")):
        assert untimed(fluidgate(*COMPARE, *spelt, "--json")) == untimed(once)


@pytest.mark.parametrize("command", ["compare", "replay", "optimum", "bound", "size"])
def test_every_command_of_several_policies_takes_lists_and_hides_the_former_name(
    fluidgate: Command, command: str
) -> None:
    shown = fluidgate(command, "--help").output
    assert "--policy A,B,..." in shown
    assert "--policies" not in shown


@pytest.mark.parametrize("command", [("simulate",), ("tune",), ("plan", "--latency")])
def test_commands_of_one_policy_say_so(fluidgate: Command, command: tuple[str, ...]) -> None:
    outcome = fluidgate(command[0], TWO_CLASS, *command[1:], "--gpus", "2", "--policy", "fi-wsp,gi-wsp")
    assert outcome.status == 2
    assert "takes one" in outcome.notices[0]


TABLES = [
    ("policies",),
    ("profiles",),
    ("plan", TWO_CLASS, "--gpus", "2"),
    ("simulate", TWO_CLASS, "--policy", "fi-wsp", *SMALL),
    (*COMPARE, "--policy", "fi-wsp,gi-wsp"),
    ("frontier", TWO_CLASS, "--indicator", "max_tpot", "--points", "3"),
    ("calibrate", ROOT / "examples" / "measurements.csv"),
    ("workload", ROOT / "examples" / "agents-sessions.jsonl", "--gpus", "1"),
]


@pytest.mark.parametrize("command", TABLES, ids=lambda command: command[0])
def test_every_table_has_every_format(fluidgate: Command, command: tuple[object, ...]) -> None:
    blocks = fluidgate(*command, "--format", "csv").output.split("\n\n")
    for block in blocks:
        text = block.partition("\n")[2] if block.startswith("# ") else block
        rows = list(csv.reader(io.StringIO(text)))
        assert len(rows) > 1
        assert len({len(row) for row in rows}) == 1
        assert len(set(rows[0])) == len(rows[0])
    markdown = fluidgate(*command, "--format", "markdown").output
    assert markdown.count("|---") >= len(blocks)
    latex = fluidgate(*command, "--format", "latex").output
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == len(blocks)
    assert untimed(fluidgate(*command, "--format", "json")) == untimed(fluidgate(*command, "--json"))


def test_the_claims_of_the_paper_are_a_table_too(fluidgate: Command, tmp_path: Path) -> None:
    text = fluidgate("paper", "table-2", "--quick", "--out", tmp_path, "--format", "csv").output
    (claim,) = csv.DictReader(io.StringIO(text))
    assert (claim["item"], claim["answer"]) == ("table-2", "not judged")


def test_two_formats_at_once_are_refused(fluidgate: Command) -> None:
    outcome = fluidgate("policies", "--json", "--format", "csv")
    assert outcome.status == 2
    assert "--format csv" in outcome.notices[0]


def test_what_to_do_next_stays_out_of_csv(fluidgate: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    trace = ROOT / "examples" / "agents-sessions.jsonl"
    outcome = fluidgate("workload", trace, "--gpus", "1", "-o", "s.toml", "--format", "csv")
    assert "next:" not in outcome.output
    assert any("next: fluidgate plan s.toml" in line for line in outcome.notices)
    assert json.loads(fluidgate("plan", "s.toml", "--format", "json").output)["schema"] == 1


class Input:
    """Standard input with this content."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


def test_files_are_read_from_standard_input(fluidgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Input(TWO_CLASS.read_bytes()))
    assert fluidgate("plan", "-", "--json").json == fluidgate("plan", TWO_CLASS, "--json").json
    trace = "arrival_time,prompt_tokens,output_tokens\n0,100,20\n1,300,40\n3,200,10\n"
    monkeypatch.setattr("sys.stdin", Input(gzip.compress(trace.encode())))
    made = fluidgate("workload", "chat=-", "--gpus", "1", "--json").json
    assert [each["name"] for each in made["classes"]] == ["chat"]
    monkeypatch.setattr("sys.stdin", Input(b"[engines]\nurl = 1\n"))
    assert fluidgate("serve", "-", "--check").notices[0].startswith("fluidgate: stdin: ")
    monkeypatch.setattr("sys.stdin", Input(b"name = \n"))
    assert fluidgate("plan", "-").notices[0].startswith("fluidgate: stdin: line 1, column 8: not TOML")
