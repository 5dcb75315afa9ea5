"""The optimum of a small cluster as tables, and its decisions as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from fluidgate.optimum import GpuState, Optimum, State, Yardstick
from fluidgate.reports.earned import Limit, earned_figure
from fluidgate.reports.plots import picture, save, style
from fluidgate.reports.tables import number, table, with_interval
from fluidgate.shown import several

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RARE = 1e-3
"""Queues longer than all but this share of the time are left out of the picture."""
PANELS = 4
"""Most rows and columns of panels."""
NOBODY, HOLD = "nobody waits", "hold"

Choice = dict[tuple[int, int], str]


def optimum_tables(found: Optimum, measured: Yardstick | None = None) -> Iterator[Table]:
    """The optimum, and beside it the policies that were simulated."""
    gpus = f"{found.gpus} GPU{'s' * (found.gpus > 1)}"
    whole = table(f"Optimum of '{found.scenario.name}' on {gpus}, per GPU", "", "")
    whole.add_row("revenue rate", f"{number(found.revenue_rate, 6)} /s")
    whole.add_row("certified bounds", f"{found.lower:.8g} .. {found.upper:.8g} /s")
    whole.add_row("fluid optimum R*", f"{number(found.fluid_rate, 6)} /s")
    if found.optimality_ratio is not None:
        whole.add_row("optimum / R*", f"{100 * found.optimality_ratio:.2f} %")
    whole.add_row("time that a prefill could start and is held back", f"{100 * found.holding_chance:.2f} %")
    whole.add_row("states (met by the optimal policy)", f"{found.states:,} ({found.visited:,})")
    whole.add_row("limit of each queue for prefill", ", ".join(map(str, found.queue_limits)))
    whole.add_row("limit of the decode buffer", str(found.buffer_limit))
    whole.add_row("time at a queue limit", _percent(found.queue_limit_chance))
    whole.add_row("time at the buffer limit", _percent(found.buffer_limit_chance))
    yield whole
    if measured is None:
        return
    run = measured.results[0].run
    made = table(
        f"What policies earn of it ({run.replications} x {run.horizon:g} s, ± 95 % confidence)",
        "policy", "revenue /s", "% of the optimum",
    )  # fmt: skip
    for result in sorted(measured.results, key=lambda r: -(r.revenue_rate.mean or 0.0)):
        unit = 100 / found.revenue_rate if found.revenue_rate > 0 else 0.0
        made.add_row(
            result.policy,
            with_interval(result.revenue_rate, 5),
            with_interval(result.revenue_rate, 4, unit),
        )
    yield made


def _percent(chance: float) -> str:
    return "< 1e-9 %" if 0 < chance < 1e-11 else f"{number(100 * chance, 2)} %"


def draw_optimum(found: Optimum, path: str | Path) -> None:
    """Write `optimum_figure` to a file."""
    save(optimum_figure(found), path)


def optimum_figure(found: Optimum) -> Figure:
    """Which prefills the optimal policy starts when a GPU has no prefill, by what is on it and by who waits.

    A panel for each number of decodes on that GPU, the axes the requests that wait for prefill (of the first two
    classes; with one class: those that wait, and the decodes). The other GPUs are in the state that they are in most of
    the time, the decode buffer and further queues are empty.
    """
    names = found.scenario.class_names
    others = _typical_others(found)
    with style():
        if len(names) == 1:
            figure: Figure = picture(figsize=(6.4, 3.6), layout="constrained")
            axes = figure.subplots()
            slots = found.scenario.gpu.batch_size
            choice = {
                (q, d): _decided(found, (d,), (q,), others) for q in range(_longest(found, 0) + 1) for d in range(slots)
            }
            kinds = _kinds([choice], names)
            _panel(axes, choice, kinds)
            axes.set_xlabel(f"waiting: {names[0]}")
            axes.set_ylabel("decodes on the GPU")
        else:
            figure, kinds = _grid(found, others)
        note = f"\nthe other GPU{'s' * (found.gpus > 2)}: {_words(others, names)}" if others else ""
        panels = "" if len(names) == 1 else f"\npanels: its decodes, {' + '.join(names[:2])}"
        figure.suptitle(
            f"{found.scenario.name}, {found.gpus} GPU{'s' * (found.gpus > 1)}: the optimal decision where one GPU has "
            f"no prefill{panels}{note}",
            x=0.01, ha="left",
        )  # fmt: skip
        from matplotlib.patches import Patch

        handles = [Patch(facecolor=color, edgecolor="0.7", label=kind) for kind, color in kinds.items()]
        figure.legend(handles=handles, loc="outside right center", title="prefills started")
    return figure


def yardstick_figure(found: Yardstick) -> Figure:
    """R*, the optimum with its certified bounds, and what policies earn; shaded what of R* none can."""
    best = found.optimum
    limits = (
        Limit("fluid optimum R*", best.fluid_rate),
        Limit("optimum", best.revenue_rate, (best.lower, best.upper)),
    )
    title = f"{best.scenario.name}, {several(best.gpus, 'GPU')}"
    return earned_figure(title, limits, (best.upper, best.fluid_rate), found.results)


def _grid(found: Optimum, others: tuple[GpuState, ...]) -> tuple[Figure, dict[str, str]]:
    names, slots = found.scenario.class_names, found.scenario.gpu.batch_size
    decodes = sorted({round(d) for d in np.linspace(0, slots - 1, min(PANELS, slots))})
    spans = [_longest(found, i) for i in (0, 1)]
    rest = (0,) * (len(names) - 2)
    cells: dict[tuple[int, int], Choice] = {
        (first, second): {
            (q1, q2): _decided(found, (first, second, *rest), (q1, q2, *rest), others)
            for q1 in range(spans[0] + 1)
            for q2 in range(spans[1] + 1)
        }
        for first in decodes
        for second in decodes
        if first + second < slots
    }
    kinds = _kinds(list(cells.values()), names)
    side = len(decodes)
    figure = picture(figsize=(3.2 + 1.9 * side, 1.2 + 1.9 * side), layout="constrained")
    panels = figure.subplots(side, side, sharex=True, sharey=True, squeeze=False)
    for row, second in enumerate(reversed(decodes)):
        for column, first in enumerate(decodes):
            axes = panels[row][column]
            if (first, second) not in cells:
                axes.axis("off")
                continue
            _panel(axes, cells[first, second], kinds)
            axes.set_title(f"decodes: {first} + {second}", loc="left")
            if row == side - 1:
                axes.set_xlabel(f"waiting: {names[0]}")
            if column == 0:
                axes.set_ylabel(f"waiting: {names[1]}")
    return figure, kinds


def _panel(axes: Axes, choice: Choice, kinds: dict[str, str]) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.ticker import MaxNLocator

    width, height = (1 + max(key[k] for key in choice) for k in (0, 1))
    order = list(kinds)
    image = np.array([[order.index(choice[x, y]) for x in range(width)] for y in range(height)])
    axes.grid(False)
    axes.pcolormesh(
        np.arange(width + 1) - 0.5, np.arange(height + 1) - 0.5, image,
        cmap=ListedColormap(list(kinds.values())), vmin=-0.5, vmax=len(order) - 0.5,
        edgecolors="white", linewidth=0.3,
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _kinds(choices: list[Choice], names: list[str]) -> dict[str, str]:
    """A colour for each decision that occurs; one prefill has the colour of its class."""
    count = Counter(kind for choice in choices for kind in choice.values())
    colors = {NOBODY: "white", HOLD: "0.8", **{name: f"C{k % 10}" for k, name in enumerate(names)}}
    for kind in sorted(count.keys() - colors.keys()):
        colors[kind] = f"C{(len(colors) - 2) % 10}"
    return {kind: color for kind, color in colors.items() if count[kind]}


def _decided(found: Optimum, decodes: tuple[int, ...], waiting: tuple[int, ...], others: tuple[GpuState, ...]) -> str:
    if not any(waiting):
        return NOBODY
    state = State((GpuState(None, decodes), *others), waiting, (0,) * len(waiting))
    started = Counter(action.cls for action in found.policy.actions(state) if action.kind == "prefill")
    names = found.scenario.class_names
    return " + ".join((f"{c} " if c > 1 else "") + names[i] for i, c in sorted(started.items())) or HOLD


def _longest(found: Optimum, cls: int) -> int:
    """The queue of a class that is exceeded only a thousandth of the time, and at least 3."""
    table_ = found.policy
    queues = table_.visited // (len(table_.space.buffers) * len(table_.space.clusters))
    lengths = np.array([q[cls] for q in table_.space.queues])[queues]
    share = np.bincount(lengths, weights=table_.chance)
    longer = 1.0 - np.cumsum(share)
    return min(max(int(np.argmax(longer <= RARE)), 3), found.queue_limits[cls])


def _typical_others(found: Optimum) -> tuple[GpuState, ...]:
    """The commonest state of all GPUs but one."""
    policy = found.policy
    space = policy.space
    share = np.bincount(policy.visited % len(space.clusters), weights=policy.chance, minlength=len(space.clusters))
    count: Counter[tuple[int, ...]] = Counter()
    for cluster, chance in zip(space.clusters, share, strict=True):
        for k in range(len(cluster)):
            count[cluster[:k] + cluster[k + 1 :]] += chance
    commonest = count.most_common(1)[0][0]
    return tuple(space.gpu_states[k] for k in commonest)


def _words(gpus: tuple[GpuState, ...], names: list[str]) -> str:
    parts = []
    for gpu in gpus:
        held = [f"{count} {name}" for count, name in zip(gpu.decodes, names, strict=True) if count]
        prefill = "no prefill" if gpu.prefill is None else f"prefill {names[gpu.prefill]}"
        parts.append(f"{prefill}, decodes {' + '.join(held) or 'none'}")
    return "; ".join(parts)
