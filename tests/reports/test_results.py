"""Every result shows itself: one line, tables of a notebook, a picture, a data frame, JSON."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import get_backend

import fluidgate
from fluidgate import (
    Scenario,
    calibrate,
    calibrate_batches,
    compare,
    find_any_policy,
    find_policy,
    find_profile,
    fluid_trajectory,
    frontier,
    heat_map,
    list_policies,
    list_profiles,
    plan,
    predict,
    replay,
    simulate,
    size,
    sweep,
    tune,
    workload,
)
from fluidgate.calibration.live_probe import Probed, Row
from fluidgate.calibration.live_probe.facts import Facts
from fluidgate.calibration.probe import Case, Measurement, Settings, preset
from fluidgate.calibration.probe import Measurements as Times
from fluidgate.optimum import bound, measured_bound, optimum, yardstick
from fluidgate.policies.listing import PolicyList
from fluidgate.policies.policy import BasePolicy
from fluidgate.profiles.listing import ProfileList
from fluidgate.shown import Drawn, Shown, several
from fluidgate.simulation import Comparison
from tests.reports.results import RUN, served, simulated, value
from tests.reports.showing import Page, long_winded, shows_itself

TRACE = "examples/chat-and-code.csv"
TINY = Scenario.load("examples/tiny.toml")
TWO = Scenario.load("examples/two-class.toml")
SHORT: dict[str, Any] = {"horizon": 200.0, "replications": 2}

NOUNS: set[type] = {
    fluidgate.FluidState,
    fluidgate.FluidgateError,
    fluidgate.Gpu,
    fluidgate.Indicators,
    fluidgate.InfeasiblePlanError,
    fluidgate.IterationTime,
    fluidgate.Planner,
    fluidgate.Pricing,
    fluidgate.RequestClass,
    fluidgate.Measurements,
    fluidgate.Trace,
}
"""What goes in, or works."""
LISTS = BasePolicy | PolicyList | ProfileList
"""What has nothing to draw."""


@cache
def by_trace() -> Any:
    """A replay of the requests of a small trace by the classes that they make."""
    classes = workload(TRACE, gpus=1, profile="h100/llama-3.1-8b").scenario
    return replay(classes, TRACE, ["index-and-pool", "vllm-round-robin"], gpus=1)


def probed() -> Probed:
    rows = [Row(8, chunk, 0.01 + 1e-5 * chunk, 512, repeat=k) for chunk in (0, 256) for k in range(2)]
    return Probed(Facts(model="m", engine="vLLM 0.9"), rows=rows, warnings=["slow"])


def timed() -> Times:
    settings = Settings(preset("tiny"), (1, 8), (64,), 128, 64, "paged", 16, "float32", "cpu", 1, 2, 0, 1, False, False)
    cases = tuple(Measurement(Case(8, chunk), (0.01, 0.02)) for chunk in (0, 64))
    return Times(settings, "a CPU", "2.9", 5_100_000, cases)


RESULTS: dict[str, Callable[[], Any]] = {
    "scenario": lambda: TWO,
    "plan": lambda: plan(TWO, gpus=20),
    "frontier": lambda: frontier(TWO, "max_tpot", points=3),
    "sweep": lambda: sweep(TWO, "gpu.batch_size", [4, 8]),
    "heat map": lambda: heat_map(TWO, "gpu.batch_size", [4, 8], "gpu.iteration.beta", [6e-5, 1e-4, 2e-4]),
    "prediction": lambda: predict("examples/chat-fleet.toml", 6),
    "simulated": lambda: simulated(),
    "served": lambda: served(),
    "replayed": by_trace,
    "run": lambda: by_trace().policies[1],
    "path": lambda: fluid_trajectory(TWO, plan(TWO)),
    "sizing": lambda: size("examples/chat-fleet.toml", max_gpus=20),
    "tuning": lambda: tune(TINY, "gate-and-route", gpus=1, budget=1.5e6),
    "workload": lambda: workload(TRACE, gpus=1, profile="h100/llama-3.1-8b"),
    "compared": lambda: Comparison("small", RUN, (simulated("a"), simulated("b"))),
    "optimum": lambda: optimum(TINY, gpus=1),
    "yardstick": lambda: yardstick(optimum(TINY, gpus=1), ["fi-wsp"], **SHORT),
    "bound": lambda: bound(TWO, gpus=2, max_stages=0),
    "measured bound": lambda: measured_bound(bound(TWO, gpus=2, max_stages=0), ["fi-wsp"], **SHORT),
    "policies": list_policies,
    "policy": lambda: find_policy("index-and-pool"),
    "published policy": lambda: find_any_policy("vllm-round-robin"),
    "profiles": list_profiles,
    "profile": lambda: find_profile("a100-40gb/qwen-4b"),
    "profile with a table": lambda: find_profile("h100/llama-3.1-8b"),
    "calibration": lambda: calibrate("examples/measurements.csv"),
    "batch calibration": lambda: calibrate_batches("examples/measurements.csv"),
    "probed engine": probed,
    "timed transformer": timed,
}


def kinds_of(kind: type) -> Iterator[type]:
    """All that inherit it."""
    for each in kind.__subclasses__():
        yield each
        yield from kinds_of(each)


@cache
def found(name: str) -> Any:
    return RESULTS[name]()


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_itself(name: str) -> None:
    shows_itself(found(name), drawn=name not in ("simulated", "served"))


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_and_its_parts_are_short(name: str) -> None:
    assert long_winded(found(name)) == {}


def test_what_functions_give_is_a_result_and_all_results_are_tried() -> None:
    """A class that is new at the top is one of `NOUNS`, or shows itself and has an example here."""
    public = {name: getattr(fluidgate, name) for name in fluidgate.__all__}
    classes = {each for each in public.values() if inspect.isclass(each)} - NOUNS
    known = {each.__name__: each for each in kinds_of(Shown)}
    for function in filter(inspect.isfunction, public.values()):
        for name in re.findall(r"[A-Z]\w+", str(inspect.signature(function).return_annotation)):
            assert name in known or name == "None" or public.get(name) in NOUNS, f"{function.__name__} gives a {name}"
            classes |= {known[name]} if name in known else set()
    for each in classes:
        assert issubclass(each, Shown), each
        assert issubclass(each, Drawn | LISTS), each
    tried = {type(found(name)) for name in RESULTS}
    assert {each.__name__ for each in classes - tried} - {"LogCalibration"} == set()  # tried in tests/fitting


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


def test_parts_go_by_name_and_means_are_numbers() -> None:
    found = Comparison("small", RUN, (simulated("a"), simulated("b")))
    assert found["b"] is found.policies[1]
    assert list(found) == list(found.policies)
    assert found["a"]["code"] is found.policies[0].classes[1]
    assert [each.name for each in found["a"]] == ["chat", "code"]
    assert float(found["a"].revenue_rate) == 200.0
    assert np.isnan(float(found["a"]["code"].ttft))


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
