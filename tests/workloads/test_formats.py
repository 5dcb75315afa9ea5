"""The formats that people's files have, as their tools write them; the numbers are ours."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.workloads import Trace, read_trace
from fluidgate.workloads.formats import FORMATS


def lines(*objects: Any) -> str:
    return "\n".join(json.dumps(each) for each in objects) + "\n"


QWEN = lines(
    {"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.0, "input_length": 300, "output_length": 20, "type": "text"},
    {"chat_id": 2, "parent_chat_id": 1, "timestamp": 2.5, "input_length": 500, "output_length": 40, "type": "search"},
)
BENCH = {
    "date": "20260101-000000",
    "request_rate": "inf",
    "completed": 2,
    "input_lens": [300, 500],
    "output_lens": [20, 40],
    "ttfts": [0.1, 0.2],
    "itls": [[0.01], [0.02]],
    "start_times": [7131.25, 7133.75],
    "errors": ["", ""],
}


def guidellm(*, time: str) -> dict[str, Any]:
    """A report of one benchmark, whose requests stand as they ended: the second before the first."""
    requests = [
        {"request_id": "b", time: 1759000002.5, "prompt_tokens": 500, "output_tokens": 40},
        {"request_id": "a", time: 1759000000.0, "prompt_tokens": 300, "output_tokens": 20},
    ]
    return {
        "metadata": {"version": 1},
        "benchmarks": [{"type_": "b", "requests": {"successful": requests, "incomplete": [], "errored": []}}],
    }


def aiperf(start: int, prompt: int, output: int) -> dict[str, Any]:
    return {
        "metadata": {"session_num": 0, "request_start_ns": start, "benchmark_phase": "profiling"},
        "metrics": {
            "input_sequence_length": {"value": prompt, "unit": "tokens"},
            "output_sequence_length": {"value": output, "unit": "tokens"},
            "time_to_first_token": {"value": 255.9, "unit": "ms"},
        },
        "error": None,
    }


def inference_perf(kind: str, start: float, prompt: int, output: int) -> dict[str, Any]:
    """A request of one of the three shapes that its files have had."""
    answer = {"output_tokens": output, "output_token_times": [start + 0.25, start + 1.5]}
    info = {
        "inference-perf": {"request_metrics": {"text": {"input_tokens": prompt}}, "response_metrics": answer},
        "inference-perf 0.5": {"input_tokens": prompt, "extra_info": {}, "response_info": answer},
        "inference-perf before 0.5": {"input_tokens": prompt, **answer, "extra_info": {}},
    }
    return {"start_time": start, "end_time": start + 2.0, "request": "{}", "info": info[kind], "error": None}


def inference_perf_file(kind: str) -> str:
    return json.dumps([inference_perf(kind, 44.0, 300, 20), inference_perf(kind, 46.5, 500, 40)], indent=2)


BLIS = "request_id,client_id,tenant_id,slo_class,input_tokens,output_tokens,model,arrival_time_us,send_time_us,status\n"
SAMPLES = {
    "plain": "arrival_time,prompt_tokens,output_tokens\n4,300,20\n6.5,500,40\n",
    "Azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-10 00:00:00.010000+00:00,300,20\n2024-05-10 00:00:02.510000+00:00,500,40\n",
    "BurstGPT": "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "45,1,11.5,ChatGPT,300,20,320,Conversation log\n47.5,2,,GPT-4,500,40,540,API log\n",
    "Vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,300,20\n2.5,500.0,40.0\n",
    "Splitwise": "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
    "0,2,0,2.0,1,300,20\n1,2,0,4.5,1,500,40\n",
    "BLIS": BLIS + "0,c1,t1,standard,300,20,m,0,0,ok\n1,c1,t1,standard,500,40,m,2500000,2500100,ok\n",
    "ServeGen": "request_id,timestamp,input_tokens,output_tokens\n0,0.5,300,20\n1,3.0,500,40\n",
    "Qwen-Bailian": QWEN,
    "Mooncake": lines(
        {"timestamp": 27482, "input_length": 300, "output_length": 20, "hash_ids": [46]},
        {"timestamp": 29982, "input_length": 500, "output_length": 40, "hash_ids": [46, 47]},
    ),
    "LLMServingSim": lines(
        {"input_toks": 300, "output_toks": 20, "arrival_time_ns": 46926808, "input_tok_ids": [1, 2]},
        {"input_toks": 500, "output_toks": 40, "arrival_time_ns": 2546926808, "input_tok_ids": [3]},
    ),
    "vLLM log": lines(
        {"queued_ts": 27536.5, "input_toks": 300, "output_toks": 20},
        {"queued_ts": 27539.0, "input_toks": 500, "output_toks": 40},
    ),
    "vllm bench": json.dumps(BENCH),
    "guidellm": json.dumps(guidellm(time="request_start_time"), indent=4),
    "guidellm before 0.4": json.dumps(guidellm(time="start_time")),
    "aiperf": lines(aiperf(1759813207532900363, 300, 20), aiperf(1759813210032900363, 500, 40)),
    **{
        name: inference_perf_file(name)
        for name in ("inference-perf", "inference-perf before 0.5", "inference-perf 0.5")
    },
}
MARKED = {"guidellm before 0.4", "inference-perf", "inference-perf before 0.5", "inference-perf 0.5"}
"""Formats that only a report's own shape tells; the others are told by their columns in any kind of file."""


