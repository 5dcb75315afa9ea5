from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluidgate.errors import FluidgateError
from fluidgate.workloads import read_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
PLAIN = "arrival_time,prompt_tokens,output_tokens"
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def refusal(folder: Path, text: str, class_column: str | None = None) -> str:
    path = write(folder, text)
    with pytest.raises(FluidgateError) as caught:
        read_trace(path, class_column)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_azure(tmp_path: Path) -> None:
    rows = "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
    trace = read_trace(write(tmp_path, f"{AZURE}\n{rows}", "code.csv"))
    np.testing.assert_allclose(trace.arrival_time, [0.0, 0.052], rtol=1e-12)
    np.testing.assert_array_equal(trace.prompt_tokens, [4808, 3180])
    np.testing.assert_array_equal(trace.output_tokens, [10, 8])
    assert (trace.labels, trace.source, trace.empty, len(trace)) == (None, "code.csv", 0, 2)


def test_azure_with_time_zones_over_midnight(tmp_path: Path) -> None:
    rows = "2024-05-10 23:59:59.5+00:00,1,2\n2024-05-11 02:00:01+02:00,3,4\n"
    assert read_trace(write(tmp_path, f"{AZURE}\n{rows}")).span == 1.5


def test_mooncake(tmp_path: Path) -> None:
    lines = [
        {"timestamp": 500, "input_length": 758, "output_length": 500, "hash_ids": [0, 1]},
        {"timestamp": 3500, "input_length": 832, "output_length": 490, "hash_ids": [0, 14]},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines) + "\n"
    trace = read_trace(write(tmp_path, text, "mooncake.jsonl"))
    np.testing.assert_array_equal(trace.arrival_time, [0.0, 3.0])
    np.testing.assert_array_equal(trace.prompt_tokens, [758, 832])
    np.testing.assert_array_equal(trace.output_tokens, [500, 490])


def test_a_logged_run_of_vllm(tmp_path: Path) -> None:
    lines = [
        {"request_id": "b-0", "input_toks": 2358, "output_toks": 531, "arrival_time": 1e9, "queued_ts": 27536.5},
        {"request_id": "b-1", "input_toks": 1034, "output_toks": 769, "arrival_time": 1e9, "queued_ts": 27537.0},
    ]
    trace = read_trace(write(tmp_path, "\n".join(json.dumps(line) for line in lines), "run.jsonl"))
    np.testing.assert_array_equal(trace.arrival_time, [0.0, 0.5])
    np.testing.assert_array_equal(trace.prompt_tokens, [2358, 1034])
    np.testing.assert_array_equal(trace.output_tokens, [531, 769])


def test_plain_with_classes_in_any_order_of_columns(tmp_path: Path) -> None:
    text = "class,arrival_time,note,output_tokens,prompt_tokens\na,10,x,1,2\n'b,c',10.5,y,3,4\n".replace("'", '"')
    trace = read_trace(write(tmp_path, text))
    np.testing.assert_array_equal(trace.arrival_time, [0.0, 0.5])
    np.testing.assert_array_equal(trace.prompt_tokens, [2, 4])
    assert trace.labels is not None
    assert trace.labels.tolist() == ["a", "b,c"]
    noted = read_trace(write(tmp_path, text), "note")
    assert noted.labels is not None
    assert noted.labels.tolist() == ["x", "y"]


def test_a_key_names_the_classes_of_a_jsonl(tmp_path: Path) -> None:
    text = '{"timestamp": 0, "input_length": 1, "output_length": 2, "tier": 7}'
    trace = read_trace(write(tmp_path, text), "tier")
    assert trace.labels is not None
    assert trace.labels.tolist() == ["7"]


@pytest.mark.parametrize("rows", ["\r\n0,1,2\r\n1,3,4\r\n\r\n", "\n0,1,2\n\n1,3,4\n   \n,,\n", "\n0, 1, 2 \n1,3.0,4"])
def test_line_ends_and_blank_lines_are_no_matter(tmp_path: Path, rows: str) -> None:
    for before in ("", "\n \n", "\ufeff"):
        trace = read_trace(write(tmp_path, before + PLAIN + rows))
        np.testing.assert_array_equal(trace.arrival_time, [0.0, 1.0])
        np.testing.assert_array_equal(trace.prompt_tokens, [1, 3])


