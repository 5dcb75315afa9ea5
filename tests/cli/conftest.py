"""The command in this process, and scenario files for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command import TWO_CLASS, Command, Outcome

from fluidgate.cli.app import main

COMPILING = "fluidgate: compil"


@pytest.fixture
def fluidgate(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `fluidgate ARGUMENTS` and returns its outcome."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 1
        captured = capsys.readouterr()
        notices = [line for line in captured.err.splitlines() if not line.startswith(COMPILING)]
        return Outcome(status, captured.out, notices)

    return run


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes the two-class scenario, with texts exchanged and lines added, into an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def write(*exchanges: tuple[str, str], more: str = "") -> Path:
        text = TWO_CLASS.read_text("utf-8")
        for old, new in exchanges:
            assert old in text, f"{old!r} is not in the example: this test changes nothing"
            text = text.replace(old, new)
        (tmp_path / "s.toml").write_text(text + more, "utf-8")
        return Path("s.toml")

    return write
