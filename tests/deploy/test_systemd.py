"""The unit: what systemd says to it, and what the gateway does as it says."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fluidgate.cli.serve import serve
from fluidgate.gateway.gateway_tables import ServerTable

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "fluidgate.service"


def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser["Service"]


def test_it_starts_what_there_is() -> None:
    program, command, *arguments = service()["ExecStart"].split()
    assert program.endswith("/bin/fluidgate")
    assert command == serve.name
    given = serve.make_context("serve", arguments).params["gateway_file"]
    assert Path(given).parts[:3] == ("/", "etc", service()["ConfigurationDirectory"])


def test_its_times_fit_the_gateways() -> None:
    unit = service()
    assert int(unit["TimeoutStopSec"]) > ServerTable().drain_seconds
    assert unit["Type"] == "notify"
    assert unit["KillSignal"] == "SIGTERM"


def test_compiled_code_is_kept_where_it_may_write() -> None:
    unit = service()
    assert f"XDG_CACHE_HOME={Path('/var/cache')}" in unit["Environment"].split()
    assert unit["CacheDirectory"] == "fluidgate"  # below it, where platformdirs puts ours
    assert "MemoryDenyWriteExecute" not in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    program = service()["ExecStart"].split()[0]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text("utf-8").replace(program, sys.executable))
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert [line for line in found.stdout.splitlines() if UNIT.name in line] == []