FORMATS = "the formats are arrival_time,prompt_tokens,output_tokens and those of Azure, BurstGPT, "
GOOD = f"{PLAIN}\n0,1,2\n"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", f"empty; {FORMATS}"),
        (" \n\n", f"empty; {FORMATS}"),
        (PLAIN, "a header without requests; give a trace with requests"),
        (PLAIN + "\n\n", "a header without requests; "),
        ("time,prompt,output\n1,2,3\n", f"line 1: unknown header 'time,prompt,output'; {FORMATS}"),
        ("\n1,2,3\n", "line 2: unknown header '1,2,3'; "),
        (GOOD + "1,x,3\n", "line 3: prompt_tokens: must be a finite number, but is 'x'; correct it"),
        (GOOD + "\n1,True,3\n", "line 4: prompt_tokens: must be a finite number, but is 'True'; "),
        (GOOD + "1,2\n", "line 3: output_tokens: missing; give a finite number"),
        (GOOD + "1,,3\n", "line 3: prompt_tokens: missing; "),
        (GOOD + ",2,3\n", "line 3: arrival_time: missing; "),
        (GOOD + "1,2,3,4\n", "line 3: 4 fields where the header has 3; remove what is too much"),
        ("\n" + GOOD + "1,2,3,4\n", "line 4: 4 fields where the header has 3; "),
        (GOOD + '1,"2,3\n', "line 3: a quote that is never closed; "),
        (GOOD + "nan,2,3\n", "line 3: arrival_time: must be a finite number, but is 'nan'; "),
        (GOOD + "inf,2,3\n", "line 3: arrival_time: must be a finite number, but is 'inf'; "),
        (GOOD + "1,NaN,3\n", "line 3: prompt_tokens: must be a finite number, but is 'NaN'; "),
        (
            GOOD + "1,-2,3\n",
            "line 3: prompt_tokens: must be a whole number from 1 to 2147483647, but is '-2'; ",
        ),
        (
            GOOD + "1,2.5,3\n",
            "line 3: prompt_tokens: must be a whole number from 1 to 2147483647, but is '2.5'; ",
        ),
        (
            GOOD + "1,9e9,3\n",
            "line 3: prompt_tokens: must be a whole number from 1 to 2147483647, but is '9e9'; ",
        ),
        (
            GOOD + "1,2,0\n",
            "line 3: output_tokens: no tokens; correct it, or leave such requests out with skip_empty=True",
        ),
        (
            GOOD + "2,2,3\n\n1,2,3\n",
            "line 5: arrival_time: earlier than the request before; sort the file, or have it sorted with sort=True",
        ),
        (
            f"{AZURE}\nyesterday,1,2\n",
            "line 2: TIMESTAMP: must be a date and time such as 2023-11-16 18:17:03.9799600, but is 'yesterday'; ",
        ),
        (f"{AZURE}\n,1,2\n", "line 2: TIMESTAMP: missing; give a date and time such as "),
        (f"{PLAIN},class\n0,1,2,\n", "line 2: class: missing; give the name of a class"),
        ("{", "line 1: not JSON (Expecting property name enclosed in double quotes); give one object a line"),
        (
            '{"timestamp": 1}',
            "input_length: missing in every request; columns={'prompt_tokens': 'KEY'} says which one it is",
        ),
        ('{"t": 1, "p": 2}', f"line 1: unknown keys 't,p'; {FORMATS}"),
        ("[]", "no request in it; give a trace with requests"),
        ("[1]", "line 1: must be an object, but is an array; give one object a line"),
        (
            '{"timestamp": 1, "input_length": true, "output_length": 2}',
            "line 1: input_length: must be a finite number, but is 'true'; correct it",
        ),
        (
            '{"timestamp": 1, "input_length": 1, "output_length": 2}\n\n[1]',
            "line 3: must be an object, but is an array; give one object a line",
        ),
        (
            '{"timestamp": 1, "input_length": 1' + "0" * 400 + ', "output_length": 2}',
            "line 1: input_length: must be a finite number, but is '1000",
        ),
    ],
)
def test_mistakes_name_the_line(tmp_path: Path, text: str, start: str) -> None:
    assert refusal(tmp_path, text).startswith(start)


