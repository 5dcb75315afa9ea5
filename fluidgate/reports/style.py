"""The look of pictures."""

from __future__ import annotations

from typing import Any

from fluidgate.reports.looks import COLOURS

SCREEN = 96
"""Dots per inch of a picture on a page."""

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    "grid.alpha": 0.25,
    "font.size": 9,
    "legend.frameon": False,
    "svg.hashsalt": "fluidgate",
    "text.parse_math": False,
}


def style() -> Any:
    """The look that all pictures share, as a context."""
    from matplotlib import rc_context

    return rc_context(STYLE)
