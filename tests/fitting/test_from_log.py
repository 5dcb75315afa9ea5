"""Calibrations from logs of engines whose law is known: the simulator's own, with noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate.cli import main
from fluidgate.engine_table import EngineModel
from fluidgate.errors import FluidgateError
from fluidgate.fitting import calibrate_from_log
from fluidgate.model import Gpu, IterationTime
from fluidgate.profiles import Profile, load_profile
from fluidgate.scenario_file import parse_scenario
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.law import law_of
from fluidgate.simulation.iteration.logged import LoggedRun, replayed
from fluidgate.workloads import read_trace
from tests.reports.showing import long_winded, shows_itself

KNOWN = IterationTime(
    alpha=0.009, beta=8e-5, delta=1e-4, epsilon=3e-7, zeta=4e-9, solo_alpha=0.012, solo_delta=6e-5, solo_epsilon=1.5e-7
)
OVERHEAD = (0.0025, 3e-5)
REQUESTS = 240
ENGINE = """name = "engine"
[gpu]
batch_size = 64
chunk_size = 1024
[engine]
max_batched_tokens = 1024
kv_tokens = {memory}
data_parallel = {ranks}
"""


def scenario_text(ranks: int = 1, memory: int = 200_000) -> str:
    return ENGINE.format(ranks=ranks, memory=memory)


def scenario(ranks: int = 1, memory: int = 200_000) -> Any:
    """The engine; its times and its load have no part."""
    load = {"name": "all", "prompt_tokens": 1.0, "output_tokens": 1.0, "patience_rate": 0.0, "arrival_rate": 1.0}
    times = {"alpha": 0.01, "beta": 1e-4, "gamma": 100.0}
    return parse_scenario(scenario_text(ranks, memory), one_class=lambda _: load, times=times)


def logged(
    path: Path, time: IterationTime, *, rate: float, ranks: int = 1, memory: int = 200_000, delay: float = 0.0
) -> Path:
    """A log of that engine, each time between two tokens 1 % off at random; with a delay, by the client's clock."""
    random = np.random.default_rng(5)
    arrival = np.cumsum(random.exponential(1.0 / rate, REQUESTS)) - 0.0
    prompt, output = random.integers(20, 2500, REQUESTS), random.integers(2, 400, REQUESTS)
    run = LoggedRun(arrival - arrival[0], arrival, arrival, prompt, output)
    keys = EngineModel(kv_tokens=memory, data_parallel=ranks)
    gpu = Gpu(batch_size=64, chunk_size=1024, iteration=time)
    seen = replayed(run, Engine(law_of(gpu), 64, 1024, keys=keys))
    last = seen.first_token + (seen.last_token - seen.first_token) * random.normal(1.0, 0.01, REQUESTS)
    names = ("queued_ts", "first_token_ts", "last_token_ts") if delay == 0.0 else ("sent", "first_token", "last_token")
    rows = [
        {"input_toks": int(p), "output_toks": int(d), **dict(zip(names, map(float, three), strict=True))}
        for p, d, *three in zip(prompt, output, run.arrival, seen.first_token + delay, last + delay, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize(("ranks", "rate", "memory"), [(1, 1.5, 200_000), (1, 6.0, 30_000), (2, 2.5, 200_000)])
def test_an_overhead_comes_back_and_predicts_the_rest(tmp_path: Path, ranks: int, rate: float, memory: int) -> None:
    """At a low load, saturated and short of memory, and on two ranks in step."""
    time = KNOWN.with_overhead(*OVERHEAD)
    log = logged(tmp_path / "log.jsonl", time, rate=rate, ranks=ranks, memory=memory)
    made = calibrate_from_log(read_trace(log), scenario(ranks, memory), known=Profile(name="known", iteration=KNOWN))
    found = made.profile.iteration
    for decodes in (4, 12):
        expected = OVERHEAD[0] + OVERHEAD[1] * decodes
        assert found.added(decodes) == pytest.approx(expected, rel=0.25)
    for row in made.held_out:
        assert abs(row.relative) < (0.05 if row.statistic in ("mean", "p50") else 0.10), row


def test_a_whole_law_from_nothing_but_a_log(tmp_path: Path) -> None:
    log = logged(tmp_path / "log.jsonl", KNOWN, rate=3.0)
    made = calibrate_from_log(read_trace(log), scenario())
    assert made.what == "law"
    shows_itself(made)
    assert long_winded(made) == {}
    for row in made.held_out:
        assert abs(row.relative) < (0.03 if row.statistic in ("mean", "p50") else 0.06), row
    for chunk, decodes in ((0, 8), (512, 8)):
        context = 1200.0 * decodes
        known = KNOWN.mixed(chunk, decodes, context) if chunk else KNOWN.solo(decodes, context)
        gpu = Gpu(batch_size=64, chunk_size=1024, iteration=made.profile.iteration)
        assert gpu.seconds(chunk, decodes, context) == pytest.approx(known, rel=0.05)


def test_what_a_log_does_not_tell_is_named(tmp_path: Path) -> None:
    """One request at a time: nobody decodes beside a chunk, and no two together."""
    log = logged(tmp_path / "log.jsonl", KNOWN, rate=0.02)
    made = calibrate_from_log(read_trace(log), scenario())
    said = " ".join(made.not_identified)
    for name in ("delta", "solo_delta"):
        assert f"{name}: " in said
    assert not any(each.identified for each in made.coefficients if each.name in ("delta", "solo_delta"))


def test_the_way_between_client_and_engine_is_told_apart(tmp_path: Path) -> None:
    log = logged(tmp_path / "client.jsonl", KNOWN.with_overhead(*OVERHEAD), rate=1.5, delay=0.030)
    trace = read_trace(
        log, columns={"arrival_time": "sent", "prompt_tokens": "input_toks", "output_tokens": "output_toks"}
    )
    made = calibrate_from_log(trace, scenario(), known=Profile(name="known", iteration=KNOWN))
    delay = next(each for each in made.coefficients if each.name == "front_end")
    assert delay.value == pytest.approx(0.030, abs=0.006)
    assert made.profile.iteration.added(8) == pytest.approx(OVERHEAD[0] + 8 * OVERHEAD[1], rel=0.25)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = logged(tmp_path / "log.jsonl", KNOWN.with_overhead(*OVERHEAD), rate=2.0)
    (tmp_path / "engine.toml").write_text(scenario_text())
    rows = ["batch_size,chunk_size,context,seconds"]
    for b in (1, 8, 64):
        for c in (0, 256, 1024):
            for k in (256, 2048):
                seconds = KNOWN.mixed(c, b, b * k) if c else KNOWN.solo(b, b * k)
                rows.append(f"{b},{c},{k},{seconds}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    words = ["calibrate", "--from-log", str(log), "--scenario", str(tmp_path / "engine.toml")]
    words += ["--table", str(tmp_path / "table.csv"), "--hold-out", "0.25"]
    main([*words, "-o", str(tmp_path / "p.toml"), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1
    for part in ("fitted", "held_out"):
        assert {"quantity", "statistic", "measured", "simulated"} <= told[part][0].keys()
    iteration = load_profile(tmp_path / "p.toml").iteration
    assert iteration.table is not None
    assert iteration.overhead > 0.001
    main([*words, "--plot", str(tmp_path / "p.svg")])
    shown = capsys.readouterr().out
    assert "held out" in shown
    assert (tmp_path / "p.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from-log", "LOG"], "--scenario: a log does not say how its engine was set"),
        (["--from-log", "LOG", "--scenario", "ENGINE", "table.csv"], "MEASUREMENTS: not with --from-log"),
        (["table.csv", "--hold-out", "0.2"], "--hold-out: only with --from-log"),
        (["--from-log", "LOG", "--scenario", "ENGINE", "--hold-out", "1"], "must be at least 0 and below 1"),
        (["--from-log", "LOG", "--scenario", "ENGINE", "--hold-out", "0.99"], "a fit needs 20"),
        (["--from-log", "LOG", "--scenario", "ENGINE", "--table", "a", "--profile", "b"], "leave one of the two out"),
        (["--from-log", "TRACE", "--scenario", "ENGINE"], "no times of tokens"),
        ([], "MEASUREMENTS: missing"),
    ],
)
def test_what_cannot_be(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "engine.toml").write_text(scenario_text())
    rows = [{"timestamp": 1000 * k, "input_length": 100, "output_length": 10} for k in range(60)]
    (tmp_path / "trace.jsonl").write_text("\n".join(map(json.dumps, rows)))
    named = {"ENGINE": "engine.toml", "TRACE": "trace.jsonl", "LOG": "log.jsonl"}
    if "LOG" in words:
        logged(tmp_path / "log.jsonl", KNOWN, rate=2.0)
    with pytest.raises(SystemExit) as left:
        main(["calibrate", *(str(tmp_path / named[word]) if word in named else word for word in words)])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_a_policy_that_decides_is_no_engine_of_a_log(tmp_path: Path) -> None:
    log = logged(tmp_path / "log.jsonl", KNOWN, rate=2.0)
    by_policy = scenario().replace(engine=EngineModel(batching="single-prefill"))
    with pytest.raises(FluidgateError, match=r"engine.batching: a log is replayed on an engine"):
        calibrate_from_log(read_trace(log), by_policy)


def test_a_front_end_of_the_scenario_is_not_the_engines(tmp_path: Path) -> None:
    """The engine's own clock has no part of it."""
    log = read_trace(logged(tmp_path / "log.jsonl", KNOWN.with_overhead(*OVERHEAD), rate=1.5))
    known = Profile(name="known", iteration=KNOWN)
    plain = scenario()
    behind = plain.replace(engine=plain.engine.model_copy(update={"front_end": 0.05, "front_end_first": 0.02}))
    one, two = (calibrate_from_log(log, given, known=known).profile.iteration for given in (plain, behind))
    assert one == two
