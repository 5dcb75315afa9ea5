"""Frontiers, sweeps, heat maps and length laws: their rows and the lines of their pictures."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from fluidgate.errors import FluidgateError
from fluidgate.model import Indicators
from fluidgate.planning import frontier, heat_map, sweep
from fluidgate.reports.sweeps import (
    draw_frontier,
    draw_heat_map,
    draw_length_laws,
    draw_sweeps,
    frontier_figure,
    frontier_tables,
    heat_map_figure,
    law_table,
    length_law_figure,
    length_scatter_figure,
    sweep_figure,
    sweep_table,
)
from fluidgate.reports.tables import number
from fluidgate.workloads.labelled import Labelled
from fluidgate.workloads.length_laws import length_laws
from tests.reports.seen import by_first, cells, headers, lines, series
from tests.scenarios import two_class_scenario

SCENARIO = two_class_scenario()
PENALISED = SCENARIO.replace(indicators=Indicators(tpot_weight=100.0))


def test_a_frontier_shows_its_ends_and_a_dash_where_a_slope_is_unknown() -> None:
    found = frontier(SCENARIO, "max_tpot", points=4)
    whole, points = frontier_tables(found)
    said = by_first(whole)
    assert said["least limit that can be met"] == [number(found.least_limit, 6)]
    assert said["objective without the limit"] == ["297.703 /s"]
    assert said["prices between their two differences"] == ["4 of 4"]
    assert "revenue /s" not in headers(points), "it is the objective"
    assert cells(points)[0][3] == "-"
    assert [float(row[0]) for row in cells(points)] == pytest.approx(found.limit, rel=1e-5)


def test_a_penalised_frontier_shows_revenue_beside_the_objective() -> None:
    found = frontier(PENALISED, "max_solo_gap", points=4)
    _, points = frontier_tables(found)
    assert headers(points)[1:3] == ["objective /s", "revenue /s"]
    assert [row[1] for row in cells(points)] == [number(each, 6) for each in found.objective.tolist()]
    assert [row[2] for row in cells(points)] == [number(each, 6) for each in found.revenue_rate.tolist()]


def test_a_frontier_is_drawn_above_its_price() -> None:
    found = frontier(PENALISED, "max_solo_gap", points=4)
    upper, lower = frontier_figure([found]).axes
    above, below = lines(upper), lines(lower)
    limit = found.limit.tolist()
    assert above["objective"] == (limit, found.objective.tolist())
    assert above["revenue"] == (limit, found.revenue_rate.tolist())
    assert above["without the limit"][1] == [found.unlimited_objective] * 2
    assert below["shadow price (dual)"] == (limit, found.shadow_price.tolist())
    assert below["slope above"] == (limit, found.price_above.tolist())
    assert lower.get_xlabel() == "largest solo gap, eta_2"
    plain = frontier_figure([frontier(SCENARIO, "max_tpot", points=3)]).axes[0]
    assert "revenue" not in lines(plain)


def test_a_sweep_says_where_there_is_no_plan() -> None:
    found = sweep(SCENARIO, "indicators.max_tpot", [None, 0.02, 0.0235])
    made = sweep_table(found)
    assert headers(made)[-1] == "max_tpot"
    free, none, bound = cells(made)
    assert (free[0], free[1], free[-1]) == ("None", "297.703", "-")
    assert none == ("0.02", "no plan", *["-"] * 6)
    assert (bound[0], bound[3]) == ("0.0235", "23.5")
    assert bound[-1] == number(float(found.shadow_prices["max_tpot"][2]), 5)


def test_sweeps_are_drawn_side_by_side() -> None:
    batch = sweep(SCENARIO, "gpu.batch_size", [4, 8, 16])
    beta = sweep(SCENARIO, "gpu.iteration.beta", [0.5, 2.0], scale=True)
    scheme = sweep(SCENARIO, "pricing.scheme", ["bundled", "separate"])
    figure = sweep_figure([batch, beta, scheme], log=["gpu.iteration.beta"])
    uppers, lowers = figure.axes[:3], figure.axes[3:]
    assert series(uppers[0]) == [([4.0, 8.0, 16.0], batch.objective.tolist())]
    assert series(lowers[0]) == [([4.0, 8.0, 16.0], (1000 * batch.tpot).tolist())]
    assert [axes.get_xlabel() for axes in lowers] == ["gpu.batch_size", "gpu.iteration.beta, factor", "pricing.scheme"]
    assert (uppers[0].get_xscale(), uppers[1].get_xscale()) == ("linear", "log")
    assert series(uppers[2])[0][0] == [0.0, 1.0], "names stand side by side"
    assert [label.get_text() for label in lowers[2].get_xticklabels()] == ["bundled", "separate"]


def test_a_heat_map_is_white_where_there_is_no_plan() -> None:
    limited = SCENARIO.replace(indicators=Indicators(max_tpot=0.024))
    found = heat_map(limited, "gpu.iteration.gamma", [30.0, 45.0, 50.0], "gpu.iteration.beta", [1e-5, 1e-4])
    assert np.isnan(found.objective).any()
    axes, bar = heat_map_figure(found, label_x="speed", log=["gpu.iteration.beta"]).axes
    (mesh,) = (each for each in axes.collections if isinstance(each, QuadMesh))
    shown = np.ma.filled(np.ma.asarray(mesh.get_array()), np.nan).reshape(found.objective.shape)
    np.testing.assert_array_equal(shown, found.objective)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("speed", "gpu.iteration.beta")
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    assert bar.get_ylabel() == "objective, per second and GPU"


def test_one_row_of_a_heat_map_has_no_contours() -> None:
    found = heat_map(SCENARIO, "gpu.batch_size", [8, 16], "gpu.iteration.beta", [1e-5])
    axes = heat_map_figure(found).axes[0]
    assert len(axes.collections) == 1


def labelled(**outputs: list[float]) -> Labelled:
    lengths = np.concatenate([np.array(each) for each in outputs.values()])
    names = np.repeat(np.array(list(outputs), object), [len(each) for each in outputs.values()])
    return Labelled(prompt=10 * lengths, output=lengths, category=names, unit="tokens", source="answers.csv")


LAWS = length_laws(labelled(short=[1.0, 2.0, 6.0, 7.0], same=[5.0, 5.0]))


def test_length_laws_are_compared_with_the_exponential() -> None:
    made = law_table(LAWS)
    said = by_first(made)
    short = LAWS["short"]
    assert said["short"][:3] == ["4", "40", "4"]
    aic = {fit.law: f"{fit.aic - short.exponential.aic:+,.0f}" for fit in short.fits}
    assert said["short"][6:] == [aic["lognormal"], aic["gamma"], short.best.law]
    assert said["same"][6:] == ["-", "-", "exponential"], "one length tells no other law"
    assert str(made.title) == "Output lengths of answers.csv, tokens"


def test_survival_is_drawn_with_the_fitted_laws() -> None:
    panels = {axes.get_title(loc="left").split(" (")[0]: axes for axes in length_law_figure(LAWS).axes}
    seen = lines(panels["short"])
    assert seen["measured"] == ([1.0, 2.0, 6.0, 7.0], [1.0, 0.75, 0.5, 0.25])
    assert set(seen) == {"measured", "exponential", "lognormal", "gamma"}
    lengths, survival = seen["exponential"]
    assert survival == pytest.approx(np.exp(-np.array(lengths) / 4.0))
    assert set(lines(panels["same"])) == {"measured", "exponential"}


def test_a_scatter_shows_the_categories_asked_for() -> None:
    axes = length_scatter_figure(LAWS, ["short"]).axes[0]
    ((prompt, output),) = lines(axes).values()
    assert sorted(zip(prompt, output, strict=True)) == [(10.0, 1.0), (20.0, 2.0), (60.0, 6.0), (70.0, 7.0)]
    assert axes.get_xlabel() == "prompt, tokens"
    with pytest.raises(FluidgateError, match="no categories to draw"):
        length_scatter_figure(LAWS, [])
    with pytest.raises(FluidgateError, match="no category 'z'"):
        length_scatter_figure(LAWS, ["z"])


def test_each_picture_has_a_function_that_writes_it(drawn) -> None:
    assert len(drawn(draw_frontier, frontier(SCENARIO, "max_tpot", points=3)).axes) == 2
    found = sweep(SCENARIO, "gpu.batch_size", [8, 16])
    assert len(drawn(draw_sweeps, found).axes) == 2
    grid = heat_map(SCENARIO, "gpu.batch_size", [8, 16], "gpu.iteration.beta", [1e-5, 1e-4])
    assert len(drawn(draw_heat_map, grid).axes) == 2
    assert len(drawn(draw_length_laws, LAWS).axes) == 2
