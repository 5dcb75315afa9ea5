"""Two gateways before the same engines, and one that takes over from another on its port."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from fluidgate.gateway.client.running import running_gateway
from tests.gateway.asynchronous import asynchronous
from tests.gateway.moody_engine import MoodyEngine
from tests.gateway.served import Live, live_gateway, scenario, settings_of


@asynchronous
async def test_they_keep_their_promises_side_by_side(tmp_path: Path) -> None:
    async with live_gateway(tmp_path, engines=2, kind="vllm") as one:
        folder = tmp_path / "other"
        folder.mkdir()
        settings = settings_of(folder, [engine.url for engine in one.engines], scenario())
        async with running_gateway(settings) as (gateway, url), Live.before(gateway, url, folder) as two:
            work = [live.complete(20 + k, stream=k % 2 == 0) for k in range(16) for live in (one, two)]
            replies = await asyncio.gather(*work)
            assert [reply.status for reply in replies] == [200] * 32
            for live in (one, two):
                await live.until(live.idle)
                assert {record["outcome"] for record in live.records()} == {"completed"}
                assert {record["output_tokens"] for record in live.records()} == set(range(20, 36))


@asynchronous
async def test_one_takes_over_from_another_without_a_refused_connection(tmp_path: Path) -> None:
    """The new one listens on the same port before the old one is told to leave."""
    async with AsyncExitStack() as stack:
        engine = MoodyEngine()
        await engine.start()
        stack.push_async_callback(engine.stop)
        settings = settings_of(tmp_path, [engine.url], scenario())
        path = tmp_path / "gateway.toml"
        free = settings.server.port or free_port()
        path.write_text(path.read_text().replace("port = 0", f"port = {free}\nreuse_port = true"))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        statuses: list[int] = []
        resets: list[OSError] = []

        async def ask() -> None:
            while True:
                body = {"model": "emulated", "prompt": "hi", "max_tokens": 2}
                url = f"http://127.0.0.1:{free}/v1/completions"
                try:
                    async with session.post(url, json=body, headers={"connection": "close"}) as answer:
                        statuses.append(answer.status)
                except aiohttp.ClientOSError as error:
                    if error.errno != errno.ECONNRESET:
                        raise
                    resets.append(error)  # who has just connected to the old one as it closes its socket
                await asyncio.sleep(0.01)

        old = await started(path, free)
        asking = asyncio.create_task(ask())
        await asyncio.sleep(0.3)
        new = await started(path, free)
        try:
            os.kill(old.pid, signal.SIGTERM)
            await asyncio.to_thread(old.wait, 30)
            before = len(statuses)
            await asyncio.sleep(0.3)
            assert not asking.done(), "no connection was refused"
            assert len(resets) <= 1
            assert len(statuses) > before
            assert set(statuses) <= {200, 503}
            assert statuses[-1] == 200
        finally:
            asking.cancel()
            for process in (old, new):
                process.kill()
                process.wait()


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def started(path: Path, port: int) -> subprocess.Popen[str]:
    """A gateway in a process of its own, once it says that it listens."""
    command = [sys.executable, "-m", "fluidgate", "serve", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None

    def until_it_listens() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if f"gateway on http://127.0.0.1:{port}" in line:
                return
        raise AssertionError("it did not start")

    await asyncio.wait_for(asyncio.to_thread(until_it_listens), 60)
    return process
