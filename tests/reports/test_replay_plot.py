"""The picture of a replay: paths over targets, the mixed group where the plan follows, and who took longer."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.planning import plan
from fluidgate.reports.replay_plot import draw_replay, longer_than
from fluidgate.simulation import Comparison
from fluidgate.simulation.iteration.results import ReplayComparison
from tests.reports.results import observed, path, served
from tests.reports.seen import lines
from tests.reports.test_requests import FOLLOWING, REPLAYED
from tests.scenarios import two_class_scenario

PLAN = plan(two_class_scenario())
STANDING = served("standing", plan=PLAN, trajectory=path())
MOVING = served("moving", plan=PLAN, trajectory=path(), plan_path=FOLLOWING)


def test_each_policy_has_a_column_of_paths_over_its_targets(drawn) -> None:
    figure = drawn(draw_replay, Comparison("small", STANDING.run, (STANDING, served("other", trajectory=path()))))
    paths = [axes for axes in figure.axes if axes.get_yscale() == "linear"]
    assert len(paths) == 4 * 2
    assert [axes.get_title(loc="left") for axes in paths[:2]] == ["standing", "other"]
    decoding = lines(paths[4])
    both = path().mixed_decode + path().solo_decode
    assert decoding["chat"] == ([0.0, 1.0, 2.0], both[:, 0].tolist())
    assert decoding["code, plan"][1] == [PLAN.mixed_decode[1] + PLAN.solo_decode[1]] * 2
    assert set(lines(paths[5])) == {"chat", "code"}, "no plan, no targets"


def test_a_plan_that_follows_the_load_adds_the_row_of_its_mixed_group(drawn) -> None:
    figure = drawn(draw_replay, Comparison("small", MOVING.run, (STANDING, MOVING)))
    paths = [axes for axes in figure.axes if axes.get_yscale() == "linear"]
    assert len(paths) == 5 * 2
    standing, moving = (lines(axes) for axes in paths[8:])
    reading = (100 * path().prefill.sum(axis=1)).tolist()
    assert standing["in prefill"][1] == reading
    assert standing["plan"][1] == pytest.approx([100 * PLAN.mixed_fraction] * 2)
    assert moving["in the group"] == ([0.0, 1.0, 2.0], [30.0, 40.0, 80.0])
    assert moving["plan"][1] == pytest.approx([100 * PLAN.prefill.sum(), *100 * FOLLOWING.targets.prefill.sum(axis=1)])


def test_latencies_are_drawn_as_the_share_that_took_longer(drawn) -> None:
    figure = drawn(draw_replay, ReplayComparison("small", REPLAYED, (served(trajectory=path(), run=REPLAYED),)))
    assert figure.get_suptitle() == "a.csv + b.csv, rates times 1, 10 GPUs of 'small'"
    tails = [axes for axes in figure.axes if axes.get_yscale() == "log"]
    assert len(tails) == 2 * 3
    time, longer = lines(tails[0])["vllm-round-robin"]
    assert longer[0] == 100.0
    assert longer[-1] >= 0.1
    assert time == sorted(time)
    assert np.interp(0.3, time, longer) == pytest.approx(100 / 3)
    milliseconds, _ = lines(tails[4])["vllm-round-robin"]
    assert milliseconds[0] == pytest.approx(20.0, rel=5e-3), "TPOT of code, in ms"
    assert [axes.get_xscale() for axes in tails[:3]] == ["log", "linear", "log"]


def test_nothing_observed_draws_nothing() -> None:
    time, share = longer_than(observed().distribution)
    assert len(time) == len(share) == 0


def test_shares_fall_from_one_at_the_observations() -> None:
    time, share = longer_than(observed(1.0, 2.0, 2.0, 4.0).distribution)
    for seconds, above in ((0.99, 1.0), (1.5, 0.75), (3.0, 0.25)):
        assert np.interp(seconds, time, share) == pytest.approx(above)


def test_a_replay_without_paths_says_how_to_get_them(drawn) -> None:
    with pytest.raises(FluidgateError, match="recorded no path; pass samples=601"):
        drawn(draw_replay, Comparison("small", STANDING.run, (STANDING, served("none"))))
