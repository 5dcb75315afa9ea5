"""A figure that shows itself. Imported as the first one is drawn: matplotlib comes with the extra `plot`."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from fluidgate.reports.style import SCREEN, style


class Picture(Figure):
    """A figure that a notebook shows where it stands at the end of a cell, whatever the notebook has loaded.

    pyplot does not know it, so that it is not shown once more, and nothing is left open.
    """

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        with style():
            self.savefig(content, format="png", dpi=SCREEN, bbox_inches="tight")
        return content.getvalue()
