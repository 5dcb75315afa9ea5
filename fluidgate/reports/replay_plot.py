"""The picture of a replay: occupancies and queues over time against the plan, and latencies by class and policy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.model import Array
from fluidgate.planning import Plan
from fluidgate.reports import looks
from fluidgate.reports.plots import draw_target, held_at, picture, plain_ticks, save, style
from fluidgate.shown import several
from fluidgate.simulation import Comparison
from fluidgate.simulation.iteration.measure import Distribution, bin_edges
from fluidgate.simulation.iteration.replay_options import ReplayOptions
from fluidgate.simulation.iteration.results import RequestResult
from fluidgate.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

STAGES = (
    ("prefill_queue", "waiting for prefill"),
    ("prefill", "in prefill"),
    ("decode", "decoding"),
    ("decode_queue", "waiting for decode"),
)
LATENCIES = (("ttft", "TTFT, s", 1.0), ("tpot", "TPOT, ms", 1000.0), ("latency", "latency, s", 1.0))
LEAST_HELD = 1e-9
LEAST_SHARE = 1e-3
"""Of the requests, down to which a distribution is drawn."""


def replay_figure(result: Comparison) -> Figure:
    """A column of paths for each policy, by class and per GPU, over the plan's targets; below, how many requests took
    longer. Where a plan follows the load, its targets are steps, and a row shows the GPUs that read prompts.

    Raises:
        FluidgateError: the replay recorded no paths, or the file can't be written.
    """
    found = [each for each in result.policies if isinstance(each, RequestResult)]
    if any(each.trajectory is None for each in found):
        raise FluidgateError("plot: the replay recorded no path; pass samples=601 to replay")
    stages = [stage for stage in STAGES if any(_anyone(each, stage[0]) for each in found)]
    rows = len(stages) + any(each.plan_path is not None for each in found)
    paths, latencies = 1.5 * rows, 2.1 * len(found[0].classes)
    with style():
        figure = picture(figsize=(max(9.5, 3.6 * len(found)), paths + latencies + 0.9), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[paths + 0.6, latencies + 0.3])
        _draw_paths(parts[0], found, stages, rows)
        _draw_latencies(parts[1], found)
        figure.suptitle(_title(result), x=0.01, ha="left")
        return figure


def draw_replay(result: Comparison, path: str | Path) -> None:
    """The same as a file."""
    save(replay_figure(result), path)


def _anyone(result: RequestResult, stage: str) -> bool:
    """Whether anybody is at a stage at any time, or the plan wants somebody there: a row of zeros says nothing."""
    held = [each for each in (result.trajectory, result.plan) if each is not None]
    return any(bool(np.any(held_in(stage, each, k) > LEAST_HELD)) for each in held for k in range(len(result.classes)))


def _title(result: Comparison) -> str:
    run = result.run
    traces = f"{' + '.join(run.traces)}, rates times {run.rate_scale:.4g}, " if isinstance(run, ReplayOptions) else ""
    return f"{traces}{several(run.gpus, 'GPU')} of '{result.scenario}'"


def _draw_paths(
    figure: SubFigure, found: Sequence[RequestResult], stages: Sequence[tuple[str, str]], rows: int
) -> None:
    """A row a stage, and one of the mixed group where a plan follows the load."""
    grid = figure.subplots(rows, len(found), sharex=True, sharey="row", squeeze=False)
    for column, result in enumerate(found):
        for row, (stage, label) in enumerate(stages):
            axes = grid[row, column]
            _draw_path(axes, result, stage)
            if column == 0:
                axes.set_ylabel(f"{label},\nper GPU")
        if rows > len(stages):
            _draw_mixed_group(grid[-1, column], result)
        grid[0, column].set_title(result.policy, loc="left")
        grid[-1, column].set_xlabel("time, s")
    keys = dict(zip(*reversed(grid[0, 0].get_legend_handles_labels()), strict=True))
    if rows > len(stages):
        grid[-1, 0].set_ylabel("mixed group,\n% of the GPUs")
        for axes in grid[-1]:
            handles, labels = axes.get_legend_handles_labels()
            keys |= {f"mixed group: {label}": handle for handle, label in zip(handles, labels, strict=True)}
    for axes in grid[:, 0]:  # once all columns are drawn, as a row shares its scale
        axes.set_ylim(bottom=0)
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=max(len(keys), 1), fontsize=8)


def _draw_path(axes: Axes, result: RequestResult, stage: str) -> None:
    path, plan = result.trajectory, result.plan
    assert path is not None
    for k, each in enumerate(result.classes):
        axes.plot(path.time, held_in(stage, path, k), color=f"C{k % 10}", lw=0.9, label=each.name)
        if plan is not None:
            value = partial(held_in, stage, cls=k)
            draw_target(axes, plan, result.plan_path, value, color=f"C{k % 10}", label=f"{each.name}, plan")


def held_in(stage: str, held: Plan | Trajectory, cls: int) -> Array:
    """Requests of a class in a row's stage, over time if that is there."""
    if stage == "decode":
        return held_at("mixed_decode", held, cls) + held_at("solo_decode", held, cls)
    return held_at(stage, held, cls)