def read(folder: Path, content: str | bytes, name: str = "t.csv", **options: Any) -> Trace:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_trace(path, **options)


def refusal(folder: Path, content: str | bytes, **options: Any) -> str:
    with pytest.raises(FluidgateError) as caught:
        read(folder, content, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder / 't.csv'}: ")


def is_the_sample(trace: Trace) -> None:
    np.testing.assert_allclose(trace.arrival_time, [0.0, 2.5], atol=1e-6)
    np.testing.assert_array_equal(trace.prompt_tokens, [300, 500])
    np.testing.assert_array_equal(trace.output_tokens, [20, 40])


def test_every_format_has_a_sample() -> None:
    assert [form.name for form in FORMATS] == list(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_of_each_format_in_its_own_unit(tmp_path: Path, name: str) -> None:
    trace = read(tmp_path, SAMPLES[name])
    is_the_sample(trace)
    assert (trace.form, trace.notes) == (name, ())
    is_the_sample(read(tmp_path, gzip.compress(SAMPLES[name].encode())))


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - MARKED))
def test_columns_tell_the_format_in_a_parquet_file(tmp_path: Path, name: str) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    form = next(form for form in FORMATS if form.name == name)
    starts = {"s": (5.0, 7.5), "ms": (5000, 7500), "us": (5_000_000, 7_500_000), "ns": (5 * 10**9, 75 * 10**8)}
    if form.unit == "date":
        times: Any = pandas.to_datetime(["2024-05-10 00:00:00.0", "2024-05-10 00:00:02.5"])
    else:
        assert form.unit is not None
        times = starts[form.unit]
    columns = {form.time: times, form.prompt: [300, 500], form.output: [20, 40], **dict.fromkeys(form.marks, 1)}
    pandas.DataFrame(columns).to_parquet(tmp_path / "t")
    is_the_sample(read_trace(tmp_path / "t"))


def test_parquet_with_nulls_categories_and_what_is_no_number(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    kinds = pandas.Categorical(["chat", "code", "chat"])
    outputs = pandas.array([20, None, 40], dtype="Int64")
    columns = {
        "arrival_time": [0.0, 1.0, 2.5],
        "prompt_tokens": [300, 9, 500],
        "output_tokens": outputs,
        "class": kinds,
    }
    pandas.DataFrame({**columns, "ids": [[1], [2], [3]]}).to_parquet(path)
    trace = read_trace(path, skip_empty=True)
    is_the_sample(trace)
    assert trace.labels is not None
    assert (trace.labels.tolist(), trace.empty) == (["chat", "chat"], 1)
    with pytest.raises(FluidgateError, match=r"row 2: output_tokens: missing; give a finite number, or leave such"):
        read_trace(path)
    with pytest.raises(FluidgateError, match=r"'ids': cannot be read \(.*\); name another column"):
        read_trace(path, columns={"output_tokens": "ids"})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FluidgateError, match=r"not a whole Parquet file \(.*\); get it again"):
        read_trace(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    told = refusal(tmp_path, b"PAR1....")
    assert told == (
        "a Parquet file: reading it needs the package pyarrow; install it with pip install fluidgate[parquet]"
    )


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path: Path, separator: str) -> None:
    is_the_sample(read(tmp_path, SAMPLES["BurstGPT"].replace(",", separator)))


