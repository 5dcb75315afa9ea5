"""How many GPUs, as tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from fluidgate.reports.tables import number, table
from fluidgate.sizing import Answer, Sizing, Target
from fluidgate.sizing.trial import Reading

if TYPE_CHECKING:
    from matplotlib.figure import Figure


WIDE = 20.0
"""Largest over least value from which on an axis is logarithmic."""


def sizing_tables(found: Sizing) -> Iterator[Table]:
    """The answers, then the best of them in full, then what was not simulated."""
    yield _answers(found)
    if found.best is not None:
        yield _best(found, found.best)
        yield _targets(found.best)
        yield _prices(found, found.best)
    failed = [each for each in found.answers if each.reason]
    if failed:
        reasons = table("What is open", "choice", "", text=2)
        for each in failed:
            reasons.add_row(each.choice.name, str(each.reason))
        yield reasons
    if found.pruned:
        left_out = table("Not simulated: what it needs at least costs more than the best answer", "choice")
        for choice in found.pruned:
            left_out.add_row(choice.name)
        yield left_out


def _answers(found: Sizing) -> Table:
    asked = ", ".join(_asked(each) for each in found.targets)
    made = table(
        f"GPUs for '{found.scenario}': {asked}",
        "profile", "batch", "chunk", "policy", "status", "GPUs", "at least", _per(found, "an hour"),
        _per(found, "a million tokens"), "binds", "one less breaks",
    )  # fmt: skip
    for each in found.answers:
        choice, priced = each.choice, each.choice.gpu_hour is not None
        made.add_row(
            choice.profile,
            str(choice.batch_size),
            str(choice.chunk_size),
            choice.policy,
            each.status,
            "-" if each.gpus is None else str(each.gpus),
            str((each.bound_engines + each.spare) * choice.gpus_per_engine),
            number(each.bill.per_hour) if each.bill and priced else "-",
            number(each.bill.per_million) if each.bill and priced else "-",
            "-" if each.binding is None else held(each.binding),
            one_less(each),
        )
    return made


def _per(found: Sizing, what: str) -> str:
    return f"{found.currency} {what}"


def _asked(target: Target) -> str:
    return f"{target.name} {'>=' if target.is_share else '<='} {_shown(target, target.limit)}"


def _shown(target: Target, value: float) -> str:
    """A time in s or ms, a share in percent."""
    if target.is_share:
        return f"{100 * value:.4g} %"
    return f"{1000 * value:.4g} ms" if target.limit < 1.0 else f"{value:.4g} s"


def held(reading: Reading) -> str:
    target = reading.target
    return f"{target.name} {_shown(target, reading.value)} of {_shown(target, target.limit)}"


def one_less(each: Answer) -> str:
    less = each.one_less
    if less is None:
        return "-"
    if less.broken is None:
        return "undecided"
    if less.value is None:
        return less.broken
    target = next(reading.target for reading in each.proof.readings if reading.target.name == less.broken)  # type: ignore[union-attr]
    return f"{less.broken} {_shown(target, less.value)}"


def _best(found: Sizing, best: Answer) -> Table:
    made = table(f"The cheapest: {best.choice.name}", "", "")
    engines = f"{best.engines} engines" if best.choice.gpus_per_engine == 1 else (
        f"{best.engines} engines of {best.choice.gpus_per_engine} GPUs"
    )  # fmt: skip
    made.add_row("engines", engines + (f", {best.spare} of them spare" if best.spare else ""))
    made.add_row("by the program at least", f"{best.bound_engines + best.spare} engines")
    whole = best.to_dict()
    for key, words in (("utilisation", "load, of what they can do"), ("busy", "of the time busy"),
                       ("kv_share", "of the KV memory in use"), ("goodput", "goodput")):  # fmt: skip
        if whole[key] is not None:
            made.add_row(words, f"{100 * whole[key]:.1f} %")
    dearer = next((each for each in found.answers[1:] if each.status == "met"), None)
    if dearer is not None and dearer.bill is not None and best.bill is not None:
        more = dearer.bill.per_hour - best.bill.per_hour
        unit = f"{found.currency} {number(more)} an hour" if best.choice.gpu_hour else f"{number(more)} GPUs"
        made.add_row(
            "the next choice", f"{dearer.choice.name}, {unit} more" if more > 0 else f"{dearer.choice.name}, as dear"
        )
    return made


def _targets(best: Answer) -> Table:
    made = table("Targets, with 95 % confidence", "target", "limit", "value", "from", "to", "")
    parts = [("", best.whole)]
    if best.spare:
        parts.append((f", {best.spare} gone", best.proof))
    for words, trial in parts:
        if trial is None:
            continue
        for reading in trial.readings:
            target = reading.target
            low, high = reading.ci95 or (None, None)
            made.add_row(
                target.name + words,
                _shown(target, target.limit),
                _shown(target, reading.value),
                "-" if low is None else _shown(target, low),
                "-" if high is None else _shown(target, high),
                reading.status,
            )
    return made


def _prices(found: Sizing, best: Answer) -> Table:
    made = table("What a million tokens cost", "class", "prompt", "output")
    if best.bill is not None and best.choice.gpu_hour is not None:
        for each in best.bill.classes:
            made.add_row(
                each.name, f"{found.currency} {number(each.prompt)}", f"{found.currency} {number(each.output)}"
            )
    return made


def draw_sizing(found: Sizing, path: str | Path) -> None:
    """Cost against the binding percentile, one line a choice, the target marked.

    Raises:
        FluidgateError: the picture cannot be written.
    """
    from fluidgate.reports.plots import save

    save(sizing_figure(found), path)


def sizing_figure(found: Sizing) -> Figure:
    """A panel a target: its value at each number of engines that was tried, against what they cost."""
    from matplotlib.figure import Figure as Canvas

    from fluidgate.reports.plots import plain_ticks, style

    with style():
        shown = [each for each in found.targets if not each.implied]
        figure = Canvas(figsize=(5.2 * len(shown), 4.2), layout="constrained")
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for panel, target in zip(axes, shown, strict=True):
            place = found.targets.index(target)
            unit = 100.0 if target.is_share else 1.0
            for each in found.answers:
                points = [(each.choice.hourly(t.engines + each.spare), t.readings[place]) for t in each.trials]
                if not points:
                    continue
                cost = [cost for cost, _ in points]
                values = [unit * reading.value for _, reading in points]
                lows = [unit * (r.value - (r.ci95[0] if r.ci95 else r.value)) for _, r in points]
                highs = [unit * ((r.ci95[1] if r.ci95 else r.value) - r.value) for _, r in points]
                spread = [[max(low, 0.0) for low in lows], [max(high, 0.0) for high in highs]]
                panel.errorbar(cost, values, spread, marker="o", markersize=4, capsize=2, label=each.choice.name)
            panel.axhline(unit * target.limit, color="black", linestyle="--", linewidth=1)
            panel.set_title(_asked(target))
            panel.set_xlabel(_per(found, "an hour") if found.priced else "GPUs")
            panel.set_ylabel(f"{target.name}, {'%' if target.is_share else 's'}")
            low, high = panel.get_ylim()
            if not target.is_share and high > WIDE * max(low, target.limit / WIDE):
                panel.set_yscale("log")
                plain_ticks(panel.yaxis)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(2, max(len(labels), 1)), fontsize="small")
    return figure
