"""`replay`: requests of traces, their log, the picture, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import ROOT, Command
from test_cli_bad_input import refused
from test_cli_simulations import timeless

HEADER = "arrival_time,prompt_tokens,output_tokens,class\n"
POLICIES = ("--policy", "gate-and-route,vllm-round-robin", "--gpus", "2")

Scenario = Callable[..., Path]
Rows = list[dict[str, str]]


@pytest.fixture
def replayed(scenario: Scenario) -> tuple[Path, Path]:
    """The two-class scenario without impatience and with targets, and 300 requests of both classes in 200 s."""
    exchanges = ("patience_rate = 0.1", "patience_rate = 0"), ("arrival_rate = 0.5", "arrival_rate = 0.45")
    file = scenario(*exchanges, more="[targets]\nttft = 1.0\ntpot = 0.03\n")
    rng = np.random.default_rng(0)
    lines = [HEADER]
    for epoch in np.sort(rng.uniform(0.0, 200.0, 300)):
        prompt, output, name = (300, 1000, "decode-heavy") if rng.random() < 0.5 else (3000, 400, "prefill-heavy")
        lines.append(f"{epoch:.6f},{rng.geometric(1 / prompt)},{rng.geometric(1 / output)},{name}\n")
    Path("t.csv").write_text("".join(lines))
    return file, Path("t.csv")


def rows_of(path: str) -> Rows:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_the_log_tells_what_the_statistics_tell(fluidgate: Command, replayed: tuple[Path, Path]) -> None:
    found = fluidgate("replay", *replayed, *POLICIES, "--log", "log.csv", "--json").json
    assert (found["horizon"], found["fidelity"], found["traces"]) == (None, "iteration", ["t.csv"])
    assert [p["policy"] for p in found["paired"]] == ["vllm-round-robin"]
    trace, log = rows_of("t.csv"), rows_of("log.csv")
    assert len(log) == 2 * len(trace), "nobody is impatient, so all are completed under both policies"
    for body in found["policies"]:
        rows = [row for row in log if row["policy"] == body["policy"]]
        assert {row["outcome"] for row in rows} == {"completed"}
        by_number = {int(row["number"]): row for row in rows}
        assert len(by_number) == len(trace)
        start = float(trace[0]["arrival_time"])
        for k, request in enumerate(trace):
            row = by_number[k]
            assert float(row["arrival"]) == pytest.approx(float(request["arrival_time"]) - start)
            assert (row["prompt"], row["output"], row["class"]) == (
                request["prompt_tokens"],
                request["output_tokens"],
                request["class"],
            )

        def column(name: str, rows: Rows = rows) -> Any:
            return np.array([float(row[name]) for row in rows])

        first, last, output = column("first_token"), column("last_token"), column("output")
        ttft, latency = first - column("arrival"), last - column("arrival")
        tpot = (last - first)[output > 1] / (output[output > 1] - 1)
        overall = body["overall"]
        for name, values in (("ttft", ttft), ("latency", latency), ("tpot", tpot)):
            assert overall[name]["count"] == len(values)
            assert overall[name]["mean"] == pytest.approx(values.mean())
            for key, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
                assert overall[name][key] == pytest.approx(np.quantile(values, share), rel=5e-3)
        assert body["window"] == pytest.approx(last.max())
        earned = (0.1 * column("prompt") + 0.2 * output).sum()
        assert body["revenue_rate"]["mean"] == pytest.approx(earned / (2 * body["window"]))
        slow = np.where(output > 1, (last - first) / np.maximum(output - 1, 1), 0.0)
        good = ((ttft <= 1.0) & (slow <= 0.03)).sum()
        assert 0 < good < len(rows)
        assert overall["goodput"]["mean"] == pytest.approx(good / (2 * body["window"]))


def test_a_parquet_log_is_the_csv_log(fluidgate: Command, replayed: tuple[Path, Path]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("log.csv", "log.parquet"):
        assert fluidgate("replay", *replayed, *POLICIES, "--log", name, "--json").status == 0
    table = parquet.read_table("log.parquet").to_pylist()
    rows = rows_of("log.csv")
    assert list(table[0]) == list(rows[0])
    assert len(table) == len(rows) == 600
    for told, row in zip(table, rows, strict=True):
        assert {key: str(value) for key, value in told.items()} == row
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["log.csv", "log.parquet", "s.toml", "t.csv"]


def test_without_pyarrow_parquet_is_refused_in_one_line(
    fluidgate: Command, replayed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    refused(fluidgate, ["replay", *replayed, *POLICIES, "--log", "l.parquet"], "pyarrow", "fluidgate[parquet]", ".csv")


def test_rates_horizons_and_numbers_of_requests(fluidgate: Command, replayed: tuple[Path, Path]) -> None:
    def run(*options: object) -> dict[str, Any]:
        found = fluidgate("replay", *replayed, "--policy", "fi-wsp", "--gpus", "2", *options, "--json")
        assert found.status == 0, found
        return found.json

    def arrived(found: dict[str, Any]) -> float:
        body = found["policies"][0]
        return float(body["overall"]["arrival_rate"]["mean"] * 2 * body["window"])

    plain = run()
    assert arrived(plain) == pytest.approx(300)
    assert arrived(run("--requests", "40")) == pytest.approx(40)
    half = run("--horizon", "100")
    assert half["horizon"] == half["policies"][0]["window"] == 100.0
    assert arrived(half) == pytest.approx(sum(float(r["arrival_time"]) <= 100.0 for r in rows_of("t.csv")), abs=1)
    assert arrived(run("--times", "repeat", "--horizon", "1000")) == pytest.approx(1500, rel=0.02)
    matched = run("--match-load")
    assert matched["rate_scale"] == pytest.approx(1.8 / (300 / 200), rel=0.02)
    fast = run("--rate-scale", "4")
    assert fast["policies"][0]["overall"]["ttft"]["mean"] > plain["policies"][0]["overall"]["ttft"]["mean"]
    late = run("--warmup", "100")
    assert late["policies"][0]["window"] == pytest.approx(plain["policies"][0]["window"] - 100.0)
    drawn = run("--lengths", "drawn")
    assert drawn["policies"][0]["revenue_rate"] != plain["policies"][0]["revenue_rate"]


def test_resampled_replications_are_the_same_whatever_the_workers(
    fluidgate: Command, replayed: tuple[Path, Path]
) -> None:
    options = ("--times", "resample", "--requests", "300", "--replications", "3", "--seed", "5", "--json")
    one, two = (fluidgate("replay", *replayed, *POLICIES, *options, "--workers", w).json for w in ("1", "2"))
    assert timeless(one) == timeless(two)
    assert one["policies"][0]["revenue_rate"]["std"] > 0
    logged = fluidgate("replay", *replayed, *POLICIES, *options, "--log", "l.csv").json
    assert timeless(logged) == timeless(one), "a log changes no number"
    assert {row["replication"] for row in rows_of("l.csv")} == {"0", "1", "2"}


def test_an_overload_without_a_plan_plays_under_policies_that_need_none(
    fluidgate: Command, replayed: tuple[Path, Path]
) -> None:
    file = replayed[0]
    file.write_text(file.read_text().replace("arrival_rate = 0.45", "arrival_rate = 4.5"))
    found = fluidgate("replay", *replayed, "--policy", "vllm-lmetric", "--gpus", "2", "--plot", "p.png", "--json").json
    body = found["policies"][0]
    assert (body["optimality_ratio"]["mean"], body["objective_ratio"]["mean"]) == (None, None)
    assert body["revenue_rate"]["mean"] > 0
    refused(fluidgate, ["replay", *replayed, *POLICIES], "need", "times the GPUs")


def test_what_a_reader_should_know_is_said(fluidgate: Command, replayed: tuple[Path, Path]) -> None:
    outcome = fluidgate("replay", *replayed, *POLICIES, "--rate-scale", "4")
    assert any("requests/s, the scenario's classes 1.8" in line for line in outcome.notices)
    quiet = fluidgate("replay", *replayed, *POLICIES, "--match-load")
    assert not any("requests/s" in line for line in quiet.notices)


def test_picture_and_tables(fluidgate: Command, replayed: tuple[Path, Path]) -> None:
    outcome = fluidgate("replay", *replayed, *POLICIES, "--plot", "p.svg")
    assert outcome.status == 0
    content = Path("p.svg").read_bytes()
    assert content.startswith(b"<?xml")
    for words in (b"gate-and-route", b"vllm-round-robin", b"decode-heavy, plan", b"took longer"):
        assert words in content, words
    for words in ("t.csv on 'two-class': 2 GPUs, until the last has left", "TTFT, s", "p99", "token-budget", "%)"):
        assert words in outcome.output, words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--policy", "fi-wsp"), ("--gpus", "missing")),
        (("--policy", ",", "--gpus", "2"), ("--policy", "at least one")),
        (("--policy", "fi-wsq", "--gpus", "2"), ("'fi-wsq'", "'fi-wsp'")),
        (("--policy", "fi-wsp,fi-wsp", "--gpus", "2"), ("twice",)),
        ((*POLICIES, "--gpus", "0"), ("--gpus",)),
        ((*POLICIES, "--times", "repeat"), ("--times", "--horizon", "--requests")),
        ((*POLICIES, "--times", "resample"), ("--times", "without end")),
        ((*POLICIES, "--replications", "2"), ("--replications", "--times resample")),
        ((*POLICIES, "--rate-scale", "0"), ("--rate-scale", "above 0")),
        ((*POLICIES, "--rate-scale", "nan"), ("--rate-scale", "nan")),
        ((*POLICIES, "--rate-scale", "2", "--match-load"), ("--match-load", "--rate-scale")),
        ((*POLICIES, "--horizon", "-1"), ("--horizon", "above 0")),
        ((*POLICIES, "--requests", "0"), ("--requests", "at least 1")),
        ((*POLICIES, "--horizon", "10", "--warmup", "10"), ("--warmup", "below the horizon")),
        ((*POLICIES, "--seed", "-1"), ("--seed",)),
        ((*POLICIES, "--times", "resample", "--requests", "9", "--stretch", "0"), ("stretch", "greater than 0")),
        ((*POLICIES, "--log", "l.txt"), ("--log", ".csv", ".parquet")),
        ((*POLICIES, "--log", "no/l.csv"), ("--log", "folder")),
        ((*POLICIES, "--plot", "p.txt"), ("--plot", ".png")),
        ((*POLICIES, "--class-column", "kind"), ("t.csv", "kind")),
    ],
    ids=lambda value: " ".join(value)[-40:],
)
def test_options_that_are_refused(
    fluidgate: Command, replayed: tuple[Path, Path], options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(fluidgate, ["replay", *replayed, *options], *words)


LOGGED = [
    {"queued_ts": 50.0, "first_token_ts": 50.2, "last_token_ts": 52.2, "input_toks": 300, "output_toks": 81},
    {"queued_ts": 51.0, "first_token_ts": 51.4, "last_token_ts": 51.4, "input_toks": 900, "output_toks": 1},
]


def logged_trace(scenario: Scenario) -> list[str]:
    Path("t.jsonl").write_text("\n".join(json.dumps(request) for request in LOGGED))
    exchange = ("patience_rate = 0.1", "patience_rate = 0")
    return ["replay", str(scenario(exchange)), "decode-heavy=t.jsonl", "--policy", "vllm-round-robin", "--gpus", "1"]


def test_what_a_trace_has_measured_stands_beside_the_simulation(fluidgate: Command, scenario: Scenario) -> None:
    words = logged_trace(scenario)
    found = fluidgate(*words, "--json").json
    rows = {(row["quantity"], row["statistic"]): row for row in found["agreement"]}
    assert found["clock"] == "engine"
    assert len(rows) == 16
    assert rows["TTFT", "mean"]["measured"] == pytest.approx(0.3)
    assert rows["TTFT", "p50"]["measured"] == pytest.approx(0.3)
    assert rows["TPOT", "p99"]["measured"] == pytest.approx(2.0 / 80)
    assert rows["latency", "mean"]["measured"] == pytest.approx((2.2 + 0.4) / 2)
    assert rows["output throughput", "tokens/s"]["measured"] == pytest.approx(82 / 2.2)
    overall = found["policies"][0]["overall"]
    assert rows["TTFT", "mean"]["simulated"] == overall["ttft"]["mean"] > 0
    assert rows["TPOT", "p90"]["simulated"] == overall["tpot"]["p90"]
    assert rows["output throughput", "tokens/s"]["simulated"] == overall["output_token_rate"]["mean"]
    for row in rows.values():
        assert row["policy"] == "vllm-round-robin"
        assert row["relative"] == pytest.approx(row["simulated"] / row["measured"] - 1)
    shown = fluidgate(*words).output
    assert "As the trace measured it" in shown
    assert re.search(r"vllm-round-robin +latency +mean +1.3 ", shown)


@pytest.mark.parametrize(
    ("words", "requests"),
    [
        (["vllm-bench-0.33.json"], 13),
        (["guidellm-0.8.json", "--benchmark", "2"], 12),
        (["guidellm-0.3.json"], 10),
        (["aiperf-0.13.jsonl"], 9),
        (["inference-perf-0.7.json"], 16),
    ],
)
def test_runs_of_benchmarks_stand_beside_the_simulation(fluidgate: Command, words: list[str], requests: int) -> None:
    """They were made against emulated engines with the iteration times of this scenario; a replay finds these again."""
    lab = ROOT / "tests" / "workloads" / "samples" / "engine.toml"
    log = [str(ROOT / "tests" / "workloads" / "samples" / words[0]), *words[1:]]
    found = fluidgate("replay", lab, *log, "--policy", "vllm-round-robin", "--gpus", "1", "--json").json
    assert found["clock"] == "client"
    assert found["policies"][0]["overall"]["latency"]["count"] == requests
    rows = {(row["quantity"], row["statistic"]): row for row in found["agreement"]}
    assert abs(rows["TPOT", "mean"]["relative"]) < 0.005


@pytest.mark.parametrize("option", ["--rate-scale=2", "--requests=1", "--horizon=9", "--warmup=1", "--lengths=drawn"])
def test_a_run_played_otherwise_is_not_compared(fluidgate: Command, scenario: Scenario, option: str) -> None:
    assert fluidgate(*logged_trace(scenario), option, "--json").json["agreement"] == []


def test_a_trace_without_times_of_tokens_has_measured_nothing(fluidgate: Command, replayed: tuple[Path, Path]) -> None:
    assert fluidgate("replay", *replayed, *POLICIES, "--json").json["agreement"] == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("0,100,20,chat\n", ("t.csv", "'chat'", "no class")),
        ("5,100,20,decode-heavy\n0,100,20,decode-heavy\n", ("t.csv", "--sort")),
        ("0,0,20,decode-heavy\n", ("t.csv", "--skip-empty")),
        ("", ("t.csv",)),
    ],
    ids=["class", "order", "empty", "nothing"],
)
def test_traces_that_are_refused(
    fluidgate: Command, replayed: tuple[Path, Path], lines: str, words: tuple[str, ...]
) -> None:
    replayed[1].write_text(HEADER + lines)
    refused(fluidgate, ["replay", *replayed, *POLICIES, "--log", "l.csv"], *words)


def test_hostile_traces_that_play(fluidgate: Command, replayed: tuple[Path, Path]) -> None:
    """Requests at one time, a prompt of a million tokens, a prompt beyond the KV memory, a class without requests."""
    file, trace = replayed
    file.write_text(file.read_text() + "\n[engine]\nkv_tokens = 100000\n")
    trace.write_text(HEADER + "".join(f"0,{prompt},20,decode-heavy\n" for prompt in (100, 1_000_000, 50, 99_990)))
    outcome = fluidgate("replay", file, trace, *POLICIES, "--json")
    assert outcome.status == 0
    assert any("'prefill-heavy'" in line and "no request" in line for line in outcome.notices)
    for body in outcome.json["policies"]:
        overall, window = body["overall"], body["window"]
        assert overall["rejection_rate"]["mean"] * 2 * window == pytest.approx(2)
        assert overall["completion_rate"]["mean"] * 2 * window == pytest.approx(2)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="sends a signal to a group")
def test_ctrl_c_leaves_no_half_written_file(replayed: tuple[Path, Path], fluidgate: Command) -> None:
    options = (*POLICIES, "--times", "repeat", "--log", "l.csv", "--plot", "p.png")
    assert fluidgate("replay", *replayed, *options, "--requests", "10").status == 0  # compiled from here on
    Path("l.csv").unlink()
    Path("p.png").unlink()
    arguments = ["replay", *map(str, replayed), *options, "--requests", str(10**9)]
    running = subprocess.Popen(
        [sys.executable, "-m", "fluidgate", *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        limit = time.monotonic() + 60.0
        while not any(f.stat().st_size > 10**6 for f in Path.cwd().glob(".log*/l.csv")):
            assert time.monotonic() < limit and running.poll() is None, "no log is being written"  # noqa: PT018
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=60.0)
        assert running.returncode == 130
        assert errors.splitlines()[-1] == "fluidgate: interrupted"
        assert sorted(p.name for p in Path.cwd().iterdir()) == ["s.toml", "t.csv"]
    finally:
        if running.poll() is None:
            running.kill()
            running.wait()


def same_run(one: Any, two: Any) -> None:
    """Two reports tell the same, but for rounding in the arrivals."""
    for first, second in zip(one["policies"], two["policies"], strict=True):
        assert first["events"] == second["events"]
        assert first["revenue_rate"]["mean"] == pytest.approx(second["revenue_rate"]["mean"], rel=1e-9)
        assert first["overall"]["ttft"]["p90"] == pytest.approx(second["overall"]["ttft"]["p90"], rel=1e-6)


def test_named_columns_and_units_play_as_the_standard_ones(fluidgate: Command, replayed: tuple[Path, Path]) -> None:
    file, trace = replayed
    rows = [row.split(",") for row in trace.read_text().splitlines()[1:]]
    lines = ["prompt,sent,reply,kind", *(f"{p},{1e6 * float(t):.0f},{d},{name}" for t, p, d, name in rows)]
    Path("u.csv").write_text("\n".join(lines))
    names = ("arrival_time=sent", "prompt_tokens=prompt", "output_tokens=reply", "class=kind")
    mapped = [word for name in names for word in ("--map", name)]
    other = fluidgate("replay", file, "u.csv", *POLICIES, *mapped, "--unit", "us", "--json")
    same_run(other.json, fluidgate("replay", *replayed, *POLICIES, "--json").json)
    refused(fluidgate, ["replay", file, "u.csv", *POLICIES, *mapped, "--unit", "h"], "--unit", "'h'")
    refused(fluidgate, ["replay", file, "u.csv", *POLICIES, "--map", "sent"], "--map", "STANDARD=COLUMN")


def test_parts_of_a_trace_play_one_after_the_other(fluidgate: Command, replayed: tuple[Path, Path]) -> None:
    file, trace = replayed
    header, *rows = trace.read_text().splitlines()
    for name, part in (("t-1.csv", rows[:150]), ("t-2.csv", rows[150:])):
        Path(name).write_text("\n".join([header, *part]))
    parts = fluidgate("replay", file, "t-2.csv", "t-1.csv", *POLICIES, "--json")
    same_run(parts.json, fluidgate("replay", *replayed, *POLICIES, "--json").json)
    assert parts.json["traces"] == ["t-1.csv", "t-2.csv"]
    assert any("parts of 't', read one after the other" in line for line in parts.notices)


def sessions_file() -> str:
    """Two sessions, the first with a sub-agent, as agents write them."""
    turns = [[0.0, 100, 5, 0, 0.0], [10.0, 160, 6, 96, 4.0], [30.0, 260, 7, 160, 5.0]]
    agent = {"t": 12.5, "requests": [[0.0, 50, 2, 0, 0.0]]}
    lines = [json.dumps({"id": k, "shared_prefix": 64, "requests": turns, "subagents": [agent][k:]}) for k in (0, 1)]
    Path("s.jsonl").write_text("\n".join(lines))
    return "decode-heavy=s.jsonl"


def test_sessions_start_at_a_rate_or_by_users(fluidgate: Command, scenario: Scenario) -> None:
    command = ("replay", scenario(), sessions_file(), "--policy", "vllm-round-robin", "--gpus", "2", "--json")
    refused(fluidgate, command, "s.jsonl: it does not say when its sessions start; give --sessions-rate R", "--users N")
    found = fluidgate(*command, "--sessions-rate", "0.5", "--replications", "2").json
    assert (found["sessions_rate"], found["traces"], found["replications"]) == (0.5, ["s.jsonl"], 2)
    assert fluidgate(*command, "--users", "1").json["sessions_rate"] is None
    refused(fluidgate, (*command, "--users", "1", "--sessions-rate", "2"), "--sessions-rate: not in a closed loop")
    for option in ("--times", "repeat", "--horizon", "9"), ("--lengths", "drawn"):
        refused(fluidgate, (*command, "--sessions-rate", "0.5", *option), option[0], "s.jsonl")


def test_a_turn_is_sent_when_the_last_answer_has_ended_and_its_think_time_is_over(
    fluidgate: Command, scenario: Scenario
) -> None:
    command = ("replay", scenario(("patience_rate = 0.1", "patience_rate = 0")), sessions_file(), "--gpus", "2")
    options = (*command, "--policy", "vllm-round-robin", "--log", "log.csv", "--json")

    def sent(*more: str) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        """The turns of the sessions, in order of their prompts and then of time; and those of the sub-agent."""
        assert fluidgate(*options, *more).status == 0
        rows = [{key: float(row[key]) for key in ("arrival", "last_token", "prompt")} for row in rows_of("log.csv")]
        assert len(rows) == 7
        ordered = sorted(rows, key=lambda row: (row["prompt"], row["arrival"]))
        return ordered[1:], ordered[:1]

    for more in (("--sessions-rate", "0.5"), ("--users", "2"), ("--users", "1", "--think", "3")):
        turns, (agent,) = sent(*more)
        for session in (0, 1):
            one, two, three = turns[session::2]
            assert two["arrival"] == pytest.approx(one["last_token"] + 4.0)
            assert three["arrival"] == pytest.approx(two["last_token"] + 5.0)
        assert agent["arrival"] == pytest.approx(turns[2]["arrival"] + 2.5)
    assert turns[1]["arrival"] == pytest.approx(turns[4]["last_token"] + 3.0)  # one user has one session at a time


def test_a_rate_of_sessions_that_no_trace_needs(fluidgate: Command, replayed: tuple[Path, Path]) -> None:
    refused(fluidgate, ("replay", *replayed, *POLICIES, "--sessions-rate", "1"), "no trace has sessions")


def test_a_class_made_of_sessions_has_their_rate(fluidgate: Command, scenario: Scenario) -> None:
    scenario()
    sessions_file()
    Path("alone.toml").write_text((ROOT / "examples" / "log-alone.toml").read_text("utf-8"))
    command = ("replay", "alone.toml", "s.jsonl", "--policy", "vllm-round-robin", "--gpus", "1", "--json")
    refused(fluidgate, command, "it does not say when its sessions start")
    assert fluidgate(*command, "--sessions-rate", "0.5").json["sessions_rate"] == 0.5
    assert fluidgate(*command, "--users", "2").status == 0
