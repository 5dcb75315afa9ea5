"""Pictures of scenarios, predictions, profiles, and of what policies earn beside the most that any can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluidgate import FluidgateError, Scenario, find_profile, heat_map, predict
from fluidgate.optimum.bounds.result import Bound, MeasuredBound
from fluidgate.tails import MEASURES
from tests.reports.results import simulated, value
from tests.reports.seen import lines, series

TWO = Scenario.load("examples/two-class.toml")
BOUND = Bound(TWO, 2, 291.0, 297.7, "totals", (("decode-heavy",), ("prefill-heavy",)), 100)


def test_a_scenario_is_drawn_as_the_tokens_that_arrive_and_the_time_of_an_iteration() -> None:
    load, times = TWO.plot().axes
    rates = [(c.arrival_rate * c.prompt_tokens, c.arrival_rate * c.output_tokens) for c in TWO.classes]
    assert [bar.get_width() for bar in load.patches] == pytest.approx(  # type: ignore[attr-defined]
        [prompt for prompt, _ in rates] + [output for _, output in rates]
    )
    whole = TWO.replace(cluster_gpus=3).plot().axes[0]
    assert whole.patches[0].get_width() == pytest.approx(3 * rates[0][0])  # type: ignore[attr-defined]
    (chunks, seconds), (_, solo), _ = series(times)
    assert seconds == pytest.approx([1000 * TWO.gpu.iteration.mixed(chunk) for chunk in chunks])
    assert solo == pytest.approx([1000 * TWO.gpu.solo])


def test_a_prediction_is_drawn_as_the_share_that_takes_longer() -> None:
    found = predict("examples/mixed-fleet.toml", 12)
    for axes, measure in zip(found.plot().axes, MEASURES, strict=True):
        seen = lines(axes)
        assert list(seen)[:3] == ["all", *(each.name for each in found.classes)]
        time, share = (np.array(each) for each in seen["all"])
        unit = 1000.0 if measure == "tpot" else 1.0
        assert np.interp(0.01, share[::-1], time[::-1]) == pytest.approx(
            unit * found.time(measure).quantile(0.99), rel=0.05
        )


def test_a_target_is_a_line_and_what_has_no_end_is_not_drawn() -> None:
    asked = Scenario.load("examples/chat-fleet.toml")
    asked = asked.replace(targets=asked.targets.model_copy(update={"ttft": 0.1}))
    first = predict(asked, 6).plot().axes[0]
    assert lines(first)["target"][0] == [0.1, 0.1]
    with pytest.raises(FluidgateError, match="more arrives than 20 engines can serve, so that times have no end"):
        predict(TWO, 20).plot()


def test_a_heat_map_without_any_plan_is_white() -> None:
    classes = tuple(each.replace(arrival_rate=1e3, patience_rate=0.0) for each in TWO.classes)
    found = heat_map(TWO.replace(classes=classes), "gpu.batch_size", [4, 8], "gpu.iteration.beta", [6e-5, 1e-4])
    assert np.isnan(found.objective).all()
    assert found.plot().axes[0].get_xlabel() == "gpu.batch_size"


def test_what_policies_earn_stands_below_what_none_exceeds() -> None:
    ran = (simulated("low", value(250.0, 5.0)), simulated("high", value(280.0, 5.0)), simulated("none", value(0.0)))
    (axes,) = MeasuredBound(BOUND, ran).plot().axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["fluid optimum R*", "no policy earns more", "high", "low"]
    places = [container[0].get_xdata()[0] for container in axes.containers]  # type: ignore[index]
    assert places == [297.7, 291.0, 280.0, 250.0]
    (shade,) = axes.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == pytest.approx((291.0, 297.7))  # type: ignore[attr-defined]
    assert len(BOUND.plot().axes[0].get_yticklabels()) == 2


@pytest.mark.parametrize(("name", "batches"), [("a100-40gb/qwen-4b", 1), ("h100/llama-3.1-8b", 4)])
def test_a_profile_is_drawn_over_the_chunk_for_as_many_batches_as_it_tells_apart(name: str, batches: int) -> None:
    (axes,) = find_profile(name).plot().axes
    assert len(axes.get_lines()) == 2 * batches


def test_a_picture_goes_to_a_path_and_nowhere_else(tmp_path: Path) -> None:
    TWO.plot(tmp_path / "scenario.svg")
    assert (tmp_path / "scenario.svg").stat().st_size > 1000
    with pytest.raises(TypeError, match="path: must be a text or a path, but is 3"):
        TWO.plot(3)  # type: ignore[arg-type]
