"""What a fleet must keep: read from files and options, and refused where it can't be meant."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.scenario_file import dump_scenario, parse_scenario
from fluidgate.simulation.iteration.measure import BINS, Distribution
from fluidgate.sizing.targets import Target, least_served, targets_of, with_targets
from fluidgate.sizing.trial import Reading
from tests.sizing.instances import chat


def test_targets_of_all_come_first_then_those_of_classes() -> None:
    found = targets_of(chat(targets="ttft_p99 = 0.5\nserved = 0.999", more="latency_p90 = 20.0"))
    assert found == (
        Target(None, "ttft", "p99", 0.5),
        Target(None, "served", "share", 0.999),
        Target("chat", "latency", "p90", 20.0),
    )
    assert [each.name for each in found] == ["ttft p99", "served", "latency p90 of chat"]


def test_that_most_are_served_is_implied_where_requests_may_leave_and_nothing_says_so() -> None:
    impatient = chat().replace(classes=tuple(c.model_copy(update={"patience_rate": 0.1}) for c in chat().classes))
    assert [each.implied for each in targets_of(impatient)] == [False, False, True]
    said = with_targets(impatient, ["served=0.9"])
    assert not any(each.implied for each in targets_of(said))


def test_goodput_needs_something_to_count_by() -> None:
    with pytest.raises(FluidgateError, match=r"targets.goodput: .* add targets.ttft or targets.tpot"):
        targets_of(chat(targets="goodput = 0.99"))
    assert targets_of(chat(targets="goodput = 0.99\nttft = 1.0"))[0].measure == "goodput"


def test_no_target_is_refused() -> None:
    with pytest.raises(FluidgateError, match=r"targets: none that a fleet could be sized for"):
        targets_of(chat(targets="ttft = 1.0"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ttft_p98=1", "did you mean 'ttft_p9"),
        ("ttft_p99", "must be KEY=VALUE such as ttft_p99=1.0, but is 'ttft_p99'"),
        ("tpot_p95=-1", "tpot_p95 must be a time above 0 s, but is '-1'"),
        ("goodput=99", "goodput must be a share above 0 and at most 1, but is '99'"),
        ("latency_mean=inf", "latency_mean must be a time above 0 s"),
    ],
)
def test_a_wrong_option_is_named_with_its_mend(given: str, said: str) -> None:
    with pytest.raises(FluidgateError, match="targets: ") as caught:
        with_targets(chat(), [given])
    assert said in str(caught.value)


def test_an_option_takes_the_place_of_the_key() -> None:
    found = targets_of(with_targets(chat(), ["ttft_p99=2.0", "latency_p50=9"]))
    assert [(each.name, each.limit) for each in found] == [("ttft p99", 2.0), ("tpot p95", 0.025), ("latency p50", 9.0)]


def test_files_come_back_as_they_were_written() -> None:
    options = '[[options]]\nprofile = "l40s/llama-3.1-8b"\nbatch_sizes = [64, 128]\ngpu_hour = 0.9\nmax_gpus = 40\n'
    scenario = chat(more="ttft_p95 = 0.7\n" + options)
    assert scenario.options[0].batch_sizes == (64, 128)
    back = parse_scenario(dump_scenario(scenario))
    assert (back.targets, back.classes, back.cost, back.options) == (
        scenario.targets,
        scenario.classes,
        scenario.cost,
        scenario.options,
    )


def test_what_all_must_be_served_leaves_small_classes_out() -> None:
    scenario = chat().replace(
        classes=tuple(
            chat().classes[0].model_copy(update={"name": name, "arrival_rate": rate, "patience_rate": 0.1})
            for name, rate in (("large", 0.95), ("small", 0.05))
        )
    )
    assert least_served(scenario, [Target(None, "served", "share", 0.9)]) == pytest.approx([1 - 0.1 / 0.95, 0.0])
    assert least_served(scenario, [Target("small", "served", "share", 0.8)]) == pytest.approx([0.0, 0.8])


@pytest.mark.parametrize(
    ("limit", "value", "shown"), [(0.5, 0.1667, "166.7 ms"), (0.5, 78.88, "78.88 s"), (2.0, 0.25, "0.25 s")]
)
def test_times_are_shown_with_their_unit(limit: float, value: float, shown: str) -> None:
    assert Target(None, "ttft", "p99", limit).shown(value) == shown


def _ttft(seconds: float, count: int) -> Any:
    """A measurement in which so many requests have this time."""
    counts = np.zeros(BINS, dtype=np.int64)
    counts[0] = count
    return SimpleNamespace(distribution=lambda measure, cls: Distribution(counts, seconds * count))


def test_the_interval_reaches_as_far_as_the_value() -> None:
    """Three replications of one fast request each, and one of many slow ones: the value counts requests alike."""
    found = Reading.of(Target(None, "ttft", "mean", 1.0), [_ttft(0.1, 1)] * 7 + [_ttft(0.2, 1000)], None, 0.975)
    assert found.value == pytest.approx(0.2, rel=0.01)
    assert found.ci95 is not None
    assert 0.0 <= found.ci95[0] <= found.value <= found.ci95[1]


def test_the_interval_of_a_share_ends_at_all_of_them() -> None:
    target = Target(None, "served", "share", 0.9)
    done = [SimpleNamespace(**_counts(completions=[served], rejections=[10 - served])) for served in (9, 10, 10, 10)]
    assert (Reading.of(target, done, None, 0.975).ci95 or (0, 0))[1] == 1.0  # type: ignore[arg-type]
    parts = np.array([0.9, 1.0, 1.0, 1.0])
    assert (Reading.of_parts(target, done[1], None, parts).ci95 or (0, 0))[1] == 1.0  # type: ignore[arg-type]


def _counts(**given: list[int]) -> dict[str, Any]:
    none = {key: [0] for key in ("prefill_abandonments", "decode_abandonments", "rejections")}
    return {name: np.array(counts) for name, counts in {**none, **given}.items()}
