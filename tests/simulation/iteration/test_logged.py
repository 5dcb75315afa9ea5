"""A real run of vLLM, replayed with the engine's own settings and a law calibrated by the documented procedure."""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fluidgate.batching import Batching
from fluidgate.cli.app import main
from fluidgate.engine_table import EngineModel
from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.profiles import load_profile
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.law import Law, law_of, linear_law
from fluidgate.simulation.iteration.logged import LoggedRun, agreement, read_logged_run, replayed

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
TIMES = DATA / "rtx4090_llama31_8b_tau.csv"
LOG = DATA / "vllm_rtx4090_llama31_8b_requests.jsonl"
PAGE = ROOT / "docs" / "background" / "true-to-engines.md"
EXAMPLE = ROOT / "examples" / "vllm-rtx4090.toml"


@pytest.fixture(scope="module")
def measured() -> LoggedRun:
    if not (TIMES.exists() and LOG.exists()):
        pytest.skip("the measured run is not at ../shared/data")
    return read_logged_run(LOG)


@pytest.fixture(scope="module")
def law(measured: LoggedRun) -> Law:
    """The example's, which `test_the_commands_alone_do_the_same` calibrates anew."""
    return law_of(Scenario.load(EXAMPLE).gpu)


@pytest.fixture(scope="module")
def simulated(measured: LoggedRun, law: Law) -> LoggedRun:
    return replayed(
        measured, Engine(law, 256, 2048, keys=EngineModel(kv_tokens=41_408, kv_caching=True, async_scheduling=True))
    )


def test_the_replay_agrees_with_the_run(measured: LoggedRun, simulated: LoggedRun) -> None:
    """Means, medians and the throughput within 5 %, p90, p95 and p99 within 10 %."""
    rows = list(agreement(measured.summary, simulated.summary))
    assert len(rows) == 3 * 5 + 1
    for row in rows:
        within = 0.10 if row.statistic in ("p90", "p95", "p99") else 0.05
        assert abs(row.relative) <= within, row
    assert (simulated.preemptions or 0) > 100


def test_the_commands_alone_do_the_same(measured: LoggedRun, simulated: LoggedRun, tmp_path: Path) -> None:
    """Calibrate a profile, replay a scenario with it: the log is the library's replay, the report shows agreement."""
    columns = ("batch_size=B", "chunk_size=C", "seconds=tau_ms", "context=kv_decode")
    mapped = [word for column in columns for word in ("--map", column)]
    profile = ["--kv-bytes-per-token", "131072", "--memory-bandwidth", "1.008e12", "-o", str(tmp_path / "rtx4090.toml")]
    command("calibrate", str(TIMES), "--law", "linear", "--unit", "ms", *mapped, *profile)
    text = EXAMPLE.read_text("utf-8")
    assert Scenario.load(EXAMPLE).gpu.iteration == load_profile(tmp_path / "rtx4090.toml").iteration
    keys = ("alpha", "beta", "delta", "epsilon", "zeta", "solo_alpha", "solo_delta")
    lines = [line for line in text.splitlines() if not line.startswith(keys)]
    (tmp_path / "s.toml").write_text("\n".join(lines).replace("[gpu]", '[gpu]\nprofile = "rtx4090.toml"'), "utf-8")
    options = ["--policy", "vllm-round-robin", "--gpus", "1", "--log", str(tmp_path / "log.csv"), "--json"]
    told = json.loads(command("replay", str(tmp_path / "s.toml"), str(LOG), *options))

    log = pd.read_csv(tmp_path / "log.csv").sort_values("number")
    np.testing.assert_array_equal(log["first_token"], simulated.first_token)
    np.testing.assert_array_equal(log["last_token"], simulated.last_token)
    exact = list(agreement(measured.summary, simulated.summary))
    for row, one in zip(told["agreement"], exact, strict=True):
        assert (row["quantity"], row["statistic"], row["measured"]) == (one.quantity, one.statistic, one.measured)
        assert row["simulated"] == pytest.approx(one.simulated, rel=5e-3), row  # quantiles of 300 requests, in bins


