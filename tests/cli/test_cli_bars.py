"""Bars on standard error: of what is done, and of a compilation; silent where nobody looks."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time

import pytest

from fluidgate.cli.console import notices, progress_bar

log = logging.getLogger("fluidgate.compiled.disk")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def seen_by(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return screen


def compiled() -> None:
    log.info("compiling %s ...", "the kernel", extra={"compiling": "the kernel", "expected": 20})
    time.sleep(0.3)
    log.info("compiled in 0.3 s", extra={"compiling": ""})


def test_a_compilation_is_a_bar_with_the_time_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = seen_by(monkeypatch)
    with notices():
        compiled()
    shown = terminal.getvalue()
    assert "compiling the kernel" in shown
    assert "of some 20 s" in shown
    assert "compiled in" not in shown


def test_a_compilation_beside_a_bar_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = seen_by(monkeypatch)
    with notices(), progress_bar("simulating") as progress:
        progress(3, 8)
        compiled()
        log.info("a notice between")
        progress(4, 8)
        time.sleep(0.2)
    shown = terminal.getvalue()
    for text in ("simulating", "3 of 8", "compiling the kernel", "fluidgate: a notice between"):
        assert text in shown


@pytest.mark.parametrize("dumb", [True, False])
def test_no_bars_where_nobody_looks(monkeypatch: pytest.MonkeyPatch, dumb: bool) -> None:
    screen = Terminal() if dumb else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "dumb" if dumb else "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with notices(), progress_bar("simulating") as progress:
        progress(3, 8)
        compiled()
    assert screen.getvalue().splitlines() == ["fluidgate: compiling the kernel ...", "fluidgate: compiled in 0.3 s"]


def test_an_interrupted_compilation_leaves_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = seen_by(monkeypatch)
    with contextlib.suppress(KeyboardInterrupt), notices():
        log.info("compiling", extra={"compiling": "the kernel", "expected": 0})
        raise KeyboardInterrupt
    with notices(), progress_bar("next"):
        pass
    assert sys.stderr is terminal