def test_json_as_an_array(tmp_path: Path) -> None:
    objects = [json.loads(line) for line in QWEN.splitlines()]
    for indent in (None, 2):
        is_the_sample(read(tmp_path, json.dumps(objects, indent=indent)))
    objects[1]["output_length"] = "many"
    told = refusal(tmp_path, json.dumps(objects))
    assert told == "request 2: output_length: must be a finite number, but is 'many'; correct it"


def test_mooncake_keys_whose_unit_nothing_tells(tmp_path: Path) -> None:
    """Milliseconds are whole numbers, seconds have the keys of Qwen-Bailian; what is neither may be either."""
    text = lines(
        *({"timestamp": t, "input_length": p, "output_length": d} for t, p, d in ((0.25, 300, 20), (2.75, 500, 40)))
    )
    told = refusal(tmp_path, text)
    assert told == (
        "timestamp: no whole numbers, such as Mooncake has in ms: their unit can't be told; "
        "say with unit which: s, ms, us or ns"
    )
    is_the_sample(read(tmp_path, text, unit="s"))
    assert read(tmp_path, text, unit="ms").span == pytest.approx(0.0025)


@pytest.mark.parametrize(("unit", "span"), [("s", 2.5), ("ms", 2.5e-3), ("us", 2.5e-6), ("ns", 2.5e-9)])
def test_the_unit_given_wins(tmp_path: Path, unit: Any, span: float) -> None:
    for name in ("plain", "Qwen-Bailian", "Splitwise"):
        assert read(tmp_path, SAMPLES[name], unit=unit).span == pytest.approx(span)
    is_the_sample(read(tmp_path, SAMPLES["Azure"], unit=unit))
    with pytest.raises(FluidgateError, match="unit: must be 's', 'ms', 'us' or 'ns', but is 'h'"):
        read(tmp_path, SAMPLES["plain"], unit="h")


def test_dates_in_the_place_of_numbers_and_numbers_in_that_of_dates(tmp_path: Path) -> None:
    dates = "arrival_time,prompt_tokens,output_tokens\n2024-05-10T00:00:00Z,300,20\n2024-05-10T00:00:02.5Z,500,40\n"
    is_the_sample(read(tmp_path, dates))
    numbers = "TIMESTAMP,ContextTokens,GeneratedTokens\n0,300,20\n2500,500,40\n"
    assert refusal(tmp_path, numbers).startswith("TIMESTAMP: numbers in the place of dates, whose unit can't be told; ")
    is_the_sample(read(tmp_path, numbers, unit="ms"))


MAP = {"arrival_time": "t", "prompt_tokens": "p", "output_tokens": "d"}


@pytest.mark.parametrize(
    ("column", "times", "options"),
    [
        ("t_ns", (5 * 10**9, 75 * 10**8), {}),
        ("sent_us", (0, 2_500_000), {}),
        ("sent_ms", (100, 2600), {}),
        ("t", (1759000000000, 1759000002500), {}),
        ("t", (1759000000.0, 1759000002.5), {}),
        ("t", (1759000000000000000, 1759000002500000000), {}),
        ("t", ("2024-05-10 00:00:00", "2024-05-10 00:00:02.5"), {}),
        ("t", (0, 2500), {"unit": "ms"}),
        ("t_ms", (0, 2.5), {"unit": "s"}),
    ],
)
def test_columns_that_are_named_and_whose_unit_is_told(
    tmp_path: Path, column: str, times: tuple[Any, Any], options: dict[str, Any]
) -> None:
    text = f"p,{column},d\n300,{times[0]},20\n500,{times[1]},40\n"
    trace = read(tmp_path, text, columns={**MAP, "arrival_time": column}, **options)
    is_the_sample(trace)
    assert trace.notes == ()


def test_a_named_column_holds_seconds_where_nothing_tells_and_that_is_said(tmp_path: Path) -> None:
    trace = read(tmp_path, "p,t,d\n300,1,20\n500,3.5,40\n", columns=MAP)
    is_the_sample(trace)
    assert trace.notes == (
        "t.csv: the numbers of t are taken as seconds, 2.5 in all; say unit='s' if they are, and ms, us or ns if not",
    )


def test_some_columns_of_a_known_format_are_named(tmp_path: Path) -> None:
    trace = read(tmp_path, SAMPLES["BurstGPT"], columns={"output_tokens": "Total tokens", "class": "Model"})
    assert trace.output_tokens.tolist() == [320, 540]
    assert trace.labels is not None
    assert trace.labels.tolist() == ["ChatGPT", "GPT-4"]
    assert trace.span == 2.5
    is_the_sample(read(tmp_path, SAMPLES["BLIS"], columns={"prompt_tokens": "input_tokens"}))
    sent = read(tmp_path, SAMPLES["BLIS"], columns={"arrival_time": "send_time_us"})
    assert sent.span == pytest.approx(2.5001)


