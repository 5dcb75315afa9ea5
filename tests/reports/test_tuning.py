"""Tables and pictures of a tuning: what is kept and why, and the race."""

from __future__ import annotations

from typing import Any

import pytest

from fluidgate.policies import find_policy
from fluidgate.reports.tuning import MOST_ROWS, draw_tuning, tuning_tables
from fluidgate.simulation import Statistic
from fluidgate.tuning import Trial, Tuning
from tests.reports.results import value
from tests.reports.seen import by_first, cells, headers, lines

DEFAULT = Trial({"margin": 0.0}, 0, value(90.0, 1.0), value(0.0))


def trial(margin: float, stage: int, difference: float, replications: int = 3) -> Trial:
    objective = Statistic(90.0, 1.0, (89.0, 91.0), (90.0,) * replications)
    return Trial({"margin": margin}, stage, objective, value(difference, 0.5))


def tuned(gain: Statistic, proposed: float = 1.5, trials: tuple[Trial, ...] | None = None, **given: Any) -> Tuning:
    defaults: dict[str, Any] = {
        "scenario": "small", "policy": find_policy("gate-and-route"), "gpus": 4, "seed": 0, "budget": 1e6,
        "horizon": 500.0, "warmup": 50.0, "replications": 12, "events": 1_234_567, "default": {"margin": 0.0},
        "proposed": {"margin": proposed}, "objective_default": value(90.0, 1.0),
        "objective_proposed": value(92.0, 1.0), "gain": gain, "plan_objective": 100.0,
        "trials": trials or (DEFAULT, trial(1.0, 1, 1.0), trial(1.5, 2, 2.0, 6)),
    }  # fmt: skip
    return Tuning(**defaults | given)


@pytest.mark.parametrize(
    ("gain", "proposed", "words"),
    [
        (value(2.0, 0.5), 1.5, "the gain is beyond noise: the proposed parameters are kept"),
        (value(2.0, 2.5), 1.5, "the gain is not beyond noise: the default is kept"),
        (value(0.0), 0.0, "nothing tried earns more than the default: it is kept"),
    ],
)
def test_the_verdict_follows_the_interval_of_the_gain(gain: Statistic, proposed: float, words: str) -> None:
    whole, verdict, _ = tuning_tables(tuned(gain, proposed))
    assert cells(verdict) == [(words,)]
    assert str(verdict.title) == "Verdict (12 fresh replications of 500 s, 95 % confidence)"
    assert str(whole.title) == "gate-and-route tuned to 'small' on 4 GPUs, per GPU"


def test_both_settings_stand_beside_each_other() -> None:
    whole, *_ = tuning_tables(tuned(value(2.0, 0.5)))
    assert headers(whole) == ["", "default", "proposed"]
    assert by_first(whole) == {
        "margin": ["0", "1.5"],
        "objective, /s": ["90 ±1", "92 ±1"],
        "% of the plan's": ["90 ±1", "92 ±1"],
        "gain, /s": ["", "2 ±0.5"],
    }
    without, *_ = tuning_tables(tuned(value(2.0, 0.5), plan_objective=0.0))
    assert "% of the plan's" not in by_first(without)


def test_the_race_shows_those_that_came_furthest_first() -> None:
    many = (DEFAULT, *(trial(float(k), 1, float(k)) for k in range(1, 12)), trial(20.0, 3, 0.1, replications=9))
    *_, race = tuning_tables(tuned(value(2.0, 0.5), trials=many))
    rows = cells(race)
    assert len(rows) == MOST_ROWS
    assert rows[0] == ("20", "closest", "9", "0.1 ±0.5")
    assert [row[0] for row in rows[1:]] == ["11", "10", "9", "8", "7", "6", "5"]
    assert str(race.title) == "The race: 13 candidates that differ on this cluster, 1,234,567 events in all"
    *_, short = tuning_tables(tuned(value(2.0, 0.5)))
    assert ("0", "default", "3", "0") in cells(short)


def test_candidates_are_drawn_by_stage_and_the_proposed_apart(drawn) -> None:
    figure = drawn(draw_tuning, tuned(value(2.0, 0.5)))
    (axes,) = figure.axes
    seen = {bars.get_label(): bars for bars in axes.containers}
    assert set(seen) == {"whole range", "closer", "proposed, fresh seeds"}
    points, _, (bar,) = seen["closer"].lines
    assert (points.get_xdata().tolist(), points.get_ydata().tolist()) == ([1.5], [2.0])
    assert bar.get_segments()[0][:, 1] == pytest.approx([1.5, 2.5])
    assert lines(axes)["default"] == ([0.0], [0.0])
    assert axes.get_xlabel() == "margin"
    assert figure.get_suptitle() == "gate-and-route on small, 4 GPUs"


def test_nothing_is_proposed_where_the_default_is_kept(drawn) -> None:
    (axes,) = drawn(draw_tuning, tuned(value(0.0), proposed=0.0)).axes
    assert {bars.get_label() for bars in axes.containers} == {"whole range", "closer"}
