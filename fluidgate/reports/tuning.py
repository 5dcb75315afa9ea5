"""A tuning as tables, and its race as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from fluidgate.reports.plots import picture, plain_ticks, save, style
from fluidgate.reports.tables import number, table, with_interval
from fluidgate.shown import several
from fluidgate.tuning import Trial, Tuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGE_NAMES = ("default", "whole range", "closer", "closest")
MOST_ROWS = 8
"""Candidates that the table shows: those that came furthest."""


def tuning_tables(found: Tuning) -> Iterator[Table]:
    """What is kept and why, then the candidates that came furthest."""
    names = list(found.default)
    whole = table(
        f"{found.name} tuned to '{found.scenario}' on {found.gpus} GPU{'s' * (found.gpus > 1)}, per GPU",
        "", "default", "proposed", text=1,
    )  # fmt: skip
    for name in names:
        whole.add_row(name, number(found.default[name], 5), number(found.proposed[name], 5))
    before, after = found.objective_default, found.objective_proposed
    whole.add_row("objective, /s", with_interval(before, 6), with_interval(after, 6))
    if found.plan_objective > 0:
        unit = 100 / found.plan_objective
        whole.add_row("% of the plan's", with_interval(before, 5, unit), with_interval(after, 5, unit))
    whole.add_row("gain, /s", "", with_interval(found.gain, 4))
    yield whole
    verdict = table(f"Verdict ({found.replications} fresh replications of {found.horizon:g} s, 95 % confidence)", "")
    if found.proposed == found.default:
        verdict.add_row("nothing tried earns more than the default: it is kept")
    elif found.improves:
        verdict.add_row("the gain is beyond noise: the proposed parameters are kept")
    else:
        verdict.add_row("the gain is not beyond noise: the default is kept")
    yield verdict
    furthest = sorted(found.trials, key=lambda t: (-len(t.objective.values), -(t.difference.mean or 0.0)))
    race = table(
        f"The race: {len(furthest)} candidates that differ on this cluster, {found.events:,} events in all",
        *names, "tried in", "replications", "less the default, /s", text=0,
    )  # fmt: skip
    for trial in furthest[:MOST_ROWS]:
        race.add_row(
            *(number(trial.values[name], 5) for name in names),
            STAGE_NAMES[trial.stage],
            str(len(trial.objective.values)),
            "0" if trial.stage == 0 else with_interval(trial.difference, 4),
        )
    yield race


def draw_tuning(found: Tuning, path: str | Path) -> None:
    """Write `tuning_figure` to a file."""
    save(tuning_figure(found), path)


def tuning_figure(found: Tuning) -> Figure:
    """What each candidate of the race earned beyond the default, with 95 % confidence; a panel for each parameter.

    Large differences are drawn on a logarithmic axis.
    """
    names = list(found.default)
    with style():
        figure = picture(figsize=(1.5 + 5.0 * len(names), 3.6), layout="constrained")
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            _panel(axes, found, name)
        panels[0].set_yscale("symlog", linthresh=_detail(found))
        plain_ticks(panels[0].yaxis)
        panels[0].set_ylabel("objective less the default's, /s per GPU")
        panels[-1].legend(loc="best", fontsize=8)
        figure.suptitle(f"{found.name} on {found.scenario}, {several(found.gpus, 'GPU')}", x=0.01, ha="left")
    return figure


def _panel(axes: Axes, found: Tuning, name: str) -> None:
    axes.axhline(0.0, color="black", lw=1, ls=":")
    for stage in sorted({t.stage for t in found.trials if t.stage > 0}):
        trials = [t for t in found.trials if t.stage == stage]
        axes.errorbar(
            [t.values[name] for t in trials], [t.difference.mean or 0.0 for t in trials],
            yerr=[_half(t) for t in trials], fmt="o", ms=4, capsize=2, lw=1, color=f"C{stage - 1}",
            label=STAGE_NAMES[stage],
        )  # fmt: skip
    axes.plot([found.default[name]], [0.0], "s", color="black", ms=5, label="default")
    if found.gain.ci95 is not None and found.gain.mean is not None and found.proposed != found.default:
        axes.errorbar(
            [found.proposed[name]], [found.gain.mean], yerr=[(found.gain.ci95[1] - found.gain.ci95[0]) / 2],
            fmt="*", ms=11, capsize=4, color="C3", label="proposed, fresh seeds",
        )  # fmt: skip
    axes.set_xlabel(name)


def _detail(found: Tuning) -> float:
    """Differences up to this one are drawn to scale, larger ones on a logarithmic axis."""
    widths = [_half(t) for t in found.trials]
    return max(2.0 * abs(found.gain.mean or 0.0), 2.0 * max(widths), 1e-9)


def _half(trial: Trial) -> float:
    return 0.0 if trial.difference.ci95 is None else (trial.difference.ci95[1] - trial.difference.ci95[0]) / 2