def test_keys_inside_others_are_named_with_dots(tmp_path: Path) -> None:
    text = lines(*({"at": {"sent_ms": t}, "usage": {"in": p, "out": d}} for t, p, d in ((0, 300, 20), (2500, 500, 40))))
    names = {"arrival_time": "at.sent_ms", "prompt_tokens": "usage.in", "output_tokens": "usage.out"}
    is_the_sample(read(tmp_path, text, columns=names))


@pytest.mark.parametrize(
    ("columns", "start"),
    [
        ({"arrival": "t"}, "columns: no standard column 'arrival'; did you mean 'arrival_time'?"),
        (
            {"zzz": "t"},
            "columns: no standard column 'zzz'; the columns are arrival_time, prompt_tokens, output_tokens, class",
        ),
        ({**MAP, "arrival_time": "time"}, "line 1: no column 'time'; the columns are p, t, d"),
        ({"arrival_time": "t"}, "line 1: unknown header 'p,t,d'; the formats are "),
        ({**MAP, "class": "kind"}, "line 1: no column 'kind'; the columns are p, t, d"),
    ],
)
def test_mistakes_in_the_names(tmp_path: Path, columns: dict[str, str], start: str) -> None:
    assert refusal(tmp_path, "p,t,d\n300,1,20\n", columns=columns).startswith(start)


def test_a_class_column_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("p,t,d\n300,1,20\n")
    with pytest.raises(FluidgateError, match=r"class: class_column and columns={'class': 'COLUMN'} name two columns; "):
        read_trace(path, "p", columns={**MAP, "class": "t"})


def test_keys_that_no_request_has(tmp_path: Path) -> None:
    told = refusal(tmp_path, QWEN, columns={"output_tokens": "out"})
    assert told.startswith(
        "out: missing in every request; columns={'output_tokens': 'KEY'} says which one it is (the keys are chat_id"
    )


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (
            json.dumps({key: value for key, value in BENCH.items() if key != "start_times"}),
            "no start_times: a file of vllm bench that does not say when its requests arrived; newer versions of ",
        ),
        (
            "num_prefill_tokens,num_decode_tokens,num_total_tokens\n300,20,320\n",
            "no arrived_at: a file of Vidur that does not say when its requests arrived; give one that does, or name ",
        ),
        (
            lines({"session_id": "s", "arrival_time_ns": 0, "sub_requests": [{"input_toks": 3, "output_toks": 4}]}),
            "sessions (sub_requests), in which a request arrives when the one before has ended; give a trace in which ",
        ),
        (
            json.dumps({"benchmarks": [{"metrics": {}}]}),
            "benchmark 1: no requests in it; give a report that keeps them",
        ),
        (json.dumps({"benchmarks": []}), "no request in it; give a trace with requests"),
    ],
)
def test_files_that_lack_what_a_trace_needs(tmp_path: Path, text: str, start: str) -> None:
    assert refusal(tmp_path, text).startswith(start)


def test_requests_that_never_ended_are_left_out_when_asked(tmp_path: Path) -> None:
    """An aborted request has null in the place of times or lengths, or no metrics at all, or no tokens."""
    ended = {"queued_ts": 0.0, "input_toks": 300, "output_toks": 20, "first_token_ts": 0.1, "last_token_ts": 0.3}
    aborted = [
        {**ended, "queued_ts": 0.5, "output_toks": 0, "first_token_ts": None, "last_token_ts": None},
        {**ended, "queued_ts": 0.6, "output_toks": 7, "last_token_ts": None},
        {**ended, "queued_ts": None, "output_toks": None},
    ]
    later = {"queued_ts": 2.5, "input_toks": 500, "output_toks": 40, "first_token_ts": 2.6, "last_token_ts": 2.9}
    trace = read(tmp_path, lines(ended, *aborted, later), skip_empty=True)
    is_the_sample(trace)
    assert trace.empty == 3
    assert trace.remarks == ("t.csv: 3 requests without tokens are left out",)
    assert trace.last_token is not None
    assert trace.last_token.tolist() == pytest.approx([0.3, 2.9])
    for k, column in enumerate(["first_token_ts", "last_token_ts", "output_toks"]):
        told = refusal(tmp_path, lines(ended, aborted[k], later))
        assert (
            told == f"line 2: {column}: missing; give a finite number, or leave such requests out with skip_empty=True"
        )

    failed = {"metadata": {"request_start_ns": 1}, "metrics": {"error_isl": {"value": 5}}, "error": {"code": 499}}
    records = (failed, aiperf(10**9, 300, 20), aiperf(35 * 10**8, 500, 40))
    trace = read(tmp_path, lines(*records), skip_empty=True)
    is_the_sample(trace)
    assert (trace.empty, trace.failed) == (0, 1)

    report = guidellm(time="request_start_time")
    report["benchmarks"][0]["requests"]["errored"] = [
        {"request_id": "c", "request_start_time": None, "prompt_tokens": None, "output_tokens": None}
    ]
    assert read(tmp_path, json.dumps(report)).failed == 1
    failures = {**BENCH, "input_lens": [300, 9, 500], "output_lens": [20, 0, 40], "start_times": [0.0, 0.0, 2.5]}
    assert read(tmp_path, json.dumps(failures)).failed == 1


