"""Traces as streams: played, repeated, resampled, overlaid; whose class is whose; hostile ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fluidgate import FluidgateError, Scenario
from fluidgate.model import Lengths
from fluidgate.workloads import Trace, read_trace
from fluidgate.workloads.streams import (
    ClassTrace,
    Replay,
    assign_traces,
    drawn_requests,
    matching_scale,
    notes_on,
    read_class_traces,
    replayed_requests,
)
from fluidgate.workloads.streams.replay import Arrived, merged
from tests.scenarios import two_class_scenario

DATA = Path(__file__).parents[4] / "shared" / "data"
AZURE = [DATA / f"AzureLLMInferenceTrace_{name}.csv" for name in ("code", "conv")]
ONCE = Replay()
needs_azure = pytest.mark.skipif(not AZURE[0].exists(), reason="the Azure traces are not at ../shared/data")


@pytest.fixture
def scenario() -> Scenario:
    return named("a", "b")


def named(*names: str) -> Scenario:
    two = two_class_scenario()
    return two.replace(classes=tuple(two.classes[0].model_copy(update={"name": name}) for name in names))


def trace(
    times: Any, source: str = "a.csv", labels: list[str] | None = None, prompt: Any = None, output: Any = None
) -> Trace:
    count = len(times)
    return Trace(
        arrival_time=np.asarray(times, float) - times[0],
        prompt_tokens=np.asarray(np.arange(1, count + 1) if prompt is None else prompt, np.int64),
        output_tokens=np.asarray(np.arange(1, count + 1) * 3 if output is None else output, np.int64),
        labels=None if labels is None else np.array(labels, object),
        source=source,
    )


def played(scenario: Scenario, traces: list[Trace], replay: Replay = ONCE, **options: Any) -> Any:
    blocks = list(replayed_requests(scenario, assign_traces(scenario, traces), replay, **options))
    return np.concatenate(blocks)


A = trace([0.0, 1.0, 4.0], "a.csv")
B = trace([10.0, 11.0, 11.0, 15.5], "b.csv", prompt=[7, 8, 9, 10])


def test_once_is_the_traces_overlaid(scenario: Scenario) -> None:
    requests = played(scenario, [A, B])
    assert requests["arrival"].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 4.0, 5.5]
    assert requests["cls"].tolist() == [0, 1, 0, 1, 1, 0, 1]
    assert requests["prompt"].tolist() == [1, 7, 2, 8, 9, 3, 10]
    assert requests["output"].tolist() == [3, 3, 6, 6, 9, 9, 12]
    assert (requests["patience"] > 0).all()


def test_scale_divides_times(scenario: Scenario) -> None:
    once, fast = played(scenario, [A, B]), played(scenario, [A, B], Replay(scale=4.0))
    np.testing.assert_array_equal(fast["arrival"], once["arrival"] / 4)
    np.testing.assert_array_equal(fast["prompt"], once["prompt"])


def test_repeat_closes_the_trace_with_one_mean_gap(scenario: Scenario) -> None:
    requests = played(scenario, [A, B], Replay(times="repeat"), most=2000, size=64)
    first = requests[requests["cls"] == 0]
    assert first["arrival"][:7].tolist() == [0, 1, 4, 6, 7, 10, 12]  # a mean gap of 2 after 4
    assert first["prompt"][:6].tolist() == [1, 2, 3, 1, 2, 3]
    second = requests["arrival"][requests["cls"] == 1]
    assert len(second) / second[-1] == pytest.approx(4 / (5.5 * 4 / 3), rel=0.01)


def test_resampled_stretches_keep_rates_bursts_and_lengths() -> None:
    random = np.random.default_rng(3)
    bursts = np.sort(np.concatenate([start + random.exponential(0.01, 50).cumsum() for start in range(0, 2000, 10)]))
    source = trace(bursts, "a.csv", prompt=random.integers(1, 1000, len(bursts)))
    scenario = named("a")
    requests = played(scenario, [source], Replay(times="resample", stretch=35.0), most=None, horizon=200_000.0)
    rate = (len(bursts) - 1) / source.span
    by_part = np.histogram(requests["arrival"], 100, (0, 200_000))[0] / 2000
    assert abs(by_part.mean() - rate) < 5 * by_part.std() / 10
    cv = np.diff(requests["arrival"]).std() / np.diff(requests["arrival"]).mean()
    assert cv == pytest.approx(np.diff(bursts).std() / np.diff(bursts).mean(), rel=0.05)
    assert requests["prompt"].mean() == pytest.approx(source.prompt_tokens.mean(), rel=0.01)
    pairs = set(zip(source.prompt_tokens.tolist(), source.output_tokens.tolist(), strict=True))
    assert set(zip(requests["prompt"].tolist(), requests["output"].tolist(), strict=True)) <= pairs
    # Each request comes as often as the others, those at the ends of the trace too.
    times = np.bincount(requests["output"] // 3)[1:]
    assert times.min() > 0.5 * times.mean()
    other = played(scenario, [source], Replay(times="resample", stretch=35.0), most=1000, replication=1)
    assert not np.array_equal(other["prompt"], requests["prompt"][:1000])


@pytest.mark.parametrize("times", ["once", "repeat", "resample"])
def test_block_size_does_not_matter(scenario: Scenario, times: Any) -> None:
    one = played(scenario, [A, B], Replay(times=times, stretch=2.5), most=5000, size=5000)
    np.testing.assert_array_equal(one, played(scenario, [A, B], Replay(times=times, stretch=2.5), most=5000, size=13))
    assert (np.diff(one["arrival"]) >= 0).all()


def test_lengths_may_be_drawn_instead(scenario: Scenario) -> None:
    fixed = scenario.replace(lengths=Lengths(prompt="fixed", output="empirical"))
    requests = played(fixed, [A, B], Replay(times="repeat", lengths="drawn"), most=500)
    assert set(requests["prompt"]) == {300}
    for k, source in enumerate((A, B)):
        assert set(requests["output"][requests["cls"] == k]) == set(source.output_tokens)


def rows_of(pieces: Iterable[Arrived]) -> list[tuple[float, int, int]]:
    return list(itertools.chain.from_iterable(zip(*(c.tolist() for c in each), strict=True) for each in pieces))


times = st.lists(st.integers(0, 6), min_size=1, max_size=12).map(sorted)


@given(st.lists(st.lists(times, min_size=1, max_size=3), min_size=1, max_size=4))
def test_merging_is_a_stable_sort(pieces: list[list[list[int]]]) -> None:
    def source(k: int, offsets: list[list[int]]) -> Iterator[Arrived]:
        last = number = 0
        for piece in offsets:
            yield Arrived(np.array(piece) + float(last), np.full(len(piece), k), number + np.arange(len(piece)))
            last, number = last + piece[-1], number + len(piece)

    everything = [each for k, offsets in enumerate(pieces) for each in source(k, offsets)]
    expected = sorted(rows_of(everything))
    assert rows_of(merged([source(k, offsets) for k, offsets in enumerate(pieces)])) == expected


def test_empirical_lengths_keep_their_dependence(tmp_path: Path, scenario: Scenario) -> None:
    random = np.random.default_rng(1)
    rows = []
    for k in range(400):
        prompt = int(random.integers(1, 500))
        rows += [f"{k},{prompt},{2 * prompt},a", f"{k},{prompt},{1000 - prompt},b"]
    file = tmp_path / "both.csv"
    file.write_text("\n".join(["arrival_time,prompt_tokens,output_tokens,class", *rows]))

    def lengths_by(**laws: Any) -> Any:
        with_laws = scenario.replace(lengths=Lengths(**laws, traces=(str(file),)))
        requests = np.concatenate(list(drawn_requests(with_laws, 4, most=20_000)))
        return requests[requests["cls"] == 0], requests[requests["cls"] == 1]

    first, second = lengths_by(prompt="empirical", output="empirical")
    assert (first["output"] == 2 * first["prompt"]).all()
    assert (second["output"] == 1000 - second["prompt"]).all()
    own = read_trace(file).prompt_tokens[::2]
    assert abs(first["prompt"].mean() - own.mean()) < 5 * own.std() / np.sqrt(len(first))
    first, _ = lengths_by(output="empirical")
    assert abs(np.corrcoef(first["prompt"], first["output"])[0, 1]) < 5 / np.sqrt(len(first))
    assert (first["output"] % 2 == 0).all()


# ---- whose class is whose


def classes_of(names: list[str], traces: list[Trace], given: list[str | None] | None = None) -> list[list[int]]:
    return [each.cls.tolist() for each in assign_traces(named(*names), traces, given)]


def test_labels_name_classes() -> None:
    assert classes_of(["x", "y"], [trace([0, 1, 2], labels=["y", "x", "y"])]) == [[1, 0, 1]]
    with pytest.raises(FluidgateError, match=r"a\.csv: 'chatt' is no class of the scenario; did you mean 'chat'\?"):
        classes_of(["chat", "y"], [trace([0, 1], labels=["y", "chatt"])])
    with pytest.raises(FluidgateError, match=r"a\.csv: '7' is no class of the scenario; the classes are x, y"):
        classes_of(["x", "y"], [trace([0, 1], labels=["x", "7"])])


def test_short_names_of_files_name_classes_whatever_the_order() -> None:
    files = [trace([0.0], f"Azure_{name}.csv") for name in ("conv", "code")]
    assert classes_of(["code", "conv"], files) == [[1], [0]]
    assert classes_of(["code", "conv", "more"], files) == [[1], [0]]


def test_else_traces_are_taken_in_order_or_by_the_only_class() -> None:
    files = [trace([0.0], name) for name in ("u.csv", "v.csv")]
    assert classes_of(["x", "y"], files) == [[0], [1]]
    assert classes_of(["x"], files) == [[0], [0]]
    with pytest.raises(
        FluidgateError, match=r"u\.csv: its class is unclear \(2 traces, 3 classes: x, y, z\); give it as x=FILE"
    ):
        classes_of(["x", "y", "z"], files)
    assert classes_of(["x", "y", "z"], files, ["z", "x"]) == [[2], [0]]


def test_a_path_may_name_its_class(tmp_path: Path) -> None:
    text = "arrival_time,prompt_tokens,output_tokens\n0,1,2\n3,4,5\n"
    for name in ("u.csv", "x=v.csv"):
        (tmp_path / name).write_text(text)
    found = read_class_traces(named("x", "y"), [f"y={tmp_path / 'u.csv'}", f"x={tmp_path / 'x=v.csv'}"])
    assert [each.cls.tolist() for each in found] == [[1, 1], [0, 0]]
    found = read_class_traces(named("x", "y"), [f"y={tmp_path / 'u.csv'}", tmp_path / "x=v.csv"])
    assert [each.cls.tolist() for each in found] == [[1, 1], [0, 0]]
    with pytest.raises(FluidgateError, match="no trace files"):
        read_class_traces(named("x"), [])


# ---- hostile traces


def test_everything_at_once_plays_but_does_not_repeat(scenario: Scenario) -> None:
    together = [trace([5.0] * 4, "a.csv"), trace([0.0], "b.csv")]
    assert played(scenario, together)["arrival"].tolist() == [0.0] * 5
    for times in ("repeat", "resample"):
        with pytest.raises(FluidgateError, match=r"a\.csv: 4 request\(s\) over 0 s give no arrival rate; play it once"):
            replayed_requests(scenario, assign_traces(scenario, together), Replay(times=times))  # type: ignore[arg-type]


def test_many_at_one_time_pass_the_end_of_a_piece(scenario: Scenario) -> None:
    crowded = [trace([0.0, *([1.0] * 50), 2.0], "a.csv"), trace([0.0, 1.0, 1.0, 2.0], "b.csv")]
    requests = played(scenario, crowded, Replay(times="repeat"), most=400, size=7)
    assert (np.diff(requests["arrival"]) >= 0).all()
    assert len(requests) == 400


def test_gigantic_lengths_pass_whole(scenario: Scenario) -> None:
    largest = 2**31 - 1
    requests = played(scenario, [trace([0.0, 1.0], "a.csv", prompt=[largest, 1]), B])
    assert requests["prompt"].max() == largest


def test_options_out_of_range_are_named(scenario: Scenario) -> None:
    traces = assign_traces(scenario, [A, B])
    for replay in (Replay(scale=0.0), Replay(scale=np.inf), Replay(stretch=-1.0)):
        with pytest.raises(FluidgateError, match=r"(scale|stretch): must be greater than 0 and finite"):
            replayed_requests(scenario, traces, replay)
    with pytest.raises(FluidgateError, match="no trace files"):
        replayed_requests(scenario, [])


def test_an_empty_class_is_reported_and_refused_where_its_lengths_are_needed(scenario: Scenario) -> None:
    only = assign_traces(scenario, [A], ["a"])
    assert "class 'b': no request in the traces" in notes_on(scenario, only)
    assert np.concatenate(list(replayed_requests(scenario, only)))["cls"].tolist() == [0, 0, 0]
    empirical = scenario.replace(lengths=Lengths(output="empirical"))
    with pytest.raises(FluidgateError, match=r"lengths\.traces: no request of class 'b'; add a trace"):
        replayed_requests(empirical, only, Replay(lengths="drawn"))


def test_notes_tell_what_is_odd() -> None:
    scenario = named("a")
    odd = Trace(np.array([0.0, 0.0, 0.0, 1.0]), np.full(4, 300), np.full(4, 100), None, "a.csv", empty=2)
    notes = notes_on(scenario, [ClassTrace(odd, np.zeros(4, np.int32))])
    assert notes == (
        "a.csv: 2 requests without tokens are left out",
        "class 'a': the traces' mean output is 100 tokens, the scenario's 1000; its plan is for the latter",
    )


# ---- the public traces


@needs_azure
def test_the_azure_traces_keep_their_bursts_and_dependence() -> None:
    scenario = named("code", "conv")
    traces = read_class_traces(scenario, AZURE)
    once = np.concatenate(list(replayed_requests(scenario, traces)))
    assert np.bincount(once["cls"]).tolist() == [8819, 19366]
    resampled = np.concatenate(
        list(replayed_requests(scenario, traces, Replay(times="resample", stretch=300.0), horizon=200_000.0))
    )
    for k, (cv, count) in enumerate([(13.2, 8819), (1.09, 19366)]):
        assert gap_cv(once, k) == pytest.approx(cv, rel=0.01)
        assert gap_cv(resampled, k) == pytest.approx(cv, rel=0.15)
        rate = (count - 1) / traces[k].trace.span
        assert np.sum(resampled["cls"] == k) / 200_000 == pytest.approx(rate, rel=0.05)
    scale = matching_scale(scenario, 60, traces)
    fast = np.concatenate(list(replayed_requests(scenario, traces, Replay("repeat", scale=scale), horizon=1000.0)))
    assert len(fast) / 1000 == pytest.approx(60 * 1.0, rel=0.05)


@needs_azure
def test_empirical_lengths_of_the_azure_traces() -> None:
    files = tuple(str(path) for path in AZURE)
    scenario = named("code", "conv").replace(lengths=Lengths(prompt="empirical", output="empirical", traces=files))
    requests = np.concatenate(list(drawn_requests(scenario, 10, most=200_000)))
    for k, file in enumerate(AZURE):
        own, drawn = read_trace(file), requests[requests["cls"] == k]
        assert drawn["prompt"].mean() == pytest.approx(own.prompt_tokens.mean(), rel=0.02)
        wanted = stats.spearmanr(own.prompt_tokens, own.output_tokens)[0]
        assert stats.spearmanr(drawn["prompt"], drawn["output"])[0] == pytest.approx(wanted, abs=0.02)


def gap_cv(requests: Any, cls: int) -> float:
    gaps = np.diff(requests["arrival"][requests["cls"] == cls])
    return float(gaps.std() / gaps.mean())
