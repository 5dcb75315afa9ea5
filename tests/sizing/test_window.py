"""How long a replication is: long enough for what happens to GPUs, too."""

from __future__ import annotations

import pytest

from fluidgate.sizing import size
from fluidgate.sizing.targets import targets_of
from fluidgate.sizing.window import Window, unseen
from tests.sizing.instances import chat


def horizon(more: str) -> float:
    scenario = chat(more=more)
    return Window.of(scenario, 4, targets_of(scenario)).horizon


def test_units_fail_many_times_in_a_run() -> None:
    assert horizon("") < 500.0
    assert horizon("[failures]\nmtbf = 150.0\nmttr = 30.0") == pytest.approx(20 * 180.0, rel=0.01)


def test_what_happens_at_given_times_is_seen() -> None:
    assert horizon("[[schedule]]\ntime = 900.0\ngpus = 2\nstart_up = 60.0") >= 960.0
    assert horizon("[failures]\nat = [{ time = 900.0, gpu = 0, seconds = 100.0 }]") >= 1000.0


def test_failures_too_seldom_to_be_seen_are_said() -> None:
    seldom = chat(more="[failures]\nmtbf = 864000.0\nmttr = 1800.0")
    seconds = Window.of(seldom, 4, targets_of(seldom)).horizon
    assert seconds == horizon("")
    (said,) = unseen(seldom, seconds)
    assert "too short for failures every 864000 s" in said
    late = chat(more="[[schedule]]\ntime = 86400.0\ngpus = 2")
    assert list(unseen(late, 500.0)) == [
        "failures.at, schedule: each run ends at 500 s, and what is to happen later is not seen"
    ]
    assert not list(unseen(chat(), 1.0))


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
