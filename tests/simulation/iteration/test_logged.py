"""A real run of vLLM, replayed with the engine's own settings and a law calibrated by the documented procedure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.true_to_engine import KV_BYTES_PER_TOKEN, MEMORY_BANDWIDTH, calibrated_law, draw
from fluidgate.errors import FluidgateError
from fluidgate.simulation.iteration.engine import Engine, KvMemory
from fluidgate.simulation.iteration.law import Law, linear_law
from fluidgate.simulation.iteration.logged import LoggedRun, agreement, read_logged_run, replayed

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
TIMES = DATA / "rtx4090_llama31_8b_tau.csv"
LOG = DATA / "vllm_rtx4090_llama31_8b_requests.jsonl"
PAGE = ROOT / "docs" / "true-to-engines.md"


@pytest.fixture(scope="module")
def measured() -> LoggedRun:
    if not (TIMES.exists() and LOG.exists()):
        pytest.skip("the measured run is not at ../shared/data")
    return read_logged_run(LOG)


@pytest.fixture(scope="module")
def law(measured: LoggedRun) -> Law:
    return calibrated_law(TIMES, KV_BYTES_PER_TOKEN, MEMORY_BANDWIDTH)


@pytest.fixture(scope="module")
def simulated(measured: LoggedRun, law: Law) -> LoggedRun:
    return replayed(measured, Engine(law, 256, 2048, kv=KvMemory(41_408, 16, caching=True)))


def test_the_replay_agrees_with_the_run(measured: LoggedRun, simulated: LoggedRun) -> None:
    """Means, medians and the throughput within 5 %, p90 and p99 within 10 %."""
    rows = list(agreement(measured, simulated))
    assert len(rows) == 3 * 4 + 1
    for row in rows:
        within = 0.10 if row.statistic in ("p90", "p99") else 0.05
        assert abs(row.relative) <= within, row
    assert (simulated.preemptions or 0) > 100


def test_each_request_comes_near_its_own_times(measured: LoggedRun, simulated: LoggedRun) -> None:
    """Not only distributions: latencies request by request, in order of arrival."""
    ratio = simulated.times["latency"] / measured.times["latency"]
    assert np.mean(np.abs(ratio - 1.0)) < 0.05


def test_the_cached_blocks_of_preempted_requests_count(measured: LoggedRun, law: Law, simulated: LoggedRun) -> None:
    without = replayed(measured, Engine(law, 256, 2048, kv=KvMemory(41_408, 16)))
    assert without.throughput < 0.98 * simulated.throughput
    assert max(abs(row.relative) for row in agreement(measured, without)) > 0.05


def test_the_page_shows_these_numbers(measured: LoggedRun, simulated: LoggedRun) -> None:
    shown = [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| (TTFT|TPOT|latency|output)", line)]
    assert shown == [
        f"| {row.quantity} | {row.statistic} | {row.measured:.4g} | {row.simulated:.4g} | {100 * row.relative:+.1f} % |"
        for row in agreement(measured, simulated)
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
        ("", "empty; give a log"),
        (entry(first_token_ts=4.0), "line 1: first_token_ts: before the request was queued; correct it"),
        (entry() + "\n" + entry(last_token_ts=5.5), "line 2: last_token_ts: before the first token"),
        (entry(output_toks=0), "line 1: output_toks: must be at least 1"),
        ('{"queued_ts": 1}', "line 1: input_toks: missing"),
        ("[1]", "line 1: must be an object"),
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


def test_what_no_memory_holds_is_refused() -> None:
    run = LoggedRun(np.zeros(1), np.zeros(1), np.zeros(1), np.array([100]), np.array([3]))
    with pytest.raises(FluidgateError, match="1 requests are longer than it"):
        replayed(run, Engine(linear_law(1.0, 0.1), 4, 10, kv=KvMemory(64, 16)))


def test_the_picture(measured: LoggedRun, simulated: LoggedRun, tmp_path: Path) -> None:
    draw(measured, simulated, tmp_path / "p.svg")
    assert (tmp_path / "p.svg").stat().st_size > 5000
