"""Pictures: a plan, a simulated path over the fluid one, a comparison, a workload's laws."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.fluid import fluid_trajectory
from fluidgate.model import Array
from fluidgate.planning import Plan
from fluidgate.reports import looks
from fluidgate.reports.style import style as style
from fluidgate.reports.tables import completions
from fluidgate.shown import several
from fluidgate.simulation import Comparison, SimulationResult
from fluidgate.simulation.iteration.plan_path import PlanPath
from fluidgate.simulation.iteration.results import RequestResult
from fluidgate.trajectory import Trajectory
from fluidgate.workloads import Workload, quantiles
from fluidgate.workloads.measured_hits import Curves, MeasuredHits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

PANELS = (
    ("prefill", "in prefill, x"),
    ("mixed_decode", "decoding on mixed GPUs, y_m"),
    ("solo_decode", "decoding on solo GPUs, y_s"),
    ("prefill_queue", "waiting for prefill, q_p"),
    ("decode_queue", "waiting for decode, q_d"),
)
FLUID_OF = {
    "gate-and-route": "gate-and-route",
    "sli-aware": "sli-aware",
}
"""The fluid path to lay under a policy's simulated one."""


def picture(**options: Any) -> Figure:
    """An empty figure, which a notebook shows by itself."""
    from fluidgate.reports.picture import Picture

    return Picture(**options)


def save(figure: Figure, path: str | Path) -> None:
    """Write a picture whole or not at all; the suffix says the kind.

    Raises:
        FluidgateError: the file can't be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FluidgateError(f"{path}: can't be written (no such folder); name another file")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = Path(folder) / path.name
            with style():
                figure.savefig(draft, dpi=150, bbox_inches="tight")
            draft.replace(path)
    except (OSError, ValueError) as error:
        raise FluidgateError(f"{path}: can't be written ({error}); name another file") from error


def plain_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers, its small ones without."""
    from matplotlib.ticker import NullFormatter

    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def plan_figure(plan: Plan, measured: MeasuredHits | None = None) -> Figure:
    """Where the slots go: occupancies by class, and the served share of each class; below, what is found in memory."""
    with style():
        rows = 1 if measured is None else 2
        figure = picture(figsize=(9, 3.2 * rows), layout="constrained")
        grid = figure.add_gridspec(rows, 2, width_ratios=[3, 2])
        slots, served = (figure.add_subplot(grid[0, k]) for k in range(2))
        if measured is not None:
            _memory(figure.add_subplot(grid[1, :]), measured, measured.found.memory)
        left = np.zeros(3)
        stages = (plan.prefill, plan.mixed_decode, plan.solo_decode)
        for k, name in enumerate(plan.scenario.class_names):
            width = np.array([stage[k] for stage in stages])
            slots.barh(["prefill", "mixed decode", "solo decode"], width, left=left, label=name)
            left += width
        slots.invert_yaxis()
        slots.set_xlabel("slots per GPU")
        best = f"R* = {plan.revenue_rate:.2f}" if plan.scenario.priced else f"{plan.revenue_rate:.0f} tokens"
        slots.set_title(f"{plan.scenario.name}: {best} /s per GPU", loc="left")
        _legend(slots, len(plan.scenario.classes))
        names = plan.scenario.class_names
        served.barh(names, 100 * plan.served_fraction, color=[f"C{k % 10}" for k in range(len(names))])
        served.invert_yaxis()
        served.set_xlim(0, 100)
        served.set_xlabel("served, % of arrivals")
        return figure


def draw_plan(plan: Plan, path: str | Path, measured: MeasuredHits | None = None) -> None:
    """The same as a file."""
    save(plan_figure(plan, measured), path)


def memory_figure(curves: Curves, kv_tokens: int | None) -> Figure:
    """What is found of the prompts of traces against the memory of a GPU; `kv_tokens` that the GPU has."""
    with style():
        figure = picture(figsize=(9, 3.2), layout="constrained")
        _memory(figure.subplots(), curves, math.inf, kv_tokens)
        return figure


def draw_memory(curves: Curves, kv_tokens: int | None, path: str | Path) -> None:
    """The same as a file."""
    save(memory_figure(curves, kv_tokens), path)


