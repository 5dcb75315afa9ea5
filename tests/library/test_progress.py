"""How far a run is: told to a function, or shown by a bar in a notebook, which goes when the run ends."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from fluidgate import progress, simulate
from fluidgate.progress import NotebookBar, TerminalBar, in_notebook, reported


class Page:
    """The output of a cell: what is shown now, and all that was."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, content: dict[str, str], *, raw: bool, display_id: bool) -> Page:
        assert raw
        assert display_id
        self.update(content, raw=raw)
        return self

    def update(self, content: dict[str, str], *, raw: bool) -> None:
        assert raw
        assert content["text/plain"] == ""
        self.shown.append(content["text/html"])


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    """A kernel of Jupyter, as far as a bar needs one."""
    found = Page()
    shell = SimpleNamespace(kernel=object())
    display: Any = SimpleNamespace(display=found.display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(progress, "QUIET", -1.0)
    monkeypatch.setattr(progress, "OFTEN", -1.0)
    return found


def test_a_notebook_shows_a_bar_and_then_nothing(page: Page) -> None:
    assert in_notebook()
    with reported(None, "simulating <b>") as tell:
        assert tell is not None
        tell(1, 4)
        logging.getLogger("fluidgate").info("compiling %s ...", "the network")
        tell(4, 4)
    assert page.shown[0].startswith('<progress value="1" max="4"></progress> simulating &lt;b&gt;, 1 of 4, ')
    assert page.shown[1:] == [
        "<progress></progress> compiling the network ...",
        '<progress value="4" max="4"></progress> simulating &lt;b&gt;, 4 of 4, 0 s left',
        "",
    ]
    assert logging.getLogger("fluidgate").handlers == []


def test_a_short_run_shows_none(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET", 60.0)
    with reported(None, "simulating") as tell:
        assert tell is not None
        tell(1, 1)
    assert page.shown == []


def test_elsewhere_nothing_is_shown_unless_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in (None, False):
        with reported(asked, "simulating") as tell:
            assert tell is None
    assert capsys.readouterr() == ("", "")
    with reported(True, "simulating") as tell:
        assert tell is not None
        assert isinstance(tell.__self__, TerminalBar)  # type: ignore[attr-defined]
        tell(1, 2)
        logging.getLogger("fluidgate").info("compiling")
    assert capsys.readouterr().out == ""


def test_a_function_is_told(page: Page) -> None:
    told: list[tuple[int, int]] = []
    short: dict[str, Any] = {"gpus": 1, "horizon": 50.0, "replications": 2}
    simulate("examples/tiny.toml", "fi-wsp", progress=lambda *step: told.append(step), **short)
    assert told == [(1, 2), (2, 2)]
    assert page.shown == []
    simulate("examples/tiny.toml", "fi-wsp", **short)
    assert page.shown[-1] == ""
    assert "2 of 2" in page.shown[-2]


def test_a_bar_closes_when_the_run_fails(page: Page) -> None:
    def fail() -> None:
        with reported(None, "simulating") as tell:
            assert tell is not None
            tell(1, 3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert page.shown[-1] == ""
    assert NotebookBar("x").html() == "<progress></progress> x"
