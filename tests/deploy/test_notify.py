"""What systemd is told, on a socket such as it has."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluidgate.emulator import EngineSettings, serve_engines
from fluidgate.gateway.client.notify import ServiceManager
from tests.gateway.served import MODEL, scenario, settings_of

SECONDS = 60.0


class Ear:
    """The socket of a service manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(SECONDS)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def next(self) -> list[str]:
        """The lines of the next message."""
        return self.socket.recv(4096).decode().split("\n")

    def after_pings(self) -> list[str]:
        """The lines of the next message that is no ping."""
        while (lines := self.next()) == ["WATCHDOG=1"]:
            pass
        return lines


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(f"@fluidgate-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify"))
    yield ear
    ear.socket.close()


def test_each_message(ear: Ear) -> None:
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": ear.address})
    manager.status("looking")
    assert ear.next() == ["STATUS=looking"]
    manager.ready("here")
    assert ear.next() == ["READY=1", "STATUS=here"]
    with manager.reloading():
        state, when = ear.next()
        assert state == "RELOADING=1"
        assert int(when.removeprefix("MONOTONIC_USEC=")) > 0
    assert ear.next() == ["READY=1"]
    manager.stopping("leaving")
    assert ear.next() == ["STOPPING=1", "STATUS=leaving"]


def test_a_reload_that_fails_ends_all_the_same(ear: Ear) -> None:
    manager = ServiceManager(ear.address)
    with pytest.raises(ValueError, match="bad file"), manager.reloading():
        raise ValueError("bad file")
    assert ear.next()[0] == "RELOADING=1"
    assert ear.next() == ["READY=1"]


def test_the_watchdog_is_kept_quiet_by_the_loop_alone(tmp_path: Path) -> None:
    ear = Ear(str(tmp_path / "notify"))

    async def run() -> None:
        ServiceManager.from_environment({"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "20000"}).ready("here")
        await asyncio.sleep(0.1)

    asyncio.run(run())
    assert ear.next()[0] == "READY=1"
    ear.socket.setblocking(False)
    pings = 0
    while True:
        try:
            assert ear.next() == ["WATCHDOG=1"]
        except BlockingIOError:
            break
        pings += 1
    assert pings >= 2
    ear.socket.close()


def test_the_watchdog_of_another_process_is_not_ours(tmp_path: Path) -> None:
    ear = Ear(str(tmp_path / "notify"))
    environment = {"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}
    ServiceManager.from_environment(environment).ready("here")  # outside of a loop, where a ping would fail
    assert ear.next()[0] == "READY=1"
    ear.socket.close()


def test_nobody_is_told_where_nobody_asks() -> None:
    manager = ServiceManager.from_environment({})
    manager.ready("here")
    manager.stopping("leaving")


def test_a_service_manager_that_is_gone_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager(str(tmp_path / "nobody")).status("here")
    assert "was not told STATUS=here (No such file or directory)" in caplog.text


def test_serve_tells_when_it_serves_and_when_it_leaves(tmp_path: Path) -> None:
    ear = Ear(str(tmp_path / "notify"))

    async def run() -> None:
        of = scenario()
        async with serve_engines(EngineSettings(of.gpu, model=MODEL, speed=20.0), 1) as (engine,):
            settings_of(tmp_path, [engine.url], of)
            child = subprocess.Popen(
                [sys.executable, "-m", "fluidgate", "serve", str(tmp_path / "gateway.toml")],
                env={**os.environ, "NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "200000"},
                stderr=subprocess.DEVNULL,
            )
            try:
                assert await asyncio.to_thread(ear.next) == ["STATUS=looking for the engines"]
                state, status = await asyncio.to_thread(ear.next)
                assert state == "READY=1"
                url = status.removeprefix("STATUS=gateway on ")
                with socket.create_connection((url.split(":")[1].strip("/"), int(url.split(":")[2])), SECONDS):
                    pass
                assert await asyncio.to_thread(ear.next) == ["WATCHDOG=1"]
                child.send_signal(signal.SIGTERM)
                assert (await asyncio.to_thread(ear.after_pings))[0] == "STOPPING=1"
                await asyncio.to_thread(child.wait, SECONDS)
            finally:
                child.kill()
                child.wait()

    asyncio.run(run())
    ear.socket.close()