def _memory(axes: Axes, curves: Curves, left: float, kv_tokens: int | None = None) -> None:
    """The hit rate against the memory that prefixes have on a GPU, of which the plan leaves `left`."""
    largest = max(curves.together.largest, curves.spread.largest, curves.together.block)
    least = largest / 1000 if kv_tokens is None else min(largest / 1000, kv_tokens / 10)
    most = max(2.0 * largest, 1.2 * kv_tokens if kv_tokens is not None else 0, 1.2 * left if left < math.inf else 0)
    memory = np.geomspace(least, most, 400)
    ways = {"each session on one GPU": curves.together}
    if curves.gpus > 1:
        ways |= {f"spread over {curves.gpus} GPUs": curves.spread}
    for name, curve in ways.items():
        axes.plot(
            memory, [100 * curve.rate(each) for each in memory], lw=1.6, label=name, **looks.line(len(axes.lines))
        )
    axes.axhline(100 * curves.together.endless, color="0.5", lw=0.8, ls=":", label="endless")
    for tokens, name in ((left, "left by the plan"), (kv_tokens, "KV memory of a GPU")):
        if tokens is not None and tokens < math.inf:
            axes.axvline(tokens, color="0.3", lw=0.8, ls="--", label=name)
    axes.set_xscale("log")
    axes.set_xlim(memory[0], memory[-1])
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:,.0f}")
    axes.set_xlabel("memory that prefixes have on a GPU, tokens")
    axes.set_title("prompt tokens found, %", loc="left")
    axes.legend(loc="lower right" if curves.together.endless < 0.6 else "center left", fontsize=8)


def simulation_figure(result: SimulationResult) -> Figure:
    """The simulated path, the fluid path where the policy has one, and the plan's targets, by class."""
    if result.trajectory is None:
        raise FluidgateError("plot: the simulation recorded no path; pass samples=401 to simulate")
    simulated, plan = result.trajectory, result.plan
    plans = result.plan_path if isinstance(result, RequestResult) else None
    names = [c.name for c in result.classes]
    fluid = None
    if plan is not None and result.policy in FLUID_OF and result.run.users is None:
        kind: Any = FLUID_OF[result.policy]
        fluid = fluid_trajectory(plan.scenario, plan, kind, horizon=result.run.horizon, points=len(simulated.time))
    with style():
        figure = picture(figsize=(11, 6), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True).ravel()
        for axes, (stage, title) in zip(panels, PANELS, strict=False):
            _path(axes, names, stage, simulated, fluid, plan, plans)
            axes.set_title(title, loc="left")
            axes.set_ylim(bottom=0)
        panels[2].xaxis.set_tick_params(labelbottom=True)
        for axes in panels[2:]:
            axes.set_xlabel("time, s")
        _key(panels[5], panels[0])
        figure.suptitle(
            f"{result.policy} on {result.scenario}, {several(result.run.gpus, 'GPU')}, "
            f"mean of {several(result.run.replications, 'replication')}, per GPU",
            x=0.01,
            ha="left",
        )
        return figure


def draw_simulation(result: SimulationResult, path: str | Path) -> None:
    """The same as a file."""
    save(simulation_figure(result), path)


def trajectory_figure(path: Trajectory) -> Figure:
    """The requests at each stage over time, a line a class."""
    with style():
        figure = picture(figsize=(11, 6), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True).ravel()
        for axes, (stage, title) in zip(panels, PANELS, strict=False):
            for k, name in enumerate(path.class_names):
                axes.plot(path.time, getattr(path, stage)[:, k], lw=1.2, label=name, **looks.line(k))
            axes.set_title(f"{title}, per GPU", loc="left")
            axes.set_ylim(bottom=0)
        panels[2].xaxis.set_tick_params(labelbottom=True)
        for axes in panels[2:]:
            axes.set_xlabel("time, s")
        _key(panels[5], panels[0])
        return figure


def _key(place: Axes, of: Axes) -> None:
    """The legend of one panel in the place of another."""
    place.axis("off")
    handles, labels = of.get_legend_handles_labels()
    place.legend(handles, labels, loc="center left", fontsize=8)


def _path(
    axes: Axes,
    names: list[str],
    stage: str,
    simulated: Trajectory,
    fluid: Trajectory | None,
    plan: Plan | None,
    plans: PlanPath | None,
) -> None:
    for k, name in enumerate(names):
        color = f"C{k % 10}"
        axes.plot(
            simulated.time,
            getattr(simulated, stage)[:, k],
            color=color,
            lw=1,
            alpha=0.7,
            label=f"{name}, simulated",
        )
        if fluid is not None:
            axes.plot(fluid.time, getattr(fluid, stage)[:, k], color="black", lw=1, ls="--",
                      label="fluid path" if k == 0 else None)  # fmt: skip
        if plan is not None:
            value = partial(held_at, stage, cls=k)
            draw_target(axes, plan, plans, value, color=color, label=f"{name}, plan")


