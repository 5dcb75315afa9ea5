"""`--executor` and `--keep`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import ROOT, TWO_CLASS, Command

SMALL = ("--gpus", "3", "--horizon", "60", "--replications", "2", "--fidelity", "markov", "--json")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)


def numbers(found: dict[str, Any]) -> dict[str, Any]:
    """All but the time that it took."""
    for each in found.get("policies", [found]):
        each.pop("wall_seconds", None)
    return found


@pytest.mark.parametrize(
    ("arguments", "results"),
    [
        (("compare", TWO_CLASS, "--policy", "fi-wsp,gate-and-route", *SMALL), 4),
        (("simulate", TWO_CLASS, "--policy", "fi-wsp", *SMALL), 2),
        (("replay", TWO_CLASS, "decode-heavy=t.csv", "--policy", "fi-wsp", "--gpus", "2", "--json"), 1),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_results_are_kept_and_found(fluidgate: Command, arguments: tuple[Any, ...], results: int) -> None:
    Path("t.csv").write_text("arrival_time,prompt_tokens,output_tokens\n0,100,20\n1,300,40\n3,200,10\n")
    plain = fluidgate(*arguments)
    first = fluidgate(*arguments, "--keep", "kept", "--workers", "1")
    files = {file: file.stat().st_mtime_ns for file in Path("kept").iterdir()}
    again = fluidgate(*arguments, "--keep", "kept", "--executor", "local")
    assert len(files) == results
    assert {file: file.stat().st_mtime_ns for file in Path("kept").iterdir()} == files
    assert first.json == again.json
    assert numbers(first.json) == numbers(plain.json)


@pytest.mark.parametrize("more", ["", '[arrivals]\nprocess = "daily"\nperiod = 240.0\nweights = [1, 2]\n'])
def test_sizing_keeps_what_it_simulates(fluidgate: Command, more: str) -> None:
    fleet = (ROOT / "examples" / "chat-fleet.toml").read_text("utf-8")
    Path("f.toml").write_text(fleet + more, "utf-8")
    arguments = ("size", "f.toml", "--rate-scale", "0.2", "--workers", "1", "--json")
    plain, first = fluidgate(*arguments).json, fluidgate(*arguments, "--keep", "kept").json
    simulated = {file: file.stat().st_mtime_ns for file in Path("kept").iterdir()}
    assert len(simulated) >= 4
    again = fluidgate(*arguments, "--keep", "kept").json
    assert {file: file.stat().st_mtime_ns for file in Path("kept").iterdir()} == simulated
    assert numbers(first) == numbers(again) == numbers(plain)


def test_tuning_keeps_what_it_tries(fluidgate: Command) -> None:
    arguments = ("tune", TWO_CLASS, "--gpus", "2", "--budget", "3e6", "--workers", "1", "--json")
    first = fluidgate(*arguments, "--keep", "kept")
    tried = len(list(Path("kept").iterdir()))
    assert tried > 96
    assert fluidgate(*arguments, "--keep", "kept").json == first.json
    assert len(list(Path("kept").iterdir())) == tried


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--executor", "rya"), ("--executor: must be local, ray or ray://HOST:PORT, but is 'rya'",)),
        (("--executor", "ray://"), ("--executor: must be",)),
        (("--executor", "ray", "--workers", "2"), ("--workers: is of this machine",)),
        (("--keep", "file/kept"), ("--keep: 'file/kept' can't be written to (Not a directory)", "name another")),
    ],
)
@pytest.mark.parametrize(
    "command", [("compare", TWO_CLASS, *SMALL), ("tune", TWO_CLASS, "--gpus", "2"), ("paper", "table-3")]
)
def test_what_cannot_be_is_refused(
    fluidgate: Command, command: tuple[Any, ...], options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    Path("file").touch()
    outcome = fluidgate(*command, *options)
    assert (outcome.status, outcome.output, len(outcome.notices)) == (2, "", 1)
    for word in words:
        assert word in outcome.notices[0]
    assert [path.name for path in Path.cwd().iterdir()] == ["file"]


def test_a_log_is_written_by_this_process(fluidgate: Command) -> None:
    Path("t.csv").write_text("arrival_time,prompt_tokens,output_tokens\n0,100,20\n1,300,40\n3,200,10\n")
    arguments = ("replay", TWO_CLASS, "decode-heavy=t.csv", "--policy", "fi-wsp", "--gpus", "2")
    outcome = fluidgate(*arguments, "--log", "log.csv", "--keep", "kept")
    assert outcome.status == 2
    assert outcome.notices[-1].startswith("fluidgate: --log: is written where the requests are; leave it out")
    assert not Path("log.csv").exists()
