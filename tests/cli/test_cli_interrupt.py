"""Ctrl-C while worker processes simulate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import TWO_CLASS

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")

PATIENCE = 60.0  # s
BUSY = 1.0  # s of processor time, by which a worker is past its imports


@dataclass(frozen=True)
class Process:
    pid: int
    command: str
    seconds: float


def session(leader: int) -> Iterator[Process]:
    """The living processes of a session; those that have ended and only wait to be reaped are left out."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, *rest = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(rest[2]) == leader and state != "Z":
            yield Process(int(entry.name), command, (int(rest[10]) + int(rest[11])) / os.sysconf("SC_CLK_TCK"))


def wait_until(condition: object, what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit, what
        time.sleep(0.05)


@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "kill"])
def test_ctrl_c(tmp_path: Path, whole_group: bool) -> None:
    arguments = ["simulate", str(TWO_CLASS), "--policy", "gate-and-route", "--gpus", "100", "--horizon", "1e7"]
    arguments += ["--replications", "2", "--workers", "2", "--json", "--plot", "p.png"]
    running = subprocess.Popen(
        [sys.executable, "-m", "fluidgate", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def busy_workers() -> int:
        assert running.poll() is None, running.communicate()
        return sum("LokyProcess" in p.command and p.seconds > BUSY for p in session(running.pid))

    try:
        wait_until(lambda: busy_workers() == 2, "the workers did not start")
        if whole_group:
            os.killpg(running.pid, signal.SIGINT)
        else:
            running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=PATIENCE)
        assert running.returncode == 130
        assert output == ""
        lines = [line for line in errors.splitlines() if line and not line.startswith("fluidgate: compil")]
        assert lines == ["fluidgate: interrupted"]
        wait_until(lambda: not list(session(running.pid)), "a child process is left")
        assert list(tmp_path.iterdir()) == []
    finally:
        for process in session(running.pid):
            os.kill(process.pid, signal.SIGKILL)
        running.wait()