def held_at(stage: str, held: Plan | Trajectory, cls: int) -> Array:
    """Requests of a class at a stage, over time if that is there."""
    return np.asarray(getattr(held, stage)[..., cls])


def draw_target(
    axes: Axes, plan: Plan, plans: PlanPath | None, value: Callable[[Plan | Trajectory], Any], **look: Any
) -> None:
    """Where a plan wants a number: a level, or steps where the plan follows the load."""
    look = {"lw": 1, "ls": ":", **look}
    if plans is None:
        axes.axhline(value(plan), **look)
        return
    end = axes.get_xlim()
    time = np.concatenate([[0.0], plans.time])
    axes.step(time, np.concatenate([[value(plan)], value(plans.targets)]), where="pre", **look)
    axes.set_xlim(end)  # looks go on after the last arrival


def comparison_figure(result: Comparison) -> Figure:
    """Share of R* that each policy earns, the best on top; what it completes where there is no such share."""
    if all(each.optimality_ratio.mean is None for each in result.policies):
        return _completions_figure(result)
    ranked = sorted(result.policies, key=lambda r: r.revenue_rate.mean or 0.0)
    means = np.array([np.nan if r.optimality_ratio.mean is None else r.optimality_ratio.mean for r in ranked])
    ends = [r.optimality_ratio.ci95 or (m, m) for r, m in zip(ranked, means, strict=True)]
    half = np.array([(high - low) / 2 for low, high in ends])
    with style():
        figure = picture(figsize=(7.5, 0.9 + 0.36 * len(ranked)), layout="constrained")
        axes = figure.subplots()
        axes.errorbar(100 * means, range(len(ranked)), xerr=100 * half, fmt="o", ms=5, capsize=3, color="C0")
        axes.set_yticks(range(len(ranked)), [r.policy for r in ranked])
        axes.set_ylim(-0.6, len(ranked) - 0.4)
        axes.axvline(100, color="black", lw=1, ls=":")
        axes.set_xlabel("revenue, % of the fluid optimum R* (bars: 95 % confidence)")
        axes.set_title(f"{result.scenario}, {several(result.run.gpus, 'GPU')}", loc="left")
        return figure


def draw_comparison(result: Comparison, path: str | Path) -> None:
    """The same as a file."""
    save(comparison_figure(result), path)


def _completions_figure(result: Comparison) -> Figure:
    ranked = sorted(result.policies, key=completions)
    with style():
        figure = picture(figsize=(7.5, 0.9 + 0.36 * len(ranked)), layout="constrained")
        axes = figure.subplots()
        axes.barh([r.policy for r in ranked], [completions(r) for r in ranked], color="C0")
        axes.set_xlabel("requests completed per GPU and second")
        axes.set_title(f"{result.scenario}, {several(result.run.gpus, 'GPU')}", loc="left")
        return figure


def quantile_figure(workload: Workload) -> Figure:
    """Lengths and gaps of each class against the exponential law of the same mean (QQ)."""
    samples = ("prompt_tokens", "output_tokens", "gaps")
    labels = ("prompt, tokens", "output, tokens", "gap between arrivals, s")
    with style():
        figure = picture(figsize=(9, 2.8 * len(workload.classes)), layout="constrained")
        grid = figure.subplots(len(workload.classes), 3, squeeze=False)
        for row, found in zip(grid, workload.classes, strict=True):
            for axes, sample, label in zip(row, samples, labels, strict=True):
                theory, measured = quantiles(getattr(found, sample))
                top = max(theory.max(initial=0.0), 1e-9)
                axes.plot(theory, measured, ".", ms=3)
                axes.plot([0, top], [0, top], color="black", lw=1, ls=":")
                axes.set_title(f"{found.name}: {label}", loc="left")
                axes.set_xlabel("exponential quantile")
                axes.set_ylabel("measured quantile")
        return figure


def draw_quantiles(workload: Workload, path: str | Path) -> None:
    """The same as a file."""
    save(quantile_figure(workload), path)


def _legend(axes: Axes, classes: int) -> None:
    if classes <= 12:
        axes.legend(loc="best", fontsize=8)
