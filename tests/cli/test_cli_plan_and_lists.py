"""`plan`, `policies`, `profiles`, `schema`, `workload` and the help."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command import ROOT, TWO_CLASS, Command

from fluidgate.cli.app import app

INDICATORS = "[indicators]\nmax_tpot = 0.023\nmax_solo_gap = 3\nprefill_gap_weight = 2\ntpot_weight = 10\n"
GATEWAY = ROOT / "examples" / "gateway.toml"
TRACE = "arrival_time,prompt_tokens,output_tokens,class\n0,100,20,chat\n1,900,5,code\n3,300,40,chat\n4,700,15,code\n"
SEEN = f"import sys\nsys.path[:0] = {sys.path!r}\n"
HEAVY = ("matplotlib", "numba", "numpy", "pandas")

Scenario = Callable[..., Path]


def test_plan_json(fluidgate: Command) -> None:
    outcome = fluidgate("plan", TWO_CLASS, "--gpus", "500", "--json")
    assert outcome.status == 0
    plan = outcome.json
    numbers = {
        "schema": 1,
        "scenario": "two-class",
        "scheme": "bundled",
        "revenue_rate": pytest.approx(297.70316986424),
        "penalty": 0.0,
        "objective": pytest.approx(297.70316986424),
        "mixed_fraction": pytest.approx(0.213211446),
        "kappa": pytest.approx(1.51221, rel=1e-5),
        "tpot": pytest.approx(0.0242853, rel=1e-5),
        "decode_buffer_free": True,
        "shadow_prices": {
            "prefill_capacity": 0.0,
            "mixed_capacity": pytest.approx(6.83902, rel=1e-5),
            "solo_capacity": pytest.approx(10.34206, rel=1e-5),
        },
        "indicators": {},
        "partition": {"gpus": 500, "mixed": 107, "solo": 393, "prefill_utilisation": pytest.approx(0.9963, abs=5e-5)},
    }
    assert {key: plan[key] for key in numbers} == numbers
    assert set(plan) >= {*numbers, "classes"}
    for each in plan["classes"]:
        assert set(each) >= {
            "name",
            "prefill",
            "mixed_decode",
            "solo_decode",
            "prefill_queue",
            "decode_queue",
            "completion_rate",
            "served_fraction",
            "flow_price",
        }
        assert each["served_fraction"] == pytest.approx(each["completion_rate"] / 0.5)
    assert [c["name"] for c in plan["classes"]] == ["decode-heavy", "prefill-heavy"]
    assert sum(c["prefill"] for c in plan["classes"]) == pytest.approx(plan["mixed_fraction"])
    assert outcome.notices == [f"fluidgate: warning: {warning}" for warning in plan["warnings"]]
    assert "99.6%" in outcome.notices[0]


def test_plan_without_gpus_has_no_partition(fluidgate: Command) -> None:
    outcome = fluidgate("plan", TWO_CLASS, "--json")
    assert "partition" not in outcome.json
    assert outcome.notices == []


def test_plan_of_a_cluster_has_its_partition(fluidgate: Command) -> None:
    azure = ROOT / "examples" / "azure.toml"
    assert fluidgate("plan", azure, "--json").json["partition"]["gpus"] == 60
    assert fluidgate("plan", azure, "--gpus", "30", "--json").json["partition"]["gpus"] == 30


def test_plan_with_indicators(fluidgate: Command, scenario: Scenario) -> None:
    path = scenario(more=INDICATORS)
    plan = fluidgate("plan", path, "--json").json
    indicators = plan["indicators"]
    assert set(indicators) == {"max_tpot", "max_solo_gap", "prefill_gap_weight", "tpot_weight"}
    for name, limit in {"max_tpot": 0.023, "max_solo_gap": 3.0}.items():
        assert set(indicators[name]) == {"limit", "value", "shadow_price"}
        assert indicators[name]["limit"] == limit
        assert indicators[name]["value"] <= limit * (1 + 1e-9)
        assert indicators[name]["shadow_price"] > 0
    weighted = sum(entry["weight"] * entry["value"] for entry in indicators.values() if "weight" in entry)
    assert plan["penalty"] == pytest.approx(weighted)
    assert plan["objective"] == pytest.approx(plan["revenue_rate"] - plan["penalty"])
    table = fluidgate("plan", path)
    for words in ("max_tpot (limit 0.023", "penalty", "objective", "tpot_weight"):
        assert words in table.output


AGENTS = ROOT / "examples" / "agents-fleet.toml"
SESSIONS = ROOT / "examples" / "agents-sessions.jsonl"


def test_plan_as_if_so_much_was_found(fluidgate: Command) -> None:
    found = {rate: fluidgate("plan", AGENTS, "--prefix-hit-rate", rate, "--json").json for rate in ("0.5", "0.9")}
    assert [plan["prefix_hit_rate"] for plan in found.values()] == pytest.approx([0.5, 0.9])
    assert found["0.5"]["mixed_fraction"] > 2 * found["0.9"]["mixed_fraction"]
    nothing = fluidgate("plan", ROOT / "examples" / "chats-h100.toml", "--prefix-hit-rate", "0", "--json").json
    assert nothing["prefix_hit_rate"] == 0.0
    assert fluidgate("plan", TWO_CLASS, "--prefix-hit-rate", "0", "--json").json["revenue_rate"] > 297.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TWO_CLASS, "--prefix-hit-rate", "0.5"), "belongs to an engine with prefix caching"),
        ((AGENTS, "--prefix-hit-rate", "1"), "must be at least 0 and less than 1, but is 1"),
        ((AGENTS, "--prefix-hit-rate", "0", "--trace", SESSIONS), "give one of the two"),
    ],
)
def test_a_hit_rate_that_cannot_be(fluidgate: Command, arguments: tuple[Any, ...], message: str) -> None:
    outcome = fluidgate("plan", *arguments)
    assert outcome.status == 2
    assert message in " ".join(outcome.notices)


def test_what_traces_find_is_drawn(fluidgate: Command, tmp_path: Path) -> None:
    rates = ("--sessions-rate", "0.2", "--gpus", "4")
    plain, pictured = (
        fluidgate("plan", AGENTS, *rates, "--trace", SESSIONS, "--json", *more)
        for more in ((), ("--plot", tmp_path / "plan.png"))
    )
    assert plain.json == pictured.json
    made = fluidgate("workload", SESSIONS, *rates, "--plot", tmp_path / "workload.png", "--json")
    assert made.status == 0
    assert {(tmp_path / f"{name}.png").read_bytes()[:4] for name in ("plan", "workload")} == {b"\x89PNG"}
    (tmp_path / "t.csv").write_text(TRACE)
    refused = fluidgate("workload", tmp_path / "t.csv", "--gpus", "1", "--plot", tmp_path / "none.png")
    assert refused.status == 2
    assert "do not say what prompts have in common" in refused.notices[-1]


def test_policies(fluidgate: Command) -> None:
    listed = fluidgate("policies", "--json").json
    origins = {p["name"]: p["origin"] for p in listed["policies"]}
    paper = ("gate-and-route", "capped-gate-and-route", "prioritize-and-route", "sli-aware", "sli-aware-general")
    baselines = ("fi-wsp", "gi-wsp", "gf-wsp", "gi-wsp-uncapped", "gf-wsp-uncapped", "fg-sp")
    assert listed["schema"] == 1
    assert {name: origins[name] for name in (*paper, *baselines)} == {
        **dict.fromkeys(paper, "paper"),
        **dict.fromkeys(baselines, "baseline"),
    }
    assert set(origins.values()) <= {"paper", "baseline", "published", "ours"}
    assert all(p["summary"] for p in listed["policies"])
    parameters = {p["name"]: p["parameters"] for p in listed["policies"]}
    assert parameters["fi-wsp"] == []
    (margin,) = parameters["gate-and-route"]
    assert margin.pop("meaning")
    assert margin == {"name": "margin", "default": 0.0, "low": 0.0, "high": 1.0, "whole": False}
    table = fluidgate("policies").output
    assert all(name in table for name in (*origins, "gg-sp"))


def test_profiles(fluidgate: Command) -> None:
    listed = fluidgate("profiles", "--json").json
    assert listed["schema"] == 1
    by_name = {p["name"]: p for p in listed["profiles"]}
    assert by_name["a100-40gb/qwen-8b"]["iteration"] == {"alpha": 0.0174, "beta": 6.2e-5, "gamma": 45.45}
    h100 = by_name["h100/llama-3.1-70b-tp4"]
    assert (h100["dtype"], h100["engine"], h100["gpus"], h100["measured"]) == ("bf16", "vLLM", 4, "2026")
    assert (h100["kv_bytes_per_token"], h100["weights_bytes"]) == (327680, 141107412992)
    lines = fluidgate("profiles").output.splitlines()
    assert max(map(len, lines)) <= 80
    for name, profile in by_name.items():
        assert sum(name in line.split() for line in lines) == 1, name
        assert any(profile["purpose"] in line for line in lines), name


def test_schema_accepts_the_examples(fluidgate: Command) -> None:
    schema = fluidgate("schema").json
    validator: type[Any] = jsonschema.validators.validator_for(schema)
    assert validator is jsonschema.Draft202012Validator
    validator.check_schema(schema)
    examples = sorted(set((ROOT / "examples").glob("*.toml")) - set((ROOT / "examples").glob("*gateway.toml")))
    assert {"azure.toml", "two-class.toml"} <= {path.name for path in examples}
    for path in examples:
        validator(schema).validate(tomllib.loads(path.read_text("utf-8")))


def test_schema_of_a_policy_file(fluidgate: Command) -> None:
    schema = fluidgate("schema", "policy").json
    examples = sorted((ROOT / "examples" / "policies").glob("*.toml"))
    assert examples
    for path in examples:
        jsonschema.Draft202012Validator(schema).validate(tomllib.loads(path.read_text("utf-8")))
    assert fluidgate("schema", "scenario").output == fluidgate("schema").output


def test_schema_of_a_gateway_file(fluidgate: Command) -> None:
    schema = fluidgate("schema", "gateway").json
    jsonschema.Draft202012Validator.check_schema(schema)
    data = tomllib.loads(GATEWAY.read_text("utf-8"))
    jsonschema.validate(data, schema)
    data["engines"]["kind"] = "another"
    assert not jsonschema.Draft202012Validator(schema).is_valid(data)


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [("gpu", "batch_size", 0), ("gpu", "gamma", -1), ("gpu", "speed", 1), ("pricing", "scheme", "free"), ("", "x", 1)],
)
def test_schema_refuses(fluidgate: Command, table: str, key: str, value: object) -> None:
    validator = jsonschema.Draft202012Validator(fluidgate("schema").json)
    data = tomllib.loads(TWO_CLASS.read_text("utf-8"))
    assert validator.is_valid(data)
    (data[table] if table else data)[key] = value
    assert not validator.is_valid(data)


def test_workload(fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(TRACE, "utf-8")
    outcome = fluidgate("workload", "t.csv", "--gpus", "2", "-o", "out.toml", "--qq", "q.svg", "--json")
    assert outcome.status == 0
    found = outcome.json
    assert (found["schema"], found["gpus"]) == (1, 2)
    assert [(c["name"], c["prompt_tokens"], c["total_arrival_rate"]) for c in found["classes"]] == [
        ("chat", 200.0, 0.5),
        ("code", 800.0, 0.5),
    ]
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["out.toml", "q.svg", "t.csv"]
    assert Path("q.svg").read_bytes().startswith(b"<?xml")
    assert tomllib.loads(Path("out.toml").read_text("utf-8"))["cluster"] == {"gpus": 2}
    assert fluidgate("plan", "out.toml", "--json").json["partition"]["gpus"] == 2
    table = fluidgate("workload", "t.csv", "--gpus", "2", "-o", "out.toml").output
    assert "Scenario written to out.toml; next: fluidgate plan out.toml" in table


@pytest.mark.parametrize("name", sorted(app.commands))
def test_help_of_every_command(fluidgate: Command, name: str) -> None:
    outcome = fluidgate(name, "--help")
    assert outcome.status == 0
    assert outcome.output.startswith(f"Usage: fluidgate {name}")
    assert outcome.output == fluidgate(name, "-h").output
    for parameter in app.commands[name].params:
        if parameter.param_type_name == "option":
            assert parameter.opts[-1] in outcome.output


def test_help_lists_the_commands(fluidgate: Command) -> None:
    assert set(app.commands) == {
        *(
            "size",
            "plan",
            "simulate",
            "compare",
            "tune",
            "optimum",
            "bound",
            "frontier",
            "policies",
            "replay",
            "serve",
            "warm",
            "watch",
            "profiles",
            "workload",
            "calibrate",
            "probe",
            "engine",
        ),
        *("examples", "schema", "paper", "completion"),
    }
    listed = [line.split()[0] for line in fluidgate("--help").output.partition("Commands:\n")[2].splitlines()]
    assert listed == sorted(app.commands)
    assert fluidgate().output == fluidgate("--help").output
    assert fluidgate("--version").output.startswith("fluidgate, version ")


@pytest.mark.parametrize("arguments", [["--help"], ["simulate", "--help"], ["plan"]])
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom fluidgate.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])\n"
        "import numpy\nprint('then:', 'numpy' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-2:] == ["loaded:", "then: True"]


def test_the_library_itself_imports_next_to_nothing() -> None:
    slow = ("dataclasses", "inspect", "json")
    code = f"import sys\nimport fluidgate\nprint(*[name for name in {slow!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", SEEN + code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_tables_on_an_ascii_output() -> None:
    arguments = ["simulate", str(TWO_CLASS), "--policy", "fi-wsp", "--gpus", "2", "--horizon", "20"]
    ran = subprocess.run(
        [sys.executable, "-m", "fluidgate", *arguments],
        capture_output=True,
        check=False,
        env={"PYTHONIOENCODING": "ascii", "PATH": "", "HOME": str(Path.home())},
    )
    assert b"Traceback" not in ran.stderr
    assert ran.returncode == 0


def test_workload_reads_columns_and_units_that_are_named(
    fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("sent,in,out,kind\n0,100,20,chat\n2000,900,0,code\n4000,700,15,code\n", "utf-8")
    named = (
        "--map",
        "arrival_time=sent",
        "--map",
        "prompt_tokens=in",
        "--map",
        "output_tokens=out",
        "--map",
        "class=kind",
    )
    outcome = fluidgate("workload", "t.csv", "--gpus", "1", *named, "--unit", "ms", "--skip-empty", "-o", "o.toml")
    assert outcome.status == 0
    assert outcome.notices == ["fluidgate: warning: t.csv: 1 request without tokens is left out"]
    classes = tomllib.loads(Path("o.toml").read_text("utf-8"))["classes"]
    assert [each["total_arrival_rate"] for each in classes] == [0.25, 0.25]
    command = Path("o.toml").read_text("utf-8").splitlines()[1].removeprefix("#   fluidgate ")
    Path("o.toml").rename("before.toml")
    assert fluidgate(*shlex.split(command)).status == 0
    assert Path("o.toml").read_text("utf-8") == Path("before.toml").read_text("utf-8")


def test_workload_joins_parts_and_says_so(fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for hour in (0, 1):
        rows = f"2024-05-10 0{hour}:00:00,100,10\n2024-05-10 0{hour}:59:59,100,10\n"
        Path(f"part-0{hour}.csv").write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}", "utf-8")
    outcome = fluidgate("workload", "part-00.csv", "part-01.csv", "--gpus", "1", "--json")
    (joined,) = outcome.json["classes"]
    assert (joined["name"], joined["total_arrival_rate"]) == ("part", pytest.approx(4 / 7199, rel=1e-5))
    assert len(outcome.json["traces"]) == 2
    (warning,) = outcome.json["warnings"]
    assert outcome.notices == [f"fluidgate: warning: {warning}"]
    apart = fluidgate("workload", "a=part-00.csv", "b=part-01.csv", "--gpus", "1", "--json")
    assert [each["name"] for each in apart.json["classes"]] == ["a", "b"]
    assert apart.notices == []