def command(*words: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(list(words))
    return out.getvalue()


def test_each_request_comes_near_its_own_times(measured: LoggedRun, simulated: LoggedRun) -> None:
    """Not only distributions: latencies request by request, in order of arrival."""
    ratio = simulated.times["latency"] / measured.times["latency"]
    assert np.mean(np.abs(ratio - 1.0)) < 0.05


def test_the_cached_blocks_of_preempted_requests_count(measured: LoggedRun, law: Law, simulated: LoggedRun) -> None:
    without = replayed(measured, Engine(law, 256, 2048, keys=EngineModel(kv_tokens=41_408, async_scheduling=True)))
    assert without.throughput < 0.98 * simulated.throughput
    assert max(abs(row.relative) for row in agreement(measured.summary, without.summary)) > 0.05


def test_the_page_shows_these_numbers(measured: LoggedRun, simulated: LoggedRun) -> None:
    shown = [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| (TTFT|TPOT|latency|output)", line)]
    assert shown == [
        f"| {row.quantity} | {row.statistic} | {row.measured:.4g} | {row.simulated:.4g} | {100 * row.relative:+.1f} % |"
        for row in agreement(measured.summary, simulated.summary)
    ]


def entry(**changes: float) -> str:
    record = {"queued_ts": 5.0, "first_token_ts": 6.0, "last_token_ts": 8.0, "input_toks": 10, "output_toks": 5}
    return json.dumps(record | changes)


def test_a_log_is_read_in_order_of_arrival(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join([entry(queued_ts=5.5, output_toks=1), "", entry()]))
    run = read_logged_run(path)
    assert run.arrival.tolist() == [0.0, 0.5]
    assert run.times["TTFT"].tolist() == [1.0, 0.5]
    assert run.times["TPOT"].tolist() == [0.5]
    assert run.times["latency"].tolist() == [3.0, 2.5]
    assert run.throughput == pytest.approx(6 / 3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; the formats are"),
        (
            '{"queued_ts": 1, "input_toks": 2, "output_toks": 3}',
            "no times of tokens; give a log with the keys first_token_ts",
        ),
        (entry(first_token_ts=4.0), "line 1: first_token_ts: before the request was queued; correct it"),
        (entry() + "\n" + entry(last_token_ts=5.5), "line 2: last_token_ts: before the first token"),
        (entry(output_toks=0), "line 1: output_toks: no tokens"),
        ('{"queued_ts": 1}', "input_toks: missing in every request"),
        (entry() + "\n[1]", "line 2: must be an object"),
    ],
)
def test_a_log_that_is_none(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text(text)
    with pytest.raises(FluidgateError) as caught:
        read_logged_run(tmp_path / "run.jsonl")
    assert message in str(caught.value)


def test_a_replay_worked_by_hand() -> None:
    """Two prompts of 10 tokens at a budget of 10: one after the other, then decodes of both."""
    zero, ten, three = np.zeros(2), np.full(2, 10), np.full(2, 3)
    run = LoggedRun(zero, zero, zero, ten, three)
    found = replayed(run, Engine(linear_law(1.0, 0.1), 4, 10))
    # 10 prompt tokens; 1 decode and 9 prompt tokens; 2 decodes less 1 complete and the last prompt token; 2 decodes...
    assert found.first_token.tolist() == pytest.approx([2.0, 5.0])
    assert found.last_token.tolist() == pytest.approx([5.0, 7.0])


def requests_at(arrival: list[float], output: list[int]) -> LoggedRun:
    zero = np.zeros(len(arrival))
    return LoggedRun(np.array(arrival), zero, zero, np.full(len(arrival), 10), np.array(output))


def test_asynchronous_scheduling_worked_by_hand() -> None:
    """Iterations of 1 s; the batch of each is composed when the one before starts."""
    one_second = Engine(linear_law(1.0, 0.0), 4, 100)
    late = requests_at([0.0, 0.5], [4, 2])
    assert replayed(late, one_second).first_token.tolist() == [1.0, 2.0]
    # at 1 s the second iteration starts, composed at 0 s, and the third is composed: with the request of 0.5 s
    found = replayed(late, replace(one_second, keys=EngineModel(async_scheduling=True)))
    assert (found.first_token.tolist(), found.last_token.tolist()) == ([1.0, 3.0], [4.0, 4.0])
    # the second ends at 2 s; at 1 s, when the third iteration was composed, it still held its place
    full = requests_at([0.0, 0.0, 0.0], [4, 2, 1])
    assert replayed(full, replace(one_second, batch_size=2)).last_token.tolist() == [4.0, 2.0, 3.0]
    found = replayed(full, replace(one_second, batch_size=2, keys=EngineModel(async_scheduling=True)))
    assert found.last_token.tolist() == [4.0, 2.0, 4.0]
    # nothing is left to do at 2 s: composed at once
    alone = replayed(requests_at([0.0, 1.5], [2, 1]), replace(one_second, keys=EngineModel(async_scheduling=True)))
    assert alone.last_token.tolist() == [2.0, 3.0]


def test_asynchronous_scheduling_is_for_a_token_budget() -> None:
    with pytest.raises(FluidgateError, match="asynchronous scheduling is simulated with token-budget batching only"):
        Engine(linear_law(1.0, 0.1), 4, 10, Batching.PREFILL_FIRST, keys=EngineModel(async_scheduling=True))


def test_what_no_memory_holds_is_refused() -> None:
    run = LoggedRun(np.zeros(1), np.zeros(1), np.zeros(1), np.array([100]), np.array([3]))
    with pytest.raises(FluidgateError, match="1 requests are longer than it"):
        replayed(run, Engine(linear_law(1.0, 0.1), 4, 10, keys=EngineModel(kv_tokens=64)))
