"""More load than there is room for, clients that go or do not read, and a gateway that ends or comes anew."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fluidgate.emulator import EngineSettings, serve_engines
from fluidgate.gateway.client import protocol
from fluidgate.gateway.client.running import running_gateway
from tests.gateway.served import MODEL, Live, Reply, live_gateway, scenario, settings_of
from tests.gateway.test_faults import error_of, settled

LONG = 4000
"""Tokens of an answer that takes some seconds on an engine of speed 20."""

CODE = {"x-class": "code"}
RULE = '[[rules]]\nclass = "code"\nheader = { x-class = "code" }\n'
KINDS = pytest.mark.parametrize("kind", ["vllm", "vllm-coupled"])
STREAMS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


async def fill(live: Live, slots: int, tokens: int = LONG) -> list[asyncio.Task[Reply]]:
    """Requests that hold so many slots."""
    work = []
    for k in range(slots):
        work.append(asyncio.create_task(live.complete(tokens)))
        await live.until(lambda k=k: decodes(live) == k + 1)
    return work


def decodes(live: Live) -> int:
    return sum(state.decodes for state in live.states())


def waiting(live: Live) -> list[int]:
    return live.gateway.dispatcher.counts().waiting.tolist()


async def drop(live: Live, work: list[asyncio.Task[Reply]]) -> None:
    """The clients go."""
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    await live.until(live.at_rest)


def test_queues_are_bounded_by_class_and_in_all(tmp_path: Path) -> None:
    more = f'[limits]\nmax_waiting = 5\n[[classes]]\nname = "code"\nmax_waiting = 2\n{RULE}'

    async def run() -> None:
        async with live_gateway(tmp_path, engines=1, kind="vllm-coupled", more=more) as live:
            work = await fill(live, 4)
            work += [asyncio.create_task(live.complete(1, headers=CODE)) for _ in range(2)]
            await live.until(lambda: waiting(live) == [0, 2])
            full = await live.complete(1, headers=CODE)
            assert (full.status, error_of(full)["type"]) == (429, "rate_limit_error")
            assert full.headers["x-fluidgate-reason"] == "queue_full"
            assert 1 <= int(full.headers["retry-after"]) <= 60
            work += [asyncio.create_task(live.complete(1)) for _ in range(3)]
            await live.until(lambda: waiting(live) == [3, 2])
            assert error_of(await live.complete(1))["code"] == "queue_full", "five wait in all"
            for task in work[:4]:
                task.cancel()
            replies = await asyncio.gather(*work[4:])
            assert [reply.status for reply in replies] == [200] * 5
            await live.until(live.at_rest)
            outcomes = sorted(record["outcome"] for record in live.records())
            assert outcomes == ["client_gone"] * 4 + ["completed"] * 5 + ["queue_full"] * 2

    asyncio.run(run())


def test_no_queue_at_all_still_serves_whom_it_can_at_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, engines=1, kind="vllm-coupled", more="[limits]\nmax_waiting = 0\n") as live:
            assert (await live.complete(2)).done
            work = await fill(live, 4)
            assert error_of(await live.complete(2))["code"] == "queue_full"
            await drop(live, work)

    asyncio.run(run())


def test_a_placement_bounds_the_prompts_that_engines_have_not_read(tmp_path: Path) -> None:
    async def run() -> None:
        more = "[limits]\nmax_waiting = 3\n"
        options: dict[str, Any] = {"engines": 1, "kind": "vllm-coupled", "policy": "vllm-lmetric", "more": more}
        async with live_gateway(tmp_path, **options) as live:
            work = await fill(live, 4)
            work += [asyncio.create_task(live.complete(1)) for _ in range(3)]
            await live.until(lambda: live.gateway.dispatcher.counts().prefilling.sum() == 3)
            assert error_of(await live.complete(1))["code"] == "queue_full"
            await drop(live, work)

    asyncio.run(run())


@pytest.mark.parametrize("whose", ["class", "client"])
def test_who_has_waited_for_too_long_leaves_the_queue(tmp_path: Path, whose: str) -> None:
    more = f'[[classes]]\nname = "code"\nmax_wait = {0.3 if whose == "class" else 50}\n{RULE}'
    headers = CODE | ({"x-fluidgate-max-wait": "0.3"} if whose == "client" else {})

    async def run() -> None:
        async with live_gateway(tmp_path, engines=1, kind="vllm-coupled", more=more) as live:
            work = await fill(live, 4)
            patient = asyncio.create_task(live.complete(1))
            reply = await live.complete(1, headers=headers)
            assert (reply.status, error_of(reply)["code"]) == (429, "wait_limit")
            assert int(reply.headers["retry-after"]) >= 1
            assert waiting(live) == [1, 0], "the other class waits on"
            assert live.gateway.controller is not None
            assert live.gateway.controller.estimator.rows["waiting"].tolist() == [1.0, 0.0]
            for task in work:
                task.cancel()
            assert (await patient).done
            await live.until(live.at_rest)
            record = next(r for r in live.records() if r["outcome"] == "wait_limit")
            assert (record["class"], record["status"], record["prefill_start"]) == ("code", 429, None)

    asyncio.run(run())


@STREAMS
@KINDS
@pytest.mark.parametrize("where", ["waiting", "prefill", "decode"])
def test_a_client_that_goes_frees_its_place(tmp_path: Path, kind: str, where: str, stream: bool) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, engines=1, kind=kind, speed=5.0) as live:
            await (aside := live.complete(1))  # warm
            del aside
            others = await fill(live, 3 if kind == "vllm" else 4) if where == "waiting" else []
            if where == "waiting" and kind == "vllm":
                others += [asyncio.create_task(live.complete(LONG, prompt=[3] * 40_000))]
                await live.until(lambda: live.gateway.dispatcher.counts().prefilling.sum() == 1)
            prompt = [5] * 40_000 if where == "prefill" else [5] * 100
            goer = asyncio.create_task(live.complete(LONG, stream=stream, prompt=prompt))
            if where == "waiting":
                await live.until(lambda: sum(waiting(live)) == 1)
            elif where == "prefill":
                await live.until(lambda: live.engines[0].state["running"] == 1)
            else:
                await live.until(lambda: decodes(live) == 1 and live.engines[0].state["running"] == 1)
            before = decodes(live)
            goer.cancel()
            await live.until(lambda: len(live.records()) == 2)
            assert live.records()[-1]["outcome"] == "client_gone"
            if where == "waiting":
                assert (waiting(live), decodes(live)) == ([0, 0], before)
            else:
                await live.until(live.at_rest)
                assert list(live.engines[0].engine.served)[-1].finish == "abort"
            await drop(live, others)

    asyncio.run(run())


def test_a_client_that_goes_while_its_decode_waits_lets_the_kv_go(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, engines=2, speed=5.0) as live:
            work = [asyncio.create_task(live.complete(LONG)) for _ in range(9)]
            await live.until(lambda: live.gateway.dispatcher.counts().buffered.sum() >= 1)
            pinned = sum(e.state["pinned"] for e in live.engines)
            assert pinned >= 1
            await drop(live, work)
            assert {record["outcome"] for record in live.records()} == {"client_gone"}
            await live.until(lambda: sum(e.state["pinned"] for e in live.engines) == 0)

    asyncio.run(run())


async def lazy_client(url: str, tokens: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client with a tiny window that has asked for a long answer and reads nothing of it."""
    host, port = url.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    asked = {"model": MODEL, "prompt": [7] * 50, "max_tokens": tokens, "ignore_eos": True, "stream": True}
    body = json.dumps(asked).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    return reader, writer


