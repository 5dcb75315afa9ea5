"""Pictures as figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Figure]:
    """Calls a function that draws into a file, and gives the figure that it would have written."""

    def draw(picture: Callable[..., None], result: Any, **more: Any) -> Figure:
        caught: list[Figure] = []
        monkeypatch.setattr(f"{picture.__module__}.save", lambda figure, path: caught.append(figure))
        picture(result, path="none.svg", **more)
        (figure,) = caught
        return figure

    return draw