def test_a_first_token_at_the_time_of_arrival_in_any_unit(tmp_path: Path) -> None:
    """The clocks are compared in the file's own numbers: no rounding puts a token before its request."""
    rng = np.random.default_rng(0)
    times = np.sort(1.7e12 + rng.uniform(0, 1e7, 300))
    keys = {"input_toks": 3, "output_toks": 1}
    text = lines(*({"queued_ts": t, "first_token_ts": t, "last_token_ts": t, **keys} for t in times.tolist()))
    trace = read(tmp_path, text, unit="ms")
    np.testing.assert_array_equal(trace.first_token, trace.arrival_time)


def test_tools_that_write_requests_as_they_end_need_no_sort(tmp_path: Path) -> None:
    records = lines(aiperf(3_500_000_000, 500, 40), aiperf(10**9, 300, 20))
    is_the_sample(read(tmp_path, records))
    assert "sort=True" in refusal(tmp_path, "\n".join(reversed(QWEN.splitlines())))


def test_of_several_benchmarks_one_is_chosen(tmp_path: Path) -> None:
    """Reports one a line, as `vllm bench serve --append-result` writes them, or several in one of guidellm."""
    again = {**BENCH, "start_times": [7200.0, 7201.0], "request_rate": 4.0}
    choice = "1 (request_rate inf), 2 (request_rate 4.0)"
    assert refusal(tmp_path, lines(BENCH, again)) == f"2 benchmarks in it; choose one with benchmark=K: {choice}"
    missing = f"no benchmark 3 in it; give benchmark one of {choice}"
    assert refusal(tmp_path, lines(BENCH, again), benchmark=3) == missing
    is_the_sample(read(tmp_path, lines(BENCH, again), benchmark=1))
    assert read(tmp_path, lines(BENCH, again), benchmark=2).span == 1.0
    assert "leave benchmark out" in refusal(tmp_path, QWEN, benchmark=1)
    report = guidellm(time="request_start_time")
    assert read(tmp_path, json.dumps(report)).notes == ()
    two = json.dumps({"benchmarks": report["benchmarks"] * 2})
    is_the_sample(read(tmp_path, two, benchmark=2))
    assert "1 (unknown), 2 (unknown)" in refusal(tmp_path, two)


def test_benchmarks_that_are_classes_are_read_together(tmp_path: Path) -> None:
    again = {**BENCH, "start_times": [7200.0, 7201.0]}
    both = read(tmp_path, lines(BENCH, again), class_column="benchmark")
    assert both.labels is not None
    assert both.labels.tolist() == ["1", "1", "2", "2"]
    note = "t.csv: 2 benchmarks, read as one trace; its rate is that over all of them and their pauses"
    assert both.notes == (note,)


@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    damage = [b"null", b"{}", b"[]", b"-1", b"NaN", b'"', b",", b"\n", b"\xff", b"true", b""]
    whole = SAMPLES[name].encode()
    for _ in range(150):
        at, length = rng.integers(len(whole)), rng.integers(12)
        content = whole[:at] + damage[rng.integers(len(damage))] + whole[at + length :]
        try:
            trace = read(tmp_path, content, skip_empty=bool(rng.integers(2)), sort=True)
        except FluidgateError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert np.isfinite(trace.arrival_time).all()
            assert (trace.prompt_tokens > 0).all()
