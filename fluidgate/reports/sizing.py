"""How many GPUs, as tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from fluidgate.reports.tables import number, table
from fluidgate.sizing import Answer, Choice, Sizing, Target
from fluidgate.sizing.answer import OneLess
from fluidgate.sizing.cost import Bill
from fluidgate.sizing.mix import Mix
from fluidgate.sizing.peak import Peak
from fluidgate.sizing.trial import Reading

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DAY = 86_400.0
WIDE = 20.0
"""Largest over least value from which on an axis is logarithmic."""


def sizing_tables(found: Sizing) -> Iterator[Table]:
    """The answers, then the best of them in full, then what was not simulated."""
    yield _answers(found)
    if found.best is not None:
        yield _best(found, found.best)
        if found.best.fleet:
            yield _fleet(found, found.best)
        yield _targets(found.best)
        if found.best.bill is not None and found.best.choice.priced:
            yield _prices(found, found.best.bill)
    failed = [each for each in found.answers if each.reason]
    if failed:
        reasons = table("What is open", "choice", "", text=2, names=1)
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
        choice, priced = each.choice, each.choice.priced
        made.add_row(
            choice.profile,
            _sizes(choice, "batch_size"),
            _sizes(choice, "chunk_size"),
            choice.policy,
            each.status,
            "-" if each.gpus is None else str(each.gpus),
            "-" if isinstance(choice, Mix) else str((each.bound_engines + each.spare) * choice.gpus_per_engine),
            number(each.bill.per_hour) if each.bill and priced else "-",
            number(each.bill.per_million) if each.bill and priced else "-",
            "-" if each.binding is None else held(each.binding),
            one_less(each),
        )
    return made


def _sizes(choice: Choice | Mix, key: str) -> str:
    each = choice.named if isinstance(choice, Mix) else (choice,)
    return " + ".join(dict.fromkeys(str(getattr(one, key)) for one in each))


def _per(found: Sizing, what: str) -> str:
    return f"{found.currency} {what}"


def _asked(target: Target) -> str:
    return f"{target.name} {'>=' if target.is_share else '<='} {target.shown(target.limit)}"


def engines_of(count: int) -> str:
    return f"{count} engine{'' if count == 1 else 's'}"


def held(reading: Reading) -> str:
    target = reading.target
    return f"{target.name} {target.shown(reading.value)} of {target.shown(target.limit)}"


def peak(found: Peak) -> str:
    """Its time, by the clock where the period is a day, and what it comes to."""
    target = found.target
    if found.period == DAY:
        when = f"{_clock(found.begins)}-{_clock(found.ends)}"
    else:
        when = f"{number(found.begins)}-{number(found.ends)} s of {number(found.period)} s"
    return f"{when}: {target.name} {target.shown(found.value)} at {number(found.rate)} requests/s"


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60.0)
    return f"{minutes // 60:02}:{minutes % 60:02}"


def one_less(each: Answer) -> str:
    return _broken(each, each.one_less)


def _broken(each: Answer, less: OneLess | None) -> str:
    if less is None:
        return "-"
    if less.broken is None:
        return "undecided"
    if less.value is None:
        return less.broken
    target = next(reading.target for reading in each.proof.readings if reading.target.name == less.broken)  # type: ignore[union-attr]
    return f"{less.broken} {target.shown(less.value)}"


def _best(found: Sizing, best: Answer) -> Table:
    made = table(f"The cheapest: {best.choice.name}", "", "")
    engines = engines_of(best.engines or 0) + (
        f" of {best.choice.gpus_per_engine} GPUs" if (best.choice.gpus_per_engine or 1) > 1 else ""
    )
    made.add_row("engines", engines + (f", {best.spare} of them spare" if best.spare else ""))
    if best.bound_hourly is None:
        made.add_row("by the program at least", engines_of(best.bound_engines + best.spare))
    else:
        made.add_row("by the program at least", _cost(found, best.bound_hourly))
    whole = best.to_dict()
    for key, words in (("utilisation", "load, of what they can do"), ("busy", "of the time busy"),
                       ("kv_share", "of the KV memory in use"), ("goodput", "goodput")):  # fmt: skip
        if whole[key] is not None:
            made.add_row(words, f"{100 * whole[key]:.1f} %")
    if best.peak is not None:
        made.add_row("the peak that binds", peak(best.peak))
    dearer = next((each for each in found.answers[1:] if each.status == "met"), None)
    if dearer is not None and dearer.bill is not None and best.bill is not None:
        more = dearer.bill.per_hour - best.bill.per_hour
        unit = _cost(found, more)
        made.add_row(
            "the next choice", f"{dearer.choice.name}, {unit} more" if more > 0 else f"{dearer.choice.name}, as dear"
        )
    return made


def _cost(found: Sizing, hourly: float) -> str:
    return f"{found.currency} {number(hourly)} an hour" if found.priced else f"{number(hourly)} GPUs"


def _fleet(found: Sizing, best: Answer) -> Table:
    """Each type of a mix, and what goes there."""
    classes = list(best.fleet[0].shares)
    made = table(
        "Who serves whom", "profile", "batch", "chunk", "engines", _per(found, "an hour"), *classes, "one less breaks"
    )
    for pool in best.fleet:
        made.add_row(
            pool.choice.profile,
            str(pool.choice.batch_size),
            str(pool.choice.chunk_size),
            str(pool.engines),
            number(pool.hourly) if pool.choice.priced else "-",
            *(f"{100 * pool.shares[name]:.1f} %" for name in classes),
            _broken(best, pool.one_less),
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
                target.shown(target.limit),
                target.shown(reading.value),
                "-" if low is None else target.shown(low),
                "-" if high is None else target.shown(high),
                reading.status,
            )
    return made


def _prices(found: Sizing, bill: Bill) -> Table:
    made = table("What a million tokens cost", "class", "prompt", "output")
    for each in bill.classes:
        made.add_row(each.name, f"{found.currency} {number(each.prompt)}", f"{found.currency} {number(each.output)}")
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
    from fluidgate.reports import looks
    from fluidgate.reports.plots import picture, plain_ticks, style

    with style():
        shown = [each for each in found.targets if not each.implied]
        figure = picture(figsize=(5.2 * len(shown), 4.2), layout="constrained")
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for panel, target in zip(axes, shown, strict=True):
            place = found.targets.index(target)
            unit, shown_in = (100.0, "%") if target.is_share else (1000.0, "ms") if target.limit < 1 else (1.0, "s")
            for k, each in enumerate(found.answers):
                points = [(each.hourly_of(trial), trial.readings[place]) for trial in each.trials]
                if not points:
                    continue
                cost = [cost for cost, _ in points]
                values = [unit * reading.value for _, reading in points]
                lows = [unit * (r.value - (r.ci95[0] if r.ci95 else r.value)) for _, r in points]
                highs = [unit * ((r.ci95[1] if r.ci95 else r.value) - r.value) for _, r in points]
                spread = [[max(low, 0.0) for low in lows], [max(high, 0.0) for high in highs]]
                panel.errorbar(cost, values, spread, ms=5, capsize=3, lw=1.4, label=each.choice.name, **looks.marked(k))
            panel.axhline(unit * target.limit, color="black", linestyle="--", linewidth=1)
            panel.set_title(_asked(target), loc="left")
            panel.set_xlabel(_per(found, "an hour") if found.priced else "GPUs")
            panel.set_ylabel(f"{target.name}, {shown_in}")
            low, high = panel.get_ylim()
            if not target.is_share and high > WIDE * max(low, unit * target.limit / WIDE):
                panel.set_yscale("log")
                plain_ticks(panel.yaxis)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(2, max(len(labels), 1)), fontsize="small")
    return figure