def test_an_unknown_class_column(tmp_path: Path) -> None:
    text = f"{PLAIN},tier\n0,1,2,a\n"
    assert refusal(tmp_path, text, "teir") == "line 1: no column 'teir'; did you mean 'tier'?"
    assert refusal(tmp_path, text, "zzz").startswith("line 1: no column 'zzz'; the columns are arrival_time, ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FluidgateError, match=r"no\.csv: no such file; give the path of a trace file"):
        read_trace(tmp_path / "no.csv")
    with pytest.raises(FluidgateError, match="a folder; give the path of a trace file"):
        read_trace(tmp_path)
    (tmp_path / "latin.csv").write_bytes(b"caf\xe9")
    with pytest.raises(FluidgateError, match="line 1: not UTF-8; save the file as UTF-8"):
        read_trace(tmp_path / "latin.csv")


def test_empty_requests_are_left_out_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path, f"{PLAIN}\n0,0,2\n1,1,2\n2,1,0\n4,3,4\n")
    trace = read_trace(path, skip_empty=True)
    np.testing.assert_array_equal(trace.arrival_time, [0.0, 3.0])
    assert trace.empty == 2
    with pytest.raises(FluidgateError, match="every request is empty; "):
        read_trace(write(tmp_path, f"{PLAIN}\n0,0,2\n"), skip_empty=True)


def test_requests_are_sorted_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path, f"{PLAIN},class\n5,1,2,a\n3,3,4,b\n5,5,6,c\n")
    trace = read_trace(path, sort=True)
    np.testing.assert_array_equal(trace.arrival_time, [0.0, 2.0, 2.0])
    np.testing.assert_array_equal(trace.prompt_tokens, [3, 1, 5])
    assert trace.labels is not None
    assert trace.labels.tolist() == ["b", "a", "c"]


requests = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(1, 10**6), st.integers(1, 10**6)), min_size=1, max_size=20
).map(sorted)


@in_one_folder
@given(requests, st.sampled_from(["azure", "mooncake", "plain"]), st.sampled_from(["\n", "\r\n"]))
def test_every_format_is_read_back(tmp_path: Path, requests: list[tuple[int, int, int]], form: str, end: str) -> None:
    start = np.datetime64("2023-11-16T18:17:03", "ms")
    if form == "azure":
        rows = [AZURE, *(f"{start + np.timedelta64(t, 'ms')},{p},{d}" for t, p, d in requests)]
    elif form == "plain":
        rows = [PLAIN, *(f"{t / 1000},{p},{d}" for t, p, d in requests)]
    else:
        keys = ("timestamp", "input_length", "output_length")
        rows = [json.dumps(dict(zip(keys, request, strict=True))) for request in requests]
    trace = read_trace(write(tmp_path, end.join(rows) + end))
    times, prompt, output = np.array(requests).T
    np.testing.assert_allclose(trace.arrival_time, (times - times[0]) / 1000, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(trace.prompt_tokens, prompt)
    np.testing.assert_array_equal(trace.output_tokens, output)


junk = st.text(alphabet='{}[]":,.-+eE0123456789nanTZ \r\n\0', max_size=60) | st.text(max_size=30)


@in_one_folder
@given(st.sampled_from(["", AZURE + "\n", PLAIN + "\n", '{"timestamp": 1}\n']), junk)
def test_any_text_is_a_trace_or_one_line(tmp_path: Path, header: str, text: str) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes((header + text).encode("utf-8", "replace"))
    try:
        trace = read_trace(path, skip_empty=True, sort=True)
    except FluidgateError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert np.isfinite(trace.arrival_time).all()
        assert (np.diff(trace.arrival_time) >= 0).all()
