"""Iteration times over the chunk, as a panel of a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fluidgate.reports import looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Seconds = Callable[[float, float], float]
"""Of an iteration with a chunk, tokens, and decodes."""
POINTS = 80


def draw_times(axes: Axes, seconds: Seconds, batches: Sequence[int], largest: float) -> None:
    """Lines up to the largest chunk, one for each batch; squares are iterations without a chunk.

    Args:
        batches: requests, one of them in prefill where there is a chunk.
    """
    chunks = np.linspace(1.0, largest, POINTS)
    for k, batch in enumerate(batches):
        times = [1000 * seconds(float(chunk), batch - 1.0) for chunk in chunks]
        axes.plot(chunks, times, lw=1.6, label=f"{batch:,}", **looks.line(k))
        axes.plot([0.0], [1000 * seconds(0.0, float(batch))], "s", ms=4, color=looks.line(k)["color"], clip_on=False)
    axes.set_xlim(0.0, largest)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("chunk, tokens (squares: without a prefill)")
    axes.set_title("iteration time, ms", loc="left")
    if len(batches) > 1:
        axes.legend(title="batch", fontsize=8, title_fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def some_batches(largest: int, *, apart: bool) -> list[int]:
    """A few up to the largest, where the time depends on them."""
    return sorted({1, max(largest // 4, 1), max(largest // 2, 1), largest}) if apart else [largest]