def test_who_does_not_read_holds_no_slot_and_stalls_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, engines=1, speed=200.0) as live:
            _, writer = await lazy_client(live.url, 6000)
            await live.until(lambda: decodes(live) == 1)
            assert (await live.complete(5)).done, "others are served meanwhile"
            await live.until(lambda: any(r["output_tokens"] == 6000 for r in live.records()), 60.0)
            await live.until(live.at_rest)
            writer.transport.abort()

    asyncio.run(run())


def test_who_lets_a_full_buffer_stand_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SEND_BUFFER", 4096)

    async def run() -> None:
        async with live_gateway(tmp_path, engines=1, speed=200.0, client_seconds=0.5) as live:
            _, writer = await lazy_client(live.url, 100_000)
            await live.until(lambda: len(live.records()) == 1, 60.0)
            assert live.records()[0]["outcome"] == "client_gone"
            await live.until(live.at_rest)
            assert (await live.complete(5)).done
            writer.transport.abort()

    asyncio.run(run())


def test_traffic_that_goes_past_the_gateway_closes_slots(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, engines=2, kind="vllm-coupled") as live, aiohttp.ClientSession() as session:
            asked = {"model": MODEL, "prompt": [1] * 50, "max_tokens": 100_000, "ignore_eos": True}
            past = [
                asyncio.create_task(session.post(live.engines[0].url + "/v1/completions", json=asked)) for _ in range(3)
            ]
            await live.until(lambda: foreign(live) == [3, 0])
            assert live.gateway.snapshot()["engines"][0]["foreign"] == 3
            work = await fill(live, 5)
            assert [state.decodes for state in live.states()] == [1, 4]
            assert foreign(live) == [3, 0]
            for task in past:
                task.cancel()
            await asyncio.gather(*past, return_exceptions=True)
            await live.until(lambda: foreign(live) == [0, 0])
            await drop(live, work)

    asyncio.run(run())


