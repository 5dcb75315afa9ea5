"""What became of requests: files of the tools themselves, beside what these say of them; and logs of one's own.

The files in `samples` are of the tools' own runs against emulated engines, without texts and identifiers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.simulation.iteration.logged import LoggedRun, read_logged_run
from fluidgate.workloads import Trace, read_trace

SAMPLES = Path(__file__).parent / "samples"


def sample(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text())


def means(run: LoggedRun) -> dict[str, float]:
    """Means of TTFT, TPOT and latency, s."""
    return {quantity: float(times.mean()) for quantity, times in run.times.items()}


def agrees(run: LoggedRun, told: Mapping[str, float], *, within: float = 1e-6) -> None:
    found = means(run)
    assert {key: found[key] for key in told} == pytest.approx(dict(told), rel=within)


@pytest.mark.parametrize("name", ["vllm-bench-0.33.json", "vllm-bench-0.33-closed.json"])
def test_vllm_bench(name: str) -> None:
    told = sample(name)
    run = read_logged_run(SAMPLES / name)
    agrees(run, {"TTFT": told["mean_ttft_ms"] / 1e3, "TPOT": told["mean_tpot_ms"] / 1e3})
    agrees(run, {"latency": told["mean_e2el_ms"] / 1e3})
    assert run.clock == "client"
    assert len(run.arrival) == told["completed"]
    assert run.output.sum() == told["total_output_tokens"]
    assert run.prompt.sum() == told["total_input_tokens"]
    assert np.quantile(run.times["TTFT"], 0.99) == pytest.approx(told["p99_ttft_ms"] / 1e3)


def test_what_failed_is_left_out_and_counted() -> None:
    trace = read_trace(SAMPLES / "vllm-bench-0.33.json")
    assert sample("vllm-bench-0.33.json")["failed"] == trace.failed == 1
    assert trace.remarks == ("vllm-bench-0.33.json: 1 request that failed or did not end is left out",)


def test_a_closed_loop_says_its_clients() -> None:
    assert read_trace(SAMPLES / "vllm-bench-0.33-closed.json").users == 3
    assert read_trace(SAMPLES / "vllm-bench-0.33.json").users is None
    assert read_trace(SAMPLES / "guidellm-0.8-concurrent.json").users == 3
    old = read_trace(SAMPLES / "guidellm-0.3.json")
    assert old.users == 3
    assert "a closed loop of 3 clients" in old.remarks[0]


def without(report: dict[str, Any], *keys: str) -> str:
    return json.dumps({key: value for key, value in report.items() if key not in keys})


def test_an_older_vllm_bench(tmp_path: Path) -> None:
    """Neither `latencies` nor `start_times`; the gaps are there."""
    told = sample("vllm-bench-0.33.json")
    path = tmp_path / "old.json"
    path.write_text(without(told, "latencies"))
    agrees(read_logged_run(path), {"TTFT": told["mean_ttft_ms"] / 1e3, "TPOT": told["mean_tpot_ms"] / 1e3})
    path.write_text(without(told, "latencies", "start_times"))
    with pytest.raises(FluidgateError, match="no start_times: a file of vllm bench that does not say when"):
        read_trace(path)
    trace = read_trace(path, timeless=True)
    assert not trace.arrival_time.any()
    run = LoggedRun.of([trace])
    assert run is not None
    agrees(run, {"TTFT": told["mean_ttft_ms"] / 1e3, "TPOT": told["mean_tpot_ms"] / 1e3})
    assert trace.notes == ("old.json: it does not say when its requests arrived; they are taken in its order",)


@pytest.mark.parametrize(
    ("name", "benchmark"), [("guidellm-0.8.json", 1), ("guidellm-0.8.json", 2), ("guidellm-0.8-concurrent.json", 1),
                            ("guidellm-0.3.json", 1)],
)  # fmt: skip
def test_guidellm(name: str, benchmark: int) -> None:
    told = sample(name)["benchmarks"][benchmark - 1]
    run = read_logged_run(SAMPLES / name, benchmark=benchmark)
    metrics = {key: value["successful"] for key, value in told["metrics"].items()}
    assert run.clock == "client"
    assert len(run.arrival) == metrics["request_latency"]["count"]
    agrees(run, {"TTFT": metrics["time_to_first_token_ms"]["mean"] / 1e3})
    assert run.prompt.mean() == pytest.approx(metrics["prompt_token_count"]["mean"])
    assert run.output.mean() == pytest.approx(metrics["output_token_count"]["mean"])
    each = {request["inter_token_latency_ms"] for request in told["requests"]["successful"]}
    np.testing.assert_allclose(np.sort(run.times["TPOT"]), np.sort(list(each)) / 1e3, rtol=1e-6)
    assert means(run)["latency"] == pytest.approx(metrics["request_latency"]["mean"], abs=0.01)


def test_aiperf() -> None:
    told = sample("aiperf-0.13-summary.json")
    run = read_logged_run(SAMPLES / "aiperf-0.13.jsonl")
    named = {"TTFT": "time_to_first_token", "TPOT": "inter_token_latency", "latency": "request_latency"}
    agrees(run, {key: told[metric]["avg"] / 1e3 for key, metric in named.items()})
    assert (run.clock, len(run.arrival)) == ("client", told["request_count"]["avg"])
    assert run.output.mean() == pytest.approx(told["output_sequence_length"]["avg"])
    assert read_trace(SAMPLES / "aiperf-0.13.jsonl").remarks == (
        "aiperf-0.13.jsonl: the tool's own warm-up, 2 requests, is left out",
        "aiperf-0.13.jsonl: 3 requests that failed or did not end are left out",
    )


def test_inference_perf() -> None:
    told = sample("inference-perf-0.7-summary.json")["successes"]
    run = read_logged_run(SAMPLES / "inference-perf-0.7.json")
    named = {"TTFT": "time_to_first_token", "TPOT": "time_per_output_token"}
    agrees(run, {key: told["latency"][metric]["mean"] for key, metric in named.items()})
    assert (run.clock, len(run.arrival)) == ("client", told["count"])
    assert means(run)["latency"] == pytest.approx(told["latency"]["request_latency"]["mean"], abs=0.01)


def test_a_first_request_that_failed_does_not_hide_the_others(tmp_path: Path) -> None:
    requests = sample("inference-perf-0.7.json")
    requests[0]["info"]["response_metrics"] = None
    requests[0]["error"] = {"error_type": "HTTP Error", "error_msg": "503"}
    path = tmp_path / "requests.json"
    path.write_text(json.dumps(requests))
    trace = read_trace(path)
    assert (len(trace), trace.failed, trace.clock) == (15, 1, "client")


@pytest.mark.parametrize(
    ("name", "mend"), [("aiperf-0.13-summary.json", "profile_export.jsonl"),
                       ("inference-perf-0.7-summary.json", "per_request_lifecycle_metrics.json")],
)  # fmt: skip
def test_a_summary_is_refused_and_names_the_file_beside_it(name: str, mend: str) -> None:
    with pytest.raises(FluidgateError, match=mend):
        read_trace(SAMPLES / name)


def test_a_result_without_requests_names_the_option(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    lists = ("input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors")
    path.write_text(without(sample("vllm-bench-0.33.json"), *lists))
    with pytest.raises(FluidgateError, match="--save-detailed"):
        read_trace(path)


def test_the_engine_of_vllm_and_its_front_end(tmp_path: Path) -> None:
    """Two clocks: `arrival_time` of the world, all others of the engine."""
    path = tmp_path / "log.jsonl"
    rows = [(1000.0, 50.0, 50.5, 51.0, 52.0), (1001.0, 51.25, 51.25, 52.0, 54.0), (1003.0, 53.0, 53.5, 53.75, 54.0)]
    keys = ("arrival_time", "queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts")
    lines = ({**dict(zip(keys, row, strict=True)), "input_toks": 300, "output_toks": 3} for row in rows)
    path.write_text("\n".join(json.dumps(line) for line in lines))
    trace = read_trace(path)
    run = LoggedRun.of([trace])
    assert run is not None
    assert (trace.clock, run.clock) == ("engine", "engine")
    assert run.scheduled is not None
    assert run.sent is not None
    assert run.arrival.tolist() == [0.0, 1.25, 3.0]
    assert run.scheduled.tolist() == [0.5, 1.25, 3.5]
    assert run.sent.tolist() == [0.0, 1.0, 3.0]
    wall = read_trace(path, columns={"arrival_time": "arrival_time"})
    assert (wall.clock, wall.first_token) == (None, None)


CSV = "sent_ms,in,out,{},status\n1000,300,3,{},ok\n1500,200,5,{},ok\n1600,9,1,,timeout\n"
MAP = {"arrival_time": "sent_ms", "prompt_tokens": "in", "output_tokens": "out", "failed": "status"}


def own(folder: Path, columns: str, first: str, second: str, **more: str) -> Trace:
    path = folder / "own.csv"
    text = CSV.format(columns, first, second)
    commas = "," * columns.count(",")
    path.write_text(text.replace(",9,1,,", f",9,1,{commas},"))
    return read_trace(path, columns={**MAP, **more})


@pytest.mark.parametrize(
    ("columns", "first", "second", "names"),
    [
        ("a_ms,b_ms", "1250,2000", "1900,2500", {"first_token": "a_ms", "last_token": "b_ms"}),
        ("a_ms,b_ms", "250,1000", "400,1000", {"ttft": "a_ms", "latency": "b_ms"}),
        ("a_s,b_s", "0.25,1", "0.4,1", {"ttft": "a_s", "latency": "b_s"}),
        ("a,b", "250,1000", "400,1000", {"ttft": "a", "latency": "b"}),
    ],
)
def test_a_log_of_ones_own(tmp_path: Path, columns: str, first: str, second: str, names: dict[str, str]) -> None:
    """Times or durations; the unit is the one in their names, else that of the arrivals."""
    trace = own(tmp_path, columns, first, second, **names)
    assert (trace.clock, trace.failed, len(trace)) == ("client", 1, 2)
    assert trace.first_token is not None
    assert trace.last_token is not None
    np.testing.assert_allclose(trace.first_token, [0.25, 0.9])
    np.testing.assert_allclose(trace.last_token, [1.0, 1.5])


def test_names_that_go_together(tmp_path: Path) -> None:
    with pytest.raises(FluidgateError, match="first_token goes with last_token, and ttft with latency"):
        own(tmp_path, "a,b", "1,2", "1,2", ttft="a")
    with pytest.raises(FluidgateError, match="end in two units"):
        own(tmp_path, "a_ms,b_s", "1,2", "1,2", ttft="a_ms", latency="b_s")
    with pytest.raises(FluidgateError, match="line 2: b: before the first token"):
        own(tmp_path, "a,b", "250,200", "1,2", ttft="a", latency="b")


def test_a_plain_trace_with_the_standard_names(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("arrival_time,prompt_tokens,output_tokens,ttft,latency\n0,10,2,0.5,1\n1,10,2,0.25,0.5\n")
    assert means(read_logged_run(path)) == pytest.approx({"TTFT": 0.375, "TPOT": 0.375, "latency": 0.75})


def test_dates_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "dates.csv"
    row = "2026-05-10T00:00:00.5Z,2026-05-10T00:00:00.75Z,2026-05-10T00:00:02.5Z,10,8\n"
    path.write_text("arrival_time,first_token,last_token,prompt_tokens,output_tokens\n" + row)
    run = read_logged_run(path)
    assert means(run) == pytest.approx({"TTFT": 0.25, "TPOT": 0.25, "latency": 2.0}, abs=1e-5)


def test_clocks_of_two_kinds_are_not_one_run() -> None:
    client = read_trace(SAMPLES / "aiperf-0.13.jsonl")
    assert LoggedRun.of([client, client]) is not None
    engine = Trace(np.zeros(1), np.ones(1, np.int64), np.ones(1, np.int64), None, "log", clock="engine",
                   first_token=np.ones(1), last_token=np.ones(1))  # fmt: skip
    assert LoggedRun.of([client, engine]) is None
