"""How long a replication is: long enough for what happens to GPUs, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluidgate.sizing import size
from fluidgate.sizing.targets import targets_of
from fluidgate.sizing.window import FOR_FAILURES, UNSETTLED, Window, unseen, unsettled
from tests.sizing.instances import chat


def window(more: str, **keys: Any) -> Window:
    scenario = chat(more=more, **keys)
    return Window.of(scenario, 4, targets_of(scenario))


def horizon(more: str) -> float:
    return window(more).horizon


def test_units_fail_many_times_in_a_run() -> None:
    """Three engines at least serve the load."""
    assert horizon("") < 500.0
    assert horizon("[failures]\nmtbf = 150.0\nmttr = 30.0") == pytest.approx(20 * 180.0 / 3, rel=0.01)
    assert horizon("[failures]\nmtbf = 150.0\nmttr = 30.0\nunits = 2") == pytest.approx(20 * 180.0 / 2, rel=0.01)


def test_units_that_fail_more_seldom_do_so_a_few_times_or_none() -> None:
    few = chat(more="[failures]\nmtbf = 900.0\nmttr = 100.0")
    seconds = Window.of(few, 4, targets_of(few)).horizon
    assert seconds == pytest.approx(FOR_FAILURES / 60.0, rel=0.01)
    assert not list(unseen(few, targets_of(few), seconds))


def test_a_load_of_thousands_a_second_is_simulated_for_a_shorter_time() -> None:
    usual, large = window("", rate=60.0), window("", rate=6000.0)
    assert usual.horizon - usual.warmup > 5 * (large.horizon - large.warmup) / 2
    assert usual.warmup > 0.9 * large.warmup > 0.5 * usual.warmup


def test_answers_of_very_different_lengths_are_given_time_to_gather() -> None:
    """The share of what they hold that is still missing, counted on draws of the same law."""
    spread = '[lengths]\noutput = "lognormal"\noutput_cv = 2.0'
    usual, long = window(""), window(spread, rate=10.0)
    assert long.warmup > 5.0 * usual.warmup
    scenario = chat(more=spread, rate=10.0)
    drawn = 211 * np.random.default_rng(5).lognormal(-np.log(5.0) / 2, np.log(5.0) ** 0.5, 400_000)
    tokens = long.warmup * float(scenario.rates.solo_decode[0]) * 211
    missing = np.maximum(drawn**2 - tokens**2, 0.0).sum() / (drawn**2).sum()
    assert missing == pytest.approx(UNSETTLED, abs=0.035)
    assert not list(unsettled(scenario, long))


def test_answers_that_never_gather_in_a_run_are_said() -> None:
    spread = '[lengths]\noutput = "lognormal"\noutput_cv = 5.0'
    (said,) = unsettled(chat(more=spread), window(spread))
    assert "those in progress still grow in number" in said
    (warned,) = (w for w in size(chat(more=spread, targets="ttft_p90 = 3.0"), workers=1).warnings if "lengths" in w)
    assert warned == said


def test_what_happens_at_given_times_is_seen() -> None:
    assert horizon("[[schedule]]\ntime = 900.0\ngpus = 2\nstart_up = 60.0") >= 960.0
    assert horizon("[failures]\nat = [{ time = 900.0, gpu = 0, seconds = 100.0 }]") >= 1000.0


def test_failures_too_seldom_to_be_seen_are_said() -> None:
    seldom = chat(more="[failures]\nmtbf = 864000.0\nmttr = 1800.0")
    seconds = Window.of(seldom, 4, targets_of(seldom)).horizon
    assert seconds == horizon("")
    (said,) = unseen(seldom, targets_of(seldom), seconds)
    assert "too short for failures every 864000 s" in said
    late = chat(more="[[schedule]]\ntime = 86400.0\ngpus = 2")
    assert list(unseen(late, targets_of(late), 500.0)) == [
        "failures.at, schedule: each run ends at 500 s, and what is to happen later is not seen"
    ]
    assert not list(unseen(chat(), targets_of(chat()), 1.0))


def test_engines_that_are_down_for_part_of_the_time_are_bought_besides() -> None:
    """Each is down for a sixth of the time, in which the few others would be overloaded."""
    keys = {"rate": 6.0, "targets": "ttft_p95 = 0.8"}
    steady = size(chat(**keys), workers=1).best
    failing = size(chat(**keys, more="[failures]\nmtbf = 100.0\nmttr = 20.0"), workers=1).best
    assert steady is not None
    assert failing is not None
    assert steady.engines is not None
    assert failing.engines is not None
    assert failing.engines > steady.engines


def test_no_fewer_engines_are_tried_than_fail_or_are_scheduled() -> None:
    found = size(chat(rate=6.0, more="[failures]\nat = [{ time = 30.0, gpu = 4, seconds = 10.0 }]"), workers=1)
    assert found.best is not None
    assert found.best.engines == 5
    assert "failures.at, schedule: they name 5 GPUs, so that fewer are not tried" in found.warnings
    assert found.best.bound_engines < 4
    assert found.best.one_less is None