def foreign(live: Live) -> list[int]:
    return [state.foreign for state in live.states()]


def test_a_gateway_before_busy_engines_recovers_its_view(tmp_path: Path) -> None:
    """What ran before it started holds slots until it ends."""

    async def run() -> None:
        of = scenario()
        engines = serve_engines(EngineSettings(of.gpu, model=MODEL, speed=20.0), 2)
        async with engines as servers, aiohttp.ClientSession() as session:
            asked = {"model": MODEL, "prompt": [1] * 50, "max_tokens": 100_000, "ignore_eos": True}
            old = [
                asyncio.create_task(session.post(s.url + "/v1/completions", json=asked)) for s in servers for _ in "ab"
            ]
            async with asyncio.timeout(20.0):
                while sum(server.state["running"] for server in servers) < 4:
                    await asyncio.sleep(0.01)
            settings = settings_of(tmp_path, [server.url for server in servers], of)
            async with running_gateway(settings) as (gateway, url):
                live = Live(url, gateway, servers, session, tmp_path / "requests.log")
                await live.until(lambda: foreign(live) == [2, 2])
                replies = await asyncio.gather(*(live.complete(5) for _ in range(8)))
                assert all(reply.done for reply in replies)
                for task in old:
                    task.cancel()
                await asyncio.gather(*old, return_exceptions=True)
                await live.until(lambda: foreign(live) == [0, 0])
                await settled(live, requests=8, outcome="completed")

    asyncio.run(run())


def test_our_own_traffic_never_looks_foreign(tmp_path: Path) -> None:
    """Requests that come, end and break off as fast as the engines allow."""

    async def run() -> None:
        async with live_gateway(tmp_path, engines=2) as live:
            seen: list[int] = []
            kept = live.gateway.dispatcher.set_foreign
            live.gateway.dispatcher.set_foreign = lambda g, n: (seen.append(n), kept(g, n))[1]  # type: ignore[method-assign]

            async def client(k: int) -> None:
                for j in range(12):
                    task = asyncio.create_task(live.complete(3 + (k + j) % 7))
                    if (k + j) % 3 == 0:
                        await asyncio.sleep(0.01)
                        task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task

            await asyncio.gather(*(client(k) for k in range(8)))
            await live.until(live.at_rest)
            await live.until(lambda: len(seen) >= 6)
            assert max(seen) == 0

    asyncio.run(run())


