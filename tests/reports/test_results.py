"""Every result shows itself: one line, tables of a notebook, a picture, a data frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import get_backend
from matplotlib.figure import Figure

import fluidgate
from fluidgate import (
    Scenario,
    compare,
    frontier,
    heat_map,
    list_policies,
    list_profiles,
    plan,
    predict,
    simulate,
    sweep,
)
from fluidgate.optimum import bound, measured_bound, optimum, yardstick
from fluidgate.shown import Drawn, Shown, several
from fluidgate.simulation import Comparison
from tests.reports.results import RUN, served, simulated, value

TINY = Scenario.load("examples/tiny.toml")
TWO = Scenario.load("examples/two-class.toml")
SHORT: dict[str, Any] = {"horizon": 200.0, "replications": 2}

RESULTS: dict[str, Callable[[], Any]] = {
    "scenario": lambda: TWO,
    "plan": lambda: plan(TWO, gpus=20),
    "frontier": lambda: frontier(TWO, "max_tpot", points=3),
    "sweep": lambda: sweep(TWO, "gpu.batch_size", [4, 8]),
    "heat map": lambda: heat_map(TWO, "gpu.batch_size", [4, 8], "gpu.iteration.beta", [6e-5, 1e-4, 2e-4]),
    "prediction": lambda: predict(TWO, 20),
    "simulated": lambda: simulated(),
    "served": lambda: served(),
    "compared": lambda: Comparison("small", RUN, (simulated("a"), simulated("b"))),
    "optimum": lambda: optimum(TINY, gpus=1),
    "yardstick": lambda: yardstick(optimum(TINY, gpus=1), ["fi-wsp"], **SHORT),
    "bound": lambda: bound(TWO, gpus=2, max_stages=0),
    "measured bound": lambda: measured_bound(bound(TWO, gpus=2, max_stages=0), ["fi-wsp"], **SHORT),
    "policies": list_policies,
    "profiles": list_profiles,
}


class Page(HTMLParser):
    """What a page says, and which of its elements are open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_itself(name: str) -> None:
    result = RESULTS[name]()
    assert isinstance(result, Shown)
    assert repr(result) == str(result)
    assert len(repr(result)) < 160
    assert "\n" not in repr(result)
    page = Page(result._repr_html_())
    assert page.open == []
    assert page.tags.count("table") >= 1
    assert "color:#" not in result._repr_html_()
    assert len(result.to_dataframe()) > 0
    latex = result.to_latex()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\toprule") == page.tags.count("table")
    if isinstance(result, Drawn) and name not in ("simulated", "served"):
        figure = result.plot()
        assert isinstance(figure, Figure)
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_names_are_escaped_and_warnings_told() -> None:
    result = simulated("<b>a & b</b>", warnings=("less < more",))
    page = Page(result._repr_html_())
    assert "b" not in page.tags
    assert any("<b>a & b</b>" in words for words in page.words)
    assert "less < more" in page.words
    compared = Comparison("small", RUN, (simulated("a_b & 50 %"), simulated("c"))).to_latex()
    assert r"a\_b \& 50 \%" in compared


def test_long_tables_end() -> None:
    rows = Page(sweep(TWO, "gpu.batch_size", list(range(1, 81)))._repr_html_()).tags.count("tr")
    assert rows == 1 + 40 + 1


def test_a_simulation_records_the_path_that_its_picture_needs(tmp_path: Path) -> None:
    found = simulate(TINY, "fi-wsp", gpus=2, **SHORT)
    before = get_backend()
    figure = found.plot(tmp_path / "path.svg")
    assert get_backend() == before
    assert len(figure.axes) == 6
    assert (tmp_path / "path.svg").stat().st_size > 1000


def test_pyplot_knows_nothing_of_it() -> None:
    from matplotlib import pyplot

    plan(TWO).plot()
    assert pyplot.get_fignums() == []


def test_a_comparison_has_the_paired_difference_of_every_measure() -> None:
    found = compare(TINY, ["fi-wsp", "gi-wsp"], gpus=2, fidelity="iteration", **SHORT | {"replications": 3})
    frame = found.to_dataframe()
    other = frame[frame.policy == "gi-wsp"].set_index(["class", "quantity"])
    first, second = (each.overall for each in found.policies)  # type: ignore[attr-defined]
    for quantity, values in {
        "ttft": (first.ttft.values, second.ttft.values),
        "ttft_p99": (first.ttft.quantile_values["p99"], second.ttft.quantile_values["p99"]),
        "completion_rate": (first.completion_rate.values, second.completion_rate.values),
    }.items():
        row = other.loc[("all", quantity)]
        paired = np.subtract(values[1], values[0])
        assert row["difference"] == pytest.approx(paired.mean())
        assert row["difference_low"] < row["difference"] < row["difference_high"]
        assert row["difference_std"] == pytest.approx(paired.std(ddof=1))
    assert frame[frame.policy == "fi-wsp"]["difference"].isna().all()
    assert set(frame[frame.policy == "fi-wsp"].quantity) == set(other.reset_index().quantity)
    (revenue,) = found.paired
    assert other.loc[(np.nan, "revenue_rate")]["difference"] == revenue.revenue_difference.mean


def test_what_is_named_at_the_top_is_there() -> None:
    for name in fluidgate.__all__:
        assert getattr(fluidgate, name) is not None


def test_parts_are_short_too() -> None:
    found = served()
    parts = [
        *found.classes,
        found.overall,
        found.overall.ttft,
        value(1.0, 0.1),
        TWO.gpu,
        TWO.classes[0],
        list_policies()[0],
    ]
    assert [len(repr(each)) < 160 for each in parts] == [True] * len(parts)
    assert repr(value(1.0, 0.1)) == "<Statistic 1 ±0.1>"
    assert repr(replace(value(1.0), mean=None)) == "<Statistic ->"
    assert [several(1, "class"), several(2, "class"), several(3, "policy")] == ["1 class", "2 classes", "3 policies"]
