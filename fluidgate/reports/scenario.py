"""A scenario as tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from fluidgate.model import Scenario
from fluidgate.noun import said
from fluidgate.reports.plots import picture, style
from fluidgate.reports.tables import number, table
from fluidgate.reports.times import draw_times, some_batches
from fluidgate.shown import several

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def scenario_tables(scenario: Scenario) -> Iterator[Table]:
    """The GPU, then the classes."""
    gpu, gpus = scenario.gpu, scenario.cluster_gpus
    whole = table(f"Scenario '{scenario.name}'", "", "")
    if gpus is not None:
        whole.add_row("GPUs that share the load", str(gpus))
    if gpu.calibrated.profile:
        whole.add_row("profile", gpu.calibrated.profile)
    whole.add_row("batch B, chunk C", f"{gpu.batch_size} requests, {gpu.chunk_size} tokens")
    whole.add_row("iteration of a full batch, mixed, solo", f"{1000 * gpu.tau:.4g} ms, {1000 * gpu.solo:.4g} ms")
    if scenario.priced:
        prices = scenario.pricing
        whole.add_row("price of a token, prompt, output", f"{prices.prompt:g}, {prices.output:g} ({prices.scheme})")
    for name, table_of in (("arrivals", scenario.arrivals), ("lengths", scenario.lengths),
                           ("engine", scenario.engine), ("targets", scenario.targets),
                           ("indicators", scenario.indicators)):  # fmt: skip
        if keys := said(table_of):
            whole.add_row(name, ", ".join(f"{key} = {value}" for key, value in keys.items()))
    yield whole
    rate = ["arrivals/s per GPU", "arrivals/s, cluster"] if gpus is not None else ["arrivals/s per GPU"]
    classes = table("Classes", "class", "mean prompt P", "mean output D", *rate, "patience rate, 1/s")
    for each in scenario.classes:
        rates = [each.arrival_rate, each.arrival_rate * gpus] if gpus is not None else [each.arrival_rate]
        values = (each.prompt_tokens, each.output_tokens, *rates, each.patience_rate)
        classes.add_row(each.name, *map(number, values))
    yield classes


def scenario_figure(scenario: Scenario) -> Figure:
    """The tokens that each class brings, and how long an iteration takes."""
    gpu = scenario.gpu
    with style():
        figure: Figure = picture(figsize=(9, max(3.2, 1.2 + 0.3 * len(scenario.classes))), layout="constrained")
        load, times = figure.subplots(1, 2, width_ratios=[3, 2])
        _load(load, scenario)
        largest = 2.0 * gpu.chunk_size
        batches = some_batches(gpu.batch_size, apart=gpu.iteration.by_batch)
        draw_times(
            times, lambda chunk, decodes: gpu.seconds(chunk, decodes, decodes * gpu.context_tokens), batches, largest
        )
        times.axvline(gpu.chunk_size, color="0.3", lw=0.8, ls="--")
        times.set_title(f"iteration time, ms (dashed: C = {gpu.chunk_size:,})", loc="left")
        return figure


def _load(axes: Axes, scenario: Scenario) -> None:
    """Prompt and output tokens a second of each class, over the whole cluster where the load is one's."""
    from matplotlib.ticker import MaxNLocator

    gpus = scenario.cluster_gpus or 1
    names = scenario.class_names
    left = np.zeros(len(names))
    for label, lengths in (
        ("prompt", [c.prompt_tokens for c in scenario.classes]),
        ("output", [c.output_tokens for c in scenario.classes]),
    ):
        width = gpus * np.array([c.arrival_rate for c in scenario.classes]) * lengths
        axes.barh(names, width, left=left, height=0.6, label=label)
        left += width
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("tokens/s that arrive")
    where = "per GPU" if scenario.cluster_gpus is None else several(gpus, "GPU")
    axes.set_title(f"{scenario.name}, {where}", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
