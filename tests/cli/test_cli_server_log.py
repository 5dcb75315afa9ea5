"""What `fluidgate serve` writes of itself."""

from __future__ import annotations

import json
import logging
import re
import warnings
from pathlib import Path

import pytest
from command import Command

from fluidgate.cli.console import plugin_warnings, unit_warnings
from fluidgate.cli.server_log import server_log


def test_json_is_an_object_a_line_to_the_last(
    fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(
        "schema = 1\nname = 's'\n[gpu]\nbatch_size = 4\nchunk_size = 64\nalpha = 0.02\nbeta = 1e-4\ngamma = 50.0\n"
        "[[classes]]\nname = 'c'\nprompt_tokens = 10\noutput_tokens = 10\narrival_rate = 0.1\npatience_rate = 0\n"
    )
    Path("g.toml").write_text(
        "schema = 1\nscenario = 's.toml'\n[limits]\nmax_wait = 60000\n"
        "[engines]\nkind = 'openai'\nurls = ['http://127.0.0.1:1']\n"
    )
    done = fluidgate("serve", "g.toml", "--check", "--log-format", "json")
    assert (done.status, done.output) == (2, "")
    lines = [json.loads(line) for line in done.notices]
    assert all(list(line) == ["time", "level", "logger", "message"] for line in lines)
    assert [line["level"] for line in lines] == ["warning", "info", "warning", "error"]
    assert "if you meant milliseconds" in lines[0]["message"]
    assert lines[-1]["message"].startswith("g.toml: engines.urls: no engine is fit: http://127.0.0.1:1: ")


def test_other_libraries_keep_to_the_form(capsys: pytest.CaptureFixture[str]) -> None:
    with server_log("WARNING", "json"):
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
        logging.getLogger("fluidgate.gateway").warning("once")
        logging.getLogger("fluidgate.gateway").info("not at all")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["logger"], first["level"]) == ("uvicorn.error", "error")
    assert "ValueError: two\nlines" in first["exception"]
    assert second["message"] == "once"


def test_what_nobody_foresaw_keeps_to_the_form(capsys: pytest.CaptureFixture[str]) -> None:
    def serve() -> None:
        with server_log("INFO", "json"):
            logging.getLogger("fluidgate.plugins").warning("another's policy is broken")
            warnings.warn("old\nand slow", DeprecationWarning, stacklevel=1)
            raise OSError("no room")

    with plugin_warnings(), unit_warnings(), pytest.raises(SystemExit) as left:
        serve()
    assert left.value.code == 1
    plugin, library, last = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (plugin["level"], plugin["message"]) == ("warning", "another's policy is broken")
    assert (library["level"], library["message"]) == ("warning", "DeprecationWarning: old\nand slow")
    assert (last["level"], last["message"]) == ("error", "OSError: no room")
    assert "Traceback" in last["exception"]


def test_text_has_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    with server_log("INFO", "text"):
        logging.getLogger("fluidgate.gateway").info("there")
    assert re.fullmatch(r"fluidgate: \d{4}-\d\d-\d\dT\S+ INFO there\n", capsys.readouterr().err)
