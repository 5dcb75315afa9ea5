"""The page and its stream as a gateway serves them, without a browser."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fluidgate.gateway.client.dashboard import PAGE
from fluidgate.gateway.client.dashboard.feed import MOST
from tests.gateway.asynchronous import asynchronous
from tests.gateway.served import Live, live_gateway

EVENTS = "/v1/plan/events"
KEY = "let-me-in"
KEYS = f'[[keys]]\nname = "ours"\nsha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n'


async def event(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next of a stream."""
    async with asyncio.timeout(30):
        while not (line := await answer.content.readline()).startswith(b"data: "):
            assert line, "the stream has ended"
    told: dict[str, Any] = json.loads(line[6:])
    return told


@asynchronous
async def test_the_page_is_one_file_that_asks_for_nothing_else(tmp_path: Path) -> None:
    async with live_gateway(tmp_path, more=KEYS) as live:
        page = await live.get("/")
        head = await live.session.head(live.url + "/")
    assert (page.status, page.content, head.status) == (200, PAGE, 200)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert head.headers["content-length"] == str(len(PAGE))
    text = PAGE.decode()
    assert not re.search(r"(?i)(https?:|ftp:|wss?:)?//\w+[.:]\w", re.sub(r"(?m)^\s*//.*$", "", text))
    assert not re.search(r"(?i)<(script|iframe|img|object|embed)[^>]+src\s*=|@import|url\(|import\s*\(", text)
    assert re.findall(r'(?:href|src|action)="([^"]*)"', text) == re.findall(r'href="(data:[^"]*)"', text)
    assert re.findall(r'fetch\("([^"]*)"', text) == [EVENTS.removeprefix("/")], "relative: proxies may prefix it"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
    assert 'style="' not in text, "the policy forbids them"


@asynchronous
async def test_the_policy_lets_the_page_do_what_it_does_and_no_more(tmp_path: Path) -> None:
    async with live_gateway(tmp_path) as live:
        policy = (await live.get("/")).headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    for element in ("script", "style"):
        (inside,) = re.findall(rf"<{element}>(.*?)</{element}>".encode(), PAGE, re.DOTALL)
        digest = b64encode(hashlib.sha256(inside).digest()).decode()
        assert rules.pop(f"{element}-src") == f"'sha256-{digest}'"
    assert rules == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@asynchronous
async def test_events_say_what_goes_on_now_and_how_fast(tmp_path: Path) -> None:
    async with live_gateway(tmp_path) as live, live.session.get(live.url + EVENTS) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        first = await event(answer)
        await asyncio.gather(*(live.complete(4) for _ in range(3)))
        await live.until(lambda: len(live.records()) == 3)
        second = await event(answer)
        while second["groups"][0]["rates"]["classes"]["chat"]["completions"] == 0.0:
            second = await event(answer)
        plan = (await live.get("/v1/plan")).json
    (before,), (after,) = first["groups"], second["groups"]
    assert first["schema"] == 1
    assert abs(first["time"] - time.time()) < 60.0
    assert before["rates"] is None
    assert after.keys() - {"rates"} == plan.keys() - {"groups"}
    assert [each["url"] for each in after["engines"]] == [server.url for server in live.engines]
    rates = after["rates"]
    chat = rates["classes"]["chat"]
    assert rates["seconds"] >= 0.5
    for name, total in (("arrivals", 3), ("completions", 3), ("output_tokens", 12)):
        assert chat[name] * rates["seconds"] == pytest.approx(total), name
    assert chat["ttft"]["p50"] is not None
    assert "keys" not in second


@asynchronous
async def test_the_stream_asks_for_a_key_where_clients_must_have_one(tmp_path: Path) -> None:
    async with live_gateway(tmp_path, more=KEYS) as live:
        assert (await live.get(EVENTS)).status == 401
        assert (await live.get(EVENTS, {"authorization": "Bearer another"})).status == 401
        async with live.session.get(live.url + EVENTS, headers={"authorization": f"Bearer {KEY}"}) as answer:
            assert (await event(answer))["groups"]


@asynchronous
async def test_other_methods(tmp_path: Path) -> None:
    async with live_gateway(tmp_path) as live:
        for path in ("/", EVENTS):
            head = await live.session.head(live.url + path)
            assert (head.status, await head.read()) == (200, b"")
            async with live.session.post(live.url + path) as answer:
                assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@asynchronous
async def test_so_many_may_listen_and_a_place_is_free_again_when_one_leaves(tmp_path: Path) -> None:
    async with live_gateway(tmp_path) as live:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            answers = await asyncio.gather(*(session.get(live.url + EVENTS) for _ in range(MOST)))
            assert {answer.status for answer in answers} == {200}
            refused = await live.get(EVENTS)
            assert (refused.status, refused.json["error"]["code"]) == (503, "too_many_listeners")
            assert int(refused.headers["retry-after"]) > 0
            answers[0].close()
            assert await joins(live)


async def joins(live: Live) -> bool:
    """Whether a further listener is let in, soon."""
    async with asyncio.timeout(20):
        while True:
            async with live.session.get(live.url + EVENTS) as answer:
                if answer.status == 200:
                    return True
            await asyncio.sleep(0.02)


@asynchronous
async def test_a_gateway_that_leaves_ends_its_streams(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        async with live_gateway(tmp_path) as live:
            answer = await session.get(live.url + EVENTS)
            await event(answer)
        await answer.content.read()  # would raise if it were cut off


@asynchronous
async def test_streams_end_when_the_file_is_read_anew_since_keys_may_have_gone(tmp_path: Path) -> None:
    admin = f'[admin]\nsha256 = "{hashlib.sha256(b"root").hexdigest()}"\n'
    async with live_gateway(tmp_path, more=admin) as live, live.session.get(live.url + EVENTS) as answer:
        await event(answer)
        path = tmp_path / "gateway.toml"
        path.write_text(path.read_text() + KEYS)
        headers = {"authorization": "Bearer root"}
        async with live.session.post(live.url + "/admin/reload", headers=headers) as reloaded:
            assert reloaded.status == 200, await reloaded.text()
        async with asyncio.timeout(20):
            await answer.content.read()
        assert (await live.get(EVENTS)).status == 401
