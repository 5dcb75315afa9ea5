"""Series in pictures are told apart, and no panel of a picture is empty."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fluidgate.planning import plan
from fluidgate.reports import looks
from fluidgate.reports.plots import draw_simulation
from fluidgate.reports.replay_plot import draw_replay
from fluidgate.reports.sizing import sizing_figure
from fluidgate.simulation import Comparison
from fluidgate.sizing import size
from tests.reports.results import path, served
from tests.reports.test_requests import FOLLOWING
from tests.scenarios import two_class_scenario

PLAN = plan(two_class_scenario())
NEAR = 0.15


def look_of(line: Any) -> tuple[str, ...]:
    """What a reader sees of a line."""
    return line.get_color(), str(line.get_linestyle()), str(line._dash_pattern), line.get_marker()


def labelled(axes: Axes) -> dict[str, tuple[str, ...]]:
    return {str(line.get_label()): look_of(line) for line in axes.get_lines() if str(line.get_label())[0] != "_"}


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.axison]


def dull(color: str, missing: int) -> np.ndarray:
    """Roughly what an eye without one kind of cones makes of a colour: red and green, the commonest, alike."""
    red, green, blue = (channel**2.2 for channel in to_rgb(color))
    return np.array([0.3 * red + 0.7 * green, blue]) if missing == 0 else np.array([red, 0.5 * (green + blue)])


def test_no_two_of_many_series_look_the_same() -> None:
    many = len(looks.COLOURS) * len(looks.DASHES)
    assert len({str(looks.line(k)) for k in range(many)}) == many >= 28
    assert len({str(looks.marked(k)) for k in range(many)}) == many
    for k in range(many - 1):
        one, other = looks.line(k), looks.line(k + 1)
        assert one["color"] != other["color"]
        assert one["ls"] != other["ls"]


@pytest.mark.parametrize("missing", [0, 1])
def test_colours_are_apart_for_eyes_that_miss_a_kind_of_cones(missing: int) -> None:
    seen = [dull(color, missing) for color in looks.COLOURS]
    apart = [np.abs(a - b).sum() for k, a in enumerate(seen) for b in seen[k + 1 :]]
    assert min(apart) > NEAR / 3


@pytest.mark.parametrize("policies", [2, 5, 12])
def test_each_policy_of_a_replay_has_a_look_of_its_own_and_no_panel_is_empty(drawn, policies: int) -> None:
    walked = replace(path(), decode_queue=0.0 * path().decode_queue)
    still = replace(PLAN, decode_queue=0.0 * PLAN.decode_queue)
    found = tuple(
        served(f"p{k}", plan=still, trajectory=walked, plan_path=FOLLOWING if k == 0 else None) for k in range(policies)
    )
    figure = drawn(draw_replay, Comparison("small", found[0].run, found))
    titles = {axes.get_ylabel() for axes in panels(figure)}
    assert "waiting for decode,\nper GPU" not in titles, "nobody waits there, so there is no row"
    assert "waiting for prefill,\nper GPU" in titles
    for axes in panels(figure):
        something = any(np.any(np.asarray(line.get_ydata(), float) > 0) for line in axes.get_lines())
        assert something or [text.get_text() for text in axes.texts] == ["nothing observed"]
        seen = labelled(axes)
        assert len(set(seen.values())) == len(seen), seen
    tails = next(axes for axes in figure.axes if axes.get_yscale() == "log")
    assert len(labelled(tails)) == policies
    written = [text.get_text() for part in figure.subfigs for legend in part.legends for text in legend.get_texts()]
    assert set(labelled(tails)) <= set(written)
    assert all(axes.get_legend() is None for axes in panels(figure)), "no legend lies over the lines"


def test_a_path_has_no_two_lines_alike(drawn) -> None:
    figure = drawn(draw_simulation, served("gate-and-route+replan", plan=PLAN, trajectory=path(), plan_path=FOLLOWING))
    for axes in panels(figure):
        seen = labelled(axes)
        assert len(set(seen.values())) == len(seen) > 0


def test_choices_of_a_fleet_look_different_and_times_are_in_the_unit_of_their_target() -> None:
    found = size("examples/chat-fleet.toml", batch_sizes=[128, 256], chunk_sizes=[512, 2048])
    figure = sizing_figure(found)
    for axes, name in zip(figure.axes, ("ttft p99, ms", "tpot p95, ms"), strict=True):
        assert axes.get_ylabel() == name
        points = [container.lines[0] for container in axes.containers]
        assert len({look_of(line) for line in points}) == len(points) == len(found.answers)
    limits = [axes.get_lines()[-1].get_ydata()[0] for axes in figure.axes]
    assert limits == pytest.approx([500.0, 30.0])
