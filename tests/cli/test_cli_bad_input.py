"""Bad input: exit status 2, one line on standard error, nothing on standard output, no file, no traceback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from command import Command

SMALL = ("--gpus", "5", "--horizon", "200", "--replications", "2")
SIMULATE = ("simulate", "s.toml", "--policy", "gate-and-route", *SMALL)
COMPARE = ("compare", "s.toml", *SMALL)
WORKLOAD = ("workload", "t.csv", "--gpus", "4", "-o", "out.toml")
HEADER = "arrival_time,prompt_tokens,output_tokens\n"
GOOD_TRACE = HEADER + "0,100,20\n1,300,40\n3,200,10\n"
PATIENT = ("patience_rate = 0.1", "patience_rate = 0")

Scenario = Callable[..., Path]


def refused(fluidgate: Command, arguments: Sequence[object], *words: str) -> None:
    """Run the command and check how it refuses; each of `words` is in its line."""
    before = sorted(Path.cwd().rglob("*"))
    outcome = fluidgate(*arguments)
    assert outcome.status == 2, outcome
    assert outcome.output == ""
    assert len(outcome.notices) == 1, outcome.notices
    line = outcome.notices[0]
    assert line.startswith("fluidgate: ")
    assert "Traceback" not in line
    for word in words:
        assert word in line, line
    assert sorted(Path.cwd().rglob("*")) == before


@pytest.mark.parametrize("command", [("plan",), ("simulate", "--policy", "fi-wsp", *SMALL), ("compare", *SMALL)])
def test_missing_scenario_file(fluidgate: Command, scenario: Scenario, command: tuple[str, ...]) -> None:
    scenario()
    refused(fluidgate, [command[0], "none.toml", *command[1:]], "none.toml", "no such file")


@pytest.mark.parametrize(
    ("exchange", "words"),
    [
        (("beta = 6.2e-5", "beta = "), ("s.toml", "line 13", "not TOML")),
        (("chunk_size", "chunk_sizes"), ("gpu.chunk_sizes", "unknown key", "'chunk_size'")),
        (('scheme = "bundled"', 'scheme = "bundles"'), ("pricing.scheme", "'bundled'")),
        (("batch_size = 16", "batch_size = 0"), ("gpu.batch_size", "at least 1")),
        (("batch_size = 16", "batch_size = 1.5"), ("gpu.batch_size", "whole number")),
        (("chunk_size = 256", "chunk_size = -1"), ("gpu.chunk_size", "at least 1")),
        (("alpha = 0.0174", "alpha = -1"), ("gpu.alpha", "greater than 0")),
        (("beta = 6.2e-5", "beta = 0"), ("gpu.beta", "greater than 0")),
        (("gamma = 45.45", "gamma = -45.45"), ("gpu.gamma", "greater than 0")),
        (("gamma = 45.45", "gamma = nan"), ("gpu.gamma", "finite")),
        (("gamma = 45.45", "gamma = inf"), ("gpu.gamma", "finite")),
        (("gamma = 45.45", 'gamma = "fast"'), ("gpu.gamma", "number")),
        (("prompt = 0.1", "prompt = -0.1"), ("pricing.prompt", "at least 0")),
        (("output_tokens = 400", "output_tokens = 0"), ("classes[1]", "'prefill-heavy'", "output_tokens")),
        (("prompt_tokens = 3000", "prompt_tokens = nan"), ("classes[1]", "prompt_tokens", "finite")),
        (("arrival_rate = 0.5 ", "arrival_rate = 0 "), ("classes[0]", "arrival_rate", "greater than 0")),
        (("arrival_rate = 0.5 ", "arrival_rate = inf "), ("classes[0]", "arrival_rate", "finite")),
        (("patience_rate = 0.1 ", "patience_rate = -1 "), ("classes[0]", "patience_rate", "at least 0")),
        (("patience_rate = 0.1 ", "# "), ("classes[0]", "patience_rate", "missing")),
        (('"prefill-heavy"', '"decode-heavy"'), ("classes[1]", "name", "classes[0]")),
        (('name = "two-class"', 'name = "two-class"\nspeed = 1'), ("speed", "unknown key", "remove it")),
        (("alpha = 0.0174", 'profile = "a100-40gb/qwen-8b"'), ("gpu.beta", "profile")),
    ],
    ids=lambda value: value[1][:40] if isinstance(value[0], str) and len(value) == 2 else None,
)
def test_wrong_scenario(
    fluidgate: Command, scenario: Scenario, exchange: tuple[str, str], words: tuple[str, ...]
) -> None:
    refused(fluidgate, ["plan", scenario(exchange)], "s.toml", *words)


def test_no_classes(fluidgate: Command, scenario: Scenario) -> None:
    path = scenario()
    head = path.read_text("utf-8").partition("[[classes]]")[0]
    path.write_text(head, "utf-8")
    refused(fluidgate, ["plan", path], "s.toml: classes: missing")
    path.write_text("classes = []\n" + head, "utf-8")
    refused(fluidgate, ["plan", path], "s.toml: classes: must have at least 1")


def test_unknown_profile(fluidgate: Command, scenario: Scenario) -> None:
    exchanges = [("alpha = 0.0174", 'profile = "a100-40gb/qwen-9b"'), ("beta = 6.2e-5", ""), ("gamma = 45.45", "")]
    refused(fluidgate, ["plan", scenario(*exchanges)], "gpu.profile", "'a100-40gb/qwen-8b'")


def test_wrong_indicator(fluidgate: Command, scenario: Scenario) -> None:
    refused(fluidgate, ["plan", scenario(more="[indicators]\nmax_tpot = -1\n")], "indicators.max_tpot")


@pytest.mark.parametrize("command", [("plan",), ("simulate", "--policy", "fi-wsp", *SMALL), COMPARE[:1] + SMALL])
def test_infeasible_plan(fluidgate: Command, scenario: Scenario, command: tuple[str, ...]) -> None:
    arguments = [command[0], scenario(PATIENT), *command[1:]]
    refused(fluidgate, arguments, "'decode-heavy' 0.03173", "1.045 times the GPUs", "patience_rate")


def test_limit_out_of_reach(fluidgate: Command, scenario: Scenario) -> None:
    path = scenario(more="[indicators]\nmax_tpot = 0.02\n")
    refused(fluidgate, ["plan", path, "--json", "--plot", "p.png"], "max_tpot 0.02", "0.0220023")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plan", "s.toml", "--gpus", "0"), ("--gpus", "at least 1")),
        (("plan", "s.toml", "--gpus", "-3"), ("--gpus", "at least 1")),
        (("plan", "s.toml", "--gpus", "1e3"), ("--gpus", "'1e3'", "write 1000")),
        (("plan", "s.toml", "extra"), ("extra",)),
        (("plan", "s.toml", "--plott", "p.png"), ("--plott", "fluidgate plan --help")),
        (("plan",), ("SCENARIO",)),
        (("plann", "s.toml"), ("'plann'", "'plan'")),
        (("simulate", "s.toml", *SMALL), ("--policy",)),
        (("simulate", "s.toml", "--policy", "fi-wsp"), ("--gpus", "missing")),
        (("compare", "s.toml"), ("--gpus", "missing")),
        ((*SIMULATE, "--gpus", "0"), ("--gpus", "at least 1")),
        ((*SIMULATE, "--gpus", "five"), ("--gpus", "'five'")),
        ((*SIMULATE, "--policy", "gate-and-rout"), ("'gate-and-rout'", "'gate-and-route'")),
        ((*SIMULATE, "--policy", "fi_wsp"), ("'fi_wsp'", "'fi-wsp'")),
        ((*SIMULATE, "--warmup", "200"), ("--warmup", "200")),
        ((*SIMULATE, "--warmup", "-1"), ("--warmup", "-1")),
        ((*SIMULATE, "--warmup", "nan"), ("--warmup", "nan")),
        ((*SIMULATE, "--horizon", "0"), ("--horizon", "above 0")),
        ((*SIMULATE, "--horizon", "-5"), ("--horizon", "above 0")),
        ((*SIMULATE, "--horizon", "nan"), ("--horizon", "nan")),
        ((*SIMULATE, "--horizon", "inf"), ("--horizon", "inf")),
        ((*SIMULATE, "--horizon", "long"), ("--horizon", "'long'")),
        ((*SIMULATE, "--replications", "0"), ("--replications", "at least 1")),
        ((*SIMULATE, "--replications", "2.5"), ("--replications", "'2.5'")),
        ((*SIMULATE, "--seed", "-1"), ("--seed", "at least 0")),
        ((*SIMULATE, "--workers", "0"), ("--workers", "0")),
        (("simulate", "s.toml", "--policy", "vllm-lmetric", *SMALL), ("'vllm-lmetric'", "--fidelity iteration")),
        ((*SIMULATE, "--fidelity", "exact"), ("--fidelity", "'markov'")),
        ((*COMPARE, "--policy", "fi-wsp,fi-wsq"), ("'fi-wsq'", "'fi-wsp'")),
        ((*COMPARE, "--policy", "fi-wsp,gi-wsp,fi-wsp"), ("--policy", "'fi-wsp'", "twice")),
        ((*COMPARE, "--policy", "gg-sp,gate-and-route"), ("'gate-and-route'", "twice")),
        ((*COMPARE, "--policy", ","), ("--policy", "at least one")),
        ((*COMPARE, "--policy", "fi-wsp,vllm-lmetric"), ("'vllm-lmetric'", "--fidelity iteration")),
        ((*COMPARE, "--fidelity", "iteration", "--policy", "fi-wsp,vllm"), ("unknown policy 'vllm'",)),
        (("policies", "--all"), ("--all",)),
        (("schema", "s.toml"), ("s.toml",)),
    ],
    ids=lambda value: " ".join(value)[-50:] if value[0] in ("plan", "simulate", "compare") else None,
)
def test_wrong_option(
    fluidgate: Command, scenario: Scenario, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    scenario()
    refused(fluidgate, arguments, *words)


@pytest.mark.parametrize("command", [("plan", "s.toml"), SIMULATE, COMPARE], ids=lambda c: c[0])
@pytest.mark.parametrize(
    ("picture", "word"), [("p.bmp", ".png, .svg, .pdf"), ("p", ".png"), ("none/p.png", "folder of 'none/p.png'")]
)
def test_picture_that_cannot_be_written(
    fluidgate: Command, scenario: Scenario, command: tuple[str, ...], picture: str, word: str
) -> None:
    scenario()
    refused(fluidgate, [*command, "--plot", picture], "--plot", word)


def test_picture_over_a_folder(fluidgate: Command, scenario: Scenario) -> None:
    Path(scenario().parent / "p.png").mkdir()
    refused(fluidgate, ["plan", "s.toml", "--plot", "p.png"], "p.png")


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        ("", ("empty", "the formats are")),
        (HEADER, ("without requests",)),
        ("time,in,out\n0,1,2\n", ("line 1", "unknown header")),
        (HEADER + "0,1,2\n1,x,3\n2,3,4\n", ("line 3", "prompt_tokens", "'x'")),
        (HEADER + "0,1,2\n1,2\n2,3,4\n", ("line 3", "output_tokens")),
        (HEADER + "0,1,2\n1,2,3,4,5\n", ("line 3", "5 fields")),
        (HEADER + "0,1,2\n1,nan,3\n", ("line 3", "prompt_tokens")),
        (HEADER + "0,1,2\n1,-4,3\n", ("line 3", "prompt_tokens", "-4")),
        (HEADER + "0,1,2\n3,1,3\n2,3,4\n", ("line 4", "arrival_time", "--sort")),
        (HEADER + "0,1,2\n3,0,3\n4,3,4\n", ("line 3", "prompt_tokens", "--skip-empty")),
        (HEADER + "0,1,2\n3,5,0\n4,3,4\n", ("line 3", "output_tokens", "--skip-empty")),
        (HEADER + "0,1,2\n", ("at least 2 requests",)),
        ('{"timestamp": 0, "input_length": 3, "output_length": 4}\n{"timestamp": 1}\n', ("line 2", "input_length")),
        ('{"timestamp": 0, "input_length": 3, "output_length": 4}\n{no}\n', ("line 2", "not JSON")),
    ],
)
def test_wrong_trace(
    fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trace: str, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(trace, "utf-8")
    refused(fluidgate, WORKLOAD, "t.csv", *words)


def test_every_request_empty(fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(HEADER + "0,0,2\n1,0,3\n", "utf-8")
    refused(fluidgate, [*WORKLOAD, "--skip-empty"], "every request is empty")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpus", "0"), ("gpus", "but is 0")),
        (("--scale", "0"), ("scale", "greater than 0")),
        (("--scale", "nan"), ("scale", "nan")),
        (("--batch-size", "0"), ("--batch-size",)),
        (("--chunk-size", "0"), ("--chunk-size",)),
        (("--patience-rate", "-1"), ("--patience-rate",)),
        (("--classes", "9"), ("classes", "from 1 to 3")),
        (("--class-column", "kind"), ("t.csv", "'kind'")),
        (("--profile", "a100-40gb/qwen-8"), ("'a100-40gb/qwen-8'", "'a100-40gb/qwen-8b'")),
        (("--seed", "-1"), ("seed", "-1")),
        (("--qq", "q.gif"), ("--qq", ".png")),
        (("--qq", "none/q.png"), ("--qq", "folder")),
        (("-o", "none/out.toml"), ("none/out.toml", "no folder")),
        (("-o", "."), (".",)),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("-") else None,
)
def test_wrong_workload_option(
    fluidgate: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(GOOD_TRACE, "utf-8")
    refused(fluidgate, [*WORKLOAD, *arguments], *words)


def test_missing_trace(fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(fluidgate, WORKLOAD, "t.csv", "no such file")
    refused(fluidgate, WORKLOAD[:1] + WORKLOAD[2:], "TRACE")
    refused(fluidgate, ["workload", "t.csv"], "--gpus")


def test_an_old_file_survives_a_refusal(fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(HEADER + "0,1,2\n3,1,3\n2,3,4\n", "utf-8")
    Path("out.toml").write_text("as it was", "utf-8")
    refused(fluidgate, WORKLOAD, "line 4")
    assert Path("out.toml").read_text("utf-8") == "as it was"


def test_picture_in_a_folder_that_takes_no_files(fluidgate: Command, scenario: Scenario) -> None:
    scenario()
    refused(fluidgate, ["plan", "s.toml", "--plot", "/proc/p.png"], "/proc/p.png")


def test_more_gpus_than_a_number_can_say(fluidgate: Command, scenario: Scenario) -> None:
    scenario()
    refused(fluidgate, ["plan", "s.toml", "--gpus", 10**400], "--gpus")
    refused(fluidgate, [*SIMULATE, "--gpus", 10**400], "--gpus")


@pytest.mark.parametrize("name", ["[/b] x", "[red]x", "[x]"])
def test_brackets_in_names_are_shown(fluidgate: Command, scenario: Scenario, name: str) -> None:
    outcome = fluidgate("plan", scenario(('"decode-heavy"', f'"{name}"'), ('"two-class"', f'"{name}"')))
    assert outcome.status == 0
    assert outcome.output.count(name) == 2


def test_dollars_in_names_are_drawn(fluidgate: Command, scenario: Scenario) -> None:
    path = scenario(('"decode-heavy"', r"'$\foo$'"))
    assert fluidgate("plan", path, "--plot", "p.svg").status == 0
    assert Path("p.svg").stat().st_size > 0
