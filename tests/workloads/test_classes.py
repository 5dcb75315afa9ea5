from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.workloads import Trace, classes_of, read_trace
from fluidgate.workloads.names import shared_name, short_names


def trace(
    source: str,
    arrival_time: list[float],
    prompt: list[int],
    output: list[int],
    labels: list[str] | None = None,
) -> Trace:
    return Trace(
        arrival_time=np.array(arrival_time),
        prompt_tokens=np.array(prompt),
        output_tokens=np.array(output),
        labels=None if labels is None else np.array(labels, dtype=object),
        source=source,
    )


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["AzureLLMInferenceTrace_code.csv", "AzureLLMInferenceTrace_conv.csv"], ["code", "conv"]),
        (["a_code_2023.csv", "a_chat_2023.jsonl"], ["code", "chat"]),
        (["code.csv", "chat.csv"], ["code", "chat"]),
        (["trace.csv", "trace_code.csv"], ["trace", "trace_code"]),
        (["v1.2-code.csv", "v1.3-code.csv"], ["2", "3"]),
        (["x.csv", "x.csv"], ["x", "x-2"]),
        (["mooncake_conversation_trace.jsonl"], ["mooncake_conversation_trace"]),
        ([".csv"], ["trace"]),
    ],
)
def test_short_names(files: list[str], names: list[str]) -> None:
    assert short_names(files) == names


def test_shared_name() -> None:
    assert shared_name(["Azure_code.csv", "Azure_conv.csv"]) == "Azure"
    assert shared_name(["a.csv", "b.csv"]) == "a+b"
    assert shared_name(["a_b.csv"]) == "a_b"


def test_one_class_a_file_each_over_its_own_span() -> None:
    fast = trace("t_fast.csv", [0, 1, 2], [10, 20, 30], [1, 2, 3])
    slow = trace("t_slow.csv", [0, 3, 10], [100, 100, 400], [5, 5, 5])
    first, second = classes_of([fast, slow])
    assert (first.name, second.name) == ("fast", "slow")
    assert first.arrival_rate == pytest.approx(3 / 2)
    assert second.arrival_rate == pytest.approx(3 / 10)
    assert (second.mean_prompt, second.mean_output) == (pytest.approx(200), pytest.approx(5))
    np.testing.assert_array_equal(second.gaps, [3, 7])


def test_labels_merge_over_files_by_rate() -> None:
    fast = trace("fast.csv", [0, 1, 2], [10, 20, 30], [1, 2, 3], ["a", "b", "a"])
    slow = trace("slow.csv", [0, 10], [100, 100], [5, 5], ["a", "c"])
    a, b, c = classes_of([fast, slow])
    assert (a.name, b.name, c.name) == ("a", "b", "c")
    assert (len(a), len(b), len(c)) == (3, 1, 1)
    assert a.arrival_rate == pytest.approx(2 / 2 + 1 / 10)
    assert a.mean_prompt == pytest.approx((10 / 2 + 30 / 2 + 100 / 10) / 1.1)
    np.testing.assert_array_equal(a.gaps, [2])
    assert len(b.gaps) == 0


def test_only_some_files_have_labels() -> None:
    labelled = trace("a.csv", [0, 1], [1, 1], [1, 1], ["x", "y"])
    other = trace("b.csv", [0, 1], [1, 1], [1, 1])
    with pytest.raises(FluidgateError, match=r"b\.csv: has no class column, but a\.csv has; add the column"):
        classes_of([labelled, other])


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0], r"a\.csv: 1 request\(s\) over 0 s give no arrival rate; give a trace with at least 2"),
        ([0.0, 0.0], r"a\.csv: 2 request\(s\) over 0 s give no arrival rate"),
    ],
)
def test_no_rate(times: list[float], message: str) -> None:
    ones = [1] * len(times)
    with pytest.raises(FluidgateError, match=message):
        classes_of([trace("a.csv", times, ones, ones)])


def mixture(count: int = 300) -> Trace:
    rng = np.random.default_rng(5)
    short = rng.random(count) < 0.7
    prompt = np.where(short, rng.integers(90, 110, count), rng.integers(4000, 5000, count))
    output = np.where(short, rng.integers(400, 500, count), rng.integers(8, 12, count))
    times = np.sort(rng.uniform(0, 100, count))
    return trace("mix.csv", list(times - times[0]), list(prompt), list(output))


def test_clusters_find_the_parts_of_a_mixture() -> None:
    both = mixture()
    found = classes_of([both], clusters=2, seed=3)
    short, long = found
    assert short.prompt_tokens.max() < 110
    assert long.prompt_tokens.min() >= 4000
    assert short.name == f"p{short.mean_prompt:.0f}-d{short.mean_output:.0f}"
    assert short.arrival_rate > long.arrival_rate
    assert sum(c.arrival_rate for c in found) == pytest.approx(300 / both.span)
    assert [c.name for c in classes_of([both], clusters=2, seed=3)] == [c.name for c in found]


def test_clusters_of_requests_that_differ_in_one_length_only() -> None:
    found = classes_of([trace("a.csv", [0, 1, 2, 3], [5, 5, 5, 5], [1, 1, 9, 9])], clusters=2)
    assert sorted(c.name for c in found) == ["p5-d1", "p5-d9"]
    one = classes_of([trace("a.csv", [0, 1], [5, 5], [1, 1])], clusters=1)
    assert [c.name for c in one] == ["p5-d1"]


@pytest.mark.parametrize("clusters", [0, -1, 3])
def test_more_clusters_than_distinct_requests(clusters: int) -> None:
    same = trace("a.csv", [0, 1, 2], [5, 5, 6], [1, 1, 1])
    with pytest.raises(FluidgateError, match=f"clusters: {clusters} asked for; give a number from 1 to 2"):
        classes_of([same], clusters=clusters)


def test_clusters_go_by_what_is_still_to_be_read(tmp_path: Path) -> None:
    """All prompts are as long; of half of them all but a block was there before."""
    rows = []
    for k in range(20):
        numbers = list(range(100)) if k % 2 == 0 else [1000 * k + j for j in range(100)]
        numbers[-1] = 10**6 + k
        line = {"timestamp": 1000 * k, "input_length": 51_200, "output_length": 10, "hash_ids": numbers}
        rows.append(json.dumps(line))
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    found = classes_of([read_trace(tmp_path / "t.jsonl")], clusters=2)
    assert sorted((len(c), c.name) for c in found) == [(9, "n512-d10"), (11, "n51200-d10")]
    assert sorted(c.found_share for c in found) == [0.0, 0.99]
