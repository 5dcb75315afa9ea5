"""Tables of an optimum and of the policies beside it, and the picture of its decisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fluidgate.optimum import Optimum, Yardstick, optimum
from fluidgate.reports.optimum import HOLD, NOBODY, draw_optimum, optimum_tables
from fluidgate.reports.tables import number
from tests.oracles.tiny import scenario
from tests.reports.results import simulated, value
from tests.reports.seen import by_first, cells

ONE = [(2.0, 1.0, 0.9, 0.6)]
TWO = [(1.5, 1.6, 0.35, 1.5), (3.0, 0.8, 0.25, 2.5)]


@pytest.fixture(scope="module")
def two() -> Optimum:
    return optimum(scenario("pair", 2, TWO), gpus=2, queue_limit=3, buffer_limit=1, accuracy=1e-4)


def test_the_optimum_is_shown_with_its_bounds_and_limits(two: Optimum) -> None:
    (whole,) = optimum_tables(two)
    assert str(whole.title) == "Optimum of 'pair' on 2 GPUs, per GPU"
    said = by_first(whole)
    assert said["revenue rate"] == [f"{number(two.revenue_rate, 6)} /s"]
    assert said["certified bounds"] == [f"{two.lower:.8g} .. {two.upper:.8g} /s"]
    assert said["optimum / R*"] == [f"{100 * two.revenue_rate / two.fluid_rate:.2f} %"]
    assert said["states (met by the optimal policy)"] == [f"{two.states:,} ({two.visited:,})"]
    assert (said["limit of each queue for prefill"], said["limit of the decode buffer"]) == (["3, 3"], ["1"])


@pytest.mark.parametrize(("chance", "written"), [(0.0, "0 %"), (5e-12, "< 1e-9 %"), (0.123, "12 %")])
def test_the_time_at_a_limit_is_told(two: Optimum, chance: float, written: str) -> None:
    (whole,) = optimum_tables(replace(two, queue_limit_chance=chance))
    assert by_first(whole)["time at a queue limit"] == [written]


def test_policies_are_ranked_by_their_share_of_the_optimum(two: Optimum) -> None:
    best = replace(two, revenue_rate=2.0)
    results = (simulated("poor", value(1.0, 0.1)), simulated("good", value(1.8, 0.02)))
    _, made = optimum_tables(best, Yardstick(best, results))
    assert cells(made) == [("good", "1.8 ±0.02", "90 ±1"), ("poor", "1 ±0.1", "50 ±5")]
    assert str(made.title) == "What policies earn of it (3 x 500 s, ± 95 % confidence)"


def test_decisions_are_drawn_by_who_waits_a_panel_for_each_number_of_decodes(drawn, two: Optimum) -> None:
    figure = drawn(draw_optimum, two)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.axison}
    assert set(panels) == {"decodes: 0 + 0", "decodes: 1 + 0", "decodes: 0 + 1"}, "two slots, one for the prefill"
    kinds = [text.get_text() for text in figure.legends[0].get_texts()]
    assert kinds[0] == NOBODY
    image = np.asarray(panels["decodes: 0 + 0"].collections[0].get_array())
    first, second = two.scenario.class_names
    assert image.shape == (4, 4), "from none to three of each class wait"
    assert kinds[int(image[0, 0])] == NOBODY
    assert kinds[int(image[0, 1])] in (first, HOLD), "the first class waits alone"
    assert kinds[int(image[1, 0])] in (second, HOLD), "the second class waits alone"
    assert "the other GPU: " in figure.get_suptitle()


def test_one_class_is_drawn_against_the_decodes(drawn) -> None:
    found = optimum(scenario("one", 3, ONE), gpus=1, queue_limit=4, accuracy=1e-4)
    figure = drawn(draw_optimum, found)
    (axes,) = figure.axes
    image = np.asarray(axes.collections[0].get_array())
    assert image.shape[0] == 3, "none, one or two decodes beside the prefill that may start"
    kinds = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {kinds[int(k)] for k in image[:, 0]} == {NOBODY}
    assert axes.get_ylabel() == "decodes on the GPU"
    assert "the other GPU" not in figure.get_suptitle()


def test_a_third_class_is_left_out_of_the_picture(drawn) -> None:
    found = optimum(scenario("three", 2, [(1.5, 1.6, 0.1, 1.5)] * 3), gpus=1, queue_limit=2, accuracy=1e-3)
    figure = drawn(draw_optimum, found)
    names = found.scenario.class_names
    assert f"panels: its decodes, {names[0]} + {names[1]}" in figure.get_suptitle()