class Process:
    """`fluidgate serve` as users start it."""

    def __init__(self, folder: Path, urls: list[str], *, drain: float = 30.0) -> None:
        settings_of(folder, urls, scenario(), drain_seconds=drain)
        self.child = subprocess.Popen(
            [sys.executable, "-m", "fluidgate", "serve", str(folder / "gateway.toml")],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def url(self) -> str:
        assert self.child.stderr is not None
        while line := (await asyncio.to_thread(self.child.stderr.readline)).decode():
            if "gateway on " in line:
                return line.split()[-1]
        raise AssertionError("it did not start")

    async def end(self) -> int:
        return await asyncio.to_thread(self.child.wait, 60)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        assert self.child.stderr is not None
        self.child.stderr.close()

    def group(self) -> list[str]:
        """The processes that are left of it."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError, IndexError):
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                    if int(fields[2]) == self.child.pid and fields[0] != "Z":
                        found.append(entry.name)
        return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "twice"])
def test_a_signal_lets_requests_end_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    async def run() -> None:
        of = scenario()
        engines = serve_engines(EngineSettings(of.gpu, model=MODEL, speed=3.0), 2)
        async with engines as servers, aiohttp.ClientSession() as session:
            process = Process(tmp_path, [server.url for server in servers])
            try:
                live = Live(await process.url(), None, servers, session, tmp_path / "requests.log")  # type: ignore[arg-type]
                tokens = 100_000 if how == "twice" else 400
                work = [asyncio.create_task(live.complete(tokens, stream=k > 0)) for k in range(3)]
                await live.until(lambda: sum(server.state["running"] for server in servers) == 3)
                await asyncio.sleep(0.3)  # tokens flow
                os.kill(process.child.pid, signal.SIGINT if how == "SIGINT" else signal.SIGTERM)
                refused = await until_refused(live)
                assert refused in ("closed", "shutting_down")
                if how == "twice":
                    os.kill(process.child.pid, signal.SIGTERM)
                    replies = await asyncio.gather(*work)
                    assert [reply.status for reply in replies] == [503, 200, 200]
                    assert [error_of(reply)["code"] for reply in replies] == ["shutting_down"] * 3
                else:
                    replies = await asyncio.gather(*work)
                    assert [reply.status for reply in replies] == [200] * 3
                    assert all(reply.done and reply.tokens == 400 for reply in replies[1:])
                assert await process.end() == 0
                assert process.child.stderr is not None
                last = process.child.stderr.read().decode()
                assert (
                    "leaving at once: broken off: 3 requests" if how == "twice" else "no request is under way"
                ) in last
                assert process.group() == []
                served = [r for r in live.records() if "id" in r and r["outcome"] != "queue_full"]
                assert len(served) == 3
                await live.until(lambda: all(server.state["running"] == 0 for server in servers))
            finally:
                process.close()

    asyncio.run(run())


async def until_refused(live: Live) -> str:
    """How new requests are refused, once they are."""
    async with asyncio.timeout(20.0):
        while True:
            try:
                async with aiohttp.ClientSession() as session:
                    url = live.url + "/v1/completions"
                    asked = {"model": MODEL, "prompt": "a", "max_tokens": 1}
                    async with session.post(url, json=asked) as answer:
                        if answer.status == 503:
                            return str((await answer.json())["error"]["code"])
            except aiohttp.ClientConnectionError:
                return "closed"
            await asyncio.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="reads /proc")
def test_a_process_among_others(tmp_path: Path) -> None:
    """It takes as many files as it may; SIGHUP opens its log anew and ends nothing; who comes late is told so."""

    async def run() -> None:
        async with (
            serve_engines(EngineSettings(scenario().gpu, model=MODEL, speed=20.0), 1) as servers,
            aiohttp.ClientSession() as session,
        ):
            process = Process(tmp_path, [server.url for server in servers])
            log = tmp_path / "requests.log"
            try:
                live = Live(await process.url(), None, servers, session, log)  # type: ignore[arg-type]
                limits = Path(f"/proc/{process.child.pid}/limits").read_text()
                soft, hard = next(line.split()[3:5] for line in limits.splitlines() if "Max open files" in line)
                assert soft == hard
                assert (await live.complete(2)).status == 200
                log.rename(tmp_path / "requests.log.1")
                os.kill(process.child.pid, signal.SIGHUP)
                await live.until(log.exists)
                assert (await live.complete(2)).status == 200
                await live.until(lambda: len(live.records()) == 1)
                work = asyncio.create_task(live.complete(2000))
                await live.until(lambda: servers[0].state["running"] == 1)
                os.kill(process.child.pid, signal.SIGTERM)
                await asyncio.sleep(0.2)
                async with aiohttp.ClientSession() as late, late.get(f"{live.url}/ready") as answer:
                    assert answer.status == 503
                assert (await work).done
                assert await process.end() == 0
            finally:
                process.close()

    asyncio.run(run())
