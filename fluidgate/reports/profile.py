"""A profile as tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fluidgate.model import IterationTime
from fluidgate.profiles import Profile
from fluidgate.reports.plots import picture, style
from fluidgate.reports.tables import table
from fluidgate.reports.times import draw_times, some_batches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH, CHUNK, CONTEXT = 64, 2048, 1024
"""Drawn up to where a profile does not say what it holds for."""
LAW = tuple(IterationTime.model_fields)


def profile_tables(profile: Profile) -> Iterator[Table]:
    """Where it comes from and what it holds for, then the numbers of its law."""
    facts = table(f"Profile '{profile.name}'", "", "", text=2, names=1)
    law = table("Iteration time, s", "", "", names=1)
    for key, value in profile.said.items():
        if key in LAW:
            law.add_row(key, _shown(value))
        elif key != "name":
            facts.add_row(key.replace("_", " "), _shown(value))
    if profile.iteration.table is not None:
        law.add_row("table", repr(profile.iteration.table))
    yield facts
    yield law


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " to ".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


def profile_figure(profile: Profile) -> Figure:
    """Its iteration time over the chunk, for a few batches, with a context that it holds for."""
    law = profile.iteration
    largest_batch = (profile.batch_sizes or (1, BATCH))[1]
    largest_chunk = (profile.chunk_sizes or (1, CHUNK))[1]
    least, most = profile.contexts or (CONTEXT, CONTEXT)
    context = min(max(CONTEXT, least), most) if law.by_context else 0

    def seconds(chunk: float, decodes: float) -> float:
        if chunk > 0.0:
            return law.mixed(chunk, decodes, decodes * context)
        return law.solo(decodes, decodes * context)

    with style():
        figure: Figure = picture(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        draw_times(axes, seconds, some_batches(largest_batch, apart=law.by_batch), largest_chunk)
        beside = f", {context:,} tokens of context" if context else ""
        axes.set_title(f"{profile.name}: iteration time, ms{beside}", loc="left")
        return figure