def _draw_mixed_group(axes: Axes, result: RequestResult) -> None:
    path, plan, plans = result.trajectory, result.plan, result.plan_path
    assert path is not None
    axes.plot(path.time, 100 * path.prefill.sum(axis=1), color="0.55", lw=0.9, label="in prefill")
    if plan is not None:
        draw_target(axes, plan, plans, percent_mixed, color="black", label="plan")
    if plans is not None and (plans.mixed_gpus < result.run.gpus).any():
        there, shown = 100 * plans.mixed_gpus / result.run.gpus, plans.time <= path.time[-1]
        axes.step(plans.time[shown], there[shown], where="pre", color=looks.COLOURS[2], lw=1.6, label="in the group")


def percent_mixed(held: Plan | Trajectory) -> Array:
    """GPUs in prefill, % of all."""
    return np.asarray(100 * held.prefill.sum(axis=-1))


def _draw_latencies(figure: SubFigure, found: Sequence[RequestResult]) -> None:
    """The share of the requests that took longer, on a logarithmic scale."""
    classes = found[0].classes
    grid = figure.subplots(len(classes), len(LATENCIES), sharex="col", sharey=True, squeeze=False)
    for row, each in enumerate(classes):
        for column, (quantity, label, unit) in enumerate(LATENCIES):
            axes = grid[row, column]
            for k, result in enumerate(found):
                time, longer = longer_than(getattr(result.classes[row], quantity).distribution)
                # Looks of policies begin behind those of the classes above.
                axes.plot(unit * time, 100 * longer, lw=1.6, label=result.policy, **looks.line(k + len(classes)))
            if not any(len(line.get_xdata()) for line in axes.get_lines()):
                axes.text(0.5, 0.5, "nothing observed", transform=axes.transAxes, ha="center", color="0.4")
            axes.set_yscale("log")
            axes.set_ylim(100 * LEAST_SHARE, 120)
            plain_ticks(axes.yaxis)
            if quantity != "tpot":  # whose spread is less than a decade
                axes.set_xscale("log")
                plain_ticks(axes.xaxis)
            if row == len(classes) - 1:
                axes.set_xlabel(label)
        grid[row, 0].set_ylabel(f"{each.name}: took longer,\n% of requests")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)


def longer_than(distribution: Distribution) -> tuple[Array, Array]:
    """Times, s, and the share of the observations above each; empty where nothing was observed."""
    seen = np.flatnonzero(distribution.counts)
    if len(seen) == 0:
        return np.zeros(0), np.zeros(0)
    bins = np.arange(seen[0], seen[-1] + 1)
    above = distribution.observations - np.cumsum(distribution.counts)[bins]
    time = np.where(np.isinf(bin_edges()[bins + 1]), bin_edges()[bins], bin_edges()[bins + 1])
    time = np.concatenate([[max(bin_edges()[bins[0]], 1e-6)], time])
    share = np.concatenate([[1.0], above / distribution.observations])
    shown = share >= LEAST_SHARE
    return time[shown], share[shown]
