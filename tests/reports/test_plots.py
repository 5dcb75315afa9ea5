"""Pictures of plans, paths, comparisons and quantiles: what is drawn where, and that files are whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fluidgate.errors import FluidgateError
from fluidgate.fluid import fluid_trajectory
from fluidgate.planning import plan
from fluidgate.planning.cached import CachedPlan
from fluidgate.reports.plots import (
    PANELS,
    draw_comparison,
    draw_memory,
    draw_plan,
    draw_quantiles,
    draw_simulation,
    save,
)
from fluidgate.simulation import Comparison
from fluidgate.workloads import quantiles, workload
from fluidgate.workloads.hit_curve import HitCurve
from fluidgate.workloads.measured_hits import MeasuredHits
from tests.reports.results import RUN, class_result, path, served, simulated, value
from tests.reports.seen import lines, series
from tests.reports.test_requests import FOLLOWING
from tests.scenarios import two_class_scenario

PLAN = plan(two_class_scenario())
NAMES = PLAN.scenario.class_names
BOTH = tuple(class_result(name) for name in NAMES)


def test_a_plan_is_drawn_as_the_slots_of_each_class(drawn) -> None:
    slots, served_share = drawn(draw_plan, PLAN).axes
    stages = (PLAN.prefill, PLAN.mixed_decode, PLAN.solo_decode)
    bars = [bar.get_width() for bar in slots.patches]
    assert bars == pytest.approx([stage[k] for k in range(2) for stage in stages])
    starts = [bar.get_x() for bar in slots.patches]
    assert starts == pytest.approx([0.0, 0.0, 0.0, *(stage[0] for stage in stages)])
    assert [text.get_text() for text in slots.get_legend().get_texts()] == NAMES
    assert slots.get_title(loc="left") == "two-class: R* = 297.70 /s per GPU"
    assert [bar.get_width() for bar in served_share.patches] == pytest.approx(100 * PLAN.served_fraction)


def test_a_path_is_drawn_over_the_fluid_one_and_the_plan(drawn) -> None:
    result = simulated(plan=PLAN, trajectory=path(), classes=BOTH, run=replace(RUN, horizon=2.0))
    *panels, _ = drawn(draw_simulation, result).axes
    fluid = fluid_trajectory(PLAN.scenario, PLAN, horizon=2.0, points=3)
    for axes, (stage, title) in zip(panels, PANELS, strict=True):
        assert axes.get_title(loc="left") == title
        seen = lines(axes)
        for k, name in enumerate(NAMES):
            assert seen[f"{name}, simulated"] == ([0.0, 1.0, 2.0], getattr(path(), stage)[:, k].tolist())
            assert seen[f"{name}, plan"][1] == [getattr(PLAN, stage)[k]] * 2
        assert seen["fluid path"] == (fluid.time.tolist(), getattr(fluid, stage)[:, 0].tolist())


def test_a_policy_without_a_fluid_path_is_drawn_alone(drawn) -> None:
    result = simulated("fi-wsp", plan=None, trajectory=path(), classes=BOTH)
    assert set(lines(drawn(draw_simulation, result).axes[0])) == {f"{name}, simulated" for name in NAMES}


def test_the_targets_of_a_plan_that_follows_the_load_are_steps(drawn) -> None:
    result = served("gate-and-route+replan", plan=PLAN, trajectory=path(), plan_path=FOLLOWING)
    axes = drawn(draw_simulation, result).axes[0]
    time, height = lines(axes)["chat, plan"]
    assert time == [0.0, 0.0, 1.0, 2.0]
    assert height == [PLAN.prefill[0], *FOLLOWING.targets.prefill[:, 0]]


def test_a_simulation_without_a_path_says_how_to_get_one(drawn) -> None:
    with pytest.raises(FluidgateError, match="recorded no path; pass samples=401"):
        drawn(draw_simulation, simulated())


def test_a_comparison_has_the_best_policy_on_top(drawn) -> None:
    results = (
        simulated("high", value(150.0), optimality_ratio=value(0.9, 0.02)),
        simulated("low", value(100.0), optimality_ratio=value(0.6)),
    )
    (axes,) = drawn(draw_comparison, Comparison("small", RUN, results)).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["low", "high"]
    points, *_ = axes.containers[0].lines
    assert points.get_xdata() == pytest.approx([60.0, 90.0])
    low, high = (segment[:, 0] for segment in axes.containers[0].lines[2][0].get_segments())
    assert low == pytest.approx([60.0, 60.0]), "one replication has no interval"
    assert high == pytest.approx([88.0, 92.0])


def test_quantiles_are_drawn_against_the_exponential_ones(drawn, tmp_path: Path) -> None:
    file = tmp_path / "day_chat.csv"
    file.write_text("arrival_time,prompt_tokens,output_tokens\n0,100,10\n1,200,20\n4,300,30\n")
    made = workload([file], gpus=2, profile="a100-40gb/qwen-8b")
    panels = drawn(draw_quantiles, made).axes
    assert [axes.get_title(loc="left").split(": ")[1] for axes in panels] == [
        "prompt, tokens", "output, tokens", "gap between arrivals, s"
    ]  # fmt: skip
    theory, measured = quantiles(made.classes[0].prompt_tokens)
    dots, diagonal = series(panels[0])
    assert dots == (theory.tolist(), measured.tolist())
    assert diagonal[0] == diagonal[1]


@pytest.mark.parametrize(("suffix", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_suffix_says_the_kind_and_no_draft_is_left(tmp_path: Path, suffix: str, begins: bytes) -> None:
    path = tmp_path / f"p.{suffix}"
    save(Figure(), path)
    assert path.read_bytes().startswith(begins)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["none/p.png", "p.what"])
def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(FluidgateError, match=r"can't be written .*; name another file") as refused:
        save(Figure(), tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_picture_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "p.png"
    old.write_bytes(b"old")

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(FluidgateError, match="No space left on device"):
        save(Figure(), old)
    assert old.read_bytes() == b"old"


def test_twelve_classes_have_a_legend_and_more_have_none(drawn) -> None:
    def of(count: int) -> Figure:
        classes = tuple(
            PLAN.scenario.classes[0].model_copy(update={"name": f"c{k}", "arrival_rate": 1 / count})
            for k in range(count)
        )
        return drawn(draw_plan, plan(PLAN.scenario.replace(classes=classes)))

    assert len(of(12).axes[0].get_legend().get_texts()) == 12
    assert of(13).axes[0].get_legend() is None


def measured(gpus: int) -> MeasuredHits:
    """Two prompts that are asked for again, a block and three blocks of memory later."""
    start, end = np.array([0, 2]), np.array([1, 3])
    curve = HitCurve(16, np.array([64, 64]), start, end, np.array([0, 1], np.int32))
    spread = HitCurve(16, np.array([64, 64]), start[:1], end[:1], np.array([0], np.int32))
    found = CachedPlan(PLAN, 40.0, 0.0, converged=True)
    return MeasuredHits(gpus, curve, spread if gpus > 1 else curve, found, (), ())


@pytest.mark.parametrize("gpus", [1, 3])
def test_what_is_found_is_drawn_against_the_memory(drawn, gpus: int) -> None:
    found = measured(gpus)
    *_, below = drawn(draw_plan, PLAN, measured=found).axes
    alone = drawn(draw_memory, found, kv_tokens=100).axes[0]
    for axes, mark in ((below, ("left by the plan", 40.0)), (alone, ("KV memory of a GPU", 100.0))):
        seen = lines(axes)
        assert seen[mark[0]][0] == [mark[1]] * 2
        memory, share = seen["each session on one GPU"]
        assert share == pytest.approx([100 * found.together.rate(each) for each in memory])
        assert share[-1] == pytest.approx(25.0) == seen["endless"][1][0]
        assert ("spread over 3 GPUs" in seen) == (gpus > 1)
