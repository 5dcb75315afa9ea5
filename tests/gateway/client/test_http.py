"""HTTP as the standards have it, from clients of every age and haste."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fluidgate.errors import FluidgateError
from fluidgate.gateway.client import asgi, protocol
from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.content_encoding import decompressed
from fluidgate.gateway.client.end_points import END_POINTS
from tests.gateway.asynchronous import asynchronous
from tests.gateway.client.test_requests import GOOD, message, raw
from tests.gateway.moody_engine import MoodyEngine, before_moody_engines
from tests.gateway.served import Live, live_gateway, scenario, settings_of

BODY = json.dumps(GOOD).encode()
LENGTH = b"content-length: %d\r\n" % len(BODY)
ORIGIN = "https://chat.example.org"


@asynchronous
async def test_head_is_there_wherever_get_is(tmp_path: Path) -> None:
    async with live_gateway(tmp_path) as live:
        for page in ("/health", "/ready", "/metrics", "/v1/models", "/v1/models/emulated", "/v1/plan"):
            async with live.session.head(live.url + page) as head, live.session.get(live.url + page) as got:
                assert (head.status, await head.read()) == (got.status, b"")
                assert head.headers["content-type"] == got.headers["content-type"]
                assert int(head.headers["content-length"]) > 0
        async with live.session.head(live.url + "/v1/completions") as head:
            assert (head.status, head.headers["allow"]) == (405, "POST, OPTIONS")


@asynchronous
async def test_options_tell_the_methods(tmp_path: Path) -> None:
    async with live_gateway(tmp_path) as live:
        for path, allowed in (*((path, "POST, OPTIONS") for path in END_POINTS), ("/health", "GET, HEAD, OPTIONS")):
            async with live.session.options(live.url + path, headers={"origin": ORIGIN}) as answer:
                assert (answer.status, answer.headers["allow"]) == (204, allowed)
                assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        async with live.session.options(live.url + "/nothing") as answer:
            assert answer.status == 404
        assert b" 204 " in await raw(live, message(b"", line=b"OPTIONS * HTTP/1.1"))


@pytest.mark.parametrize("origins", [[ORIGIN], ["*"]])
@asynchronous
async def test_pages_of_other_origins_may_call_if_the_file_says_so(tmp_path: Path, origins: list[str]) -> None:
    async with before_moody_engines(tmp_path, server=f"cors_origins = {json.dumps(origins)}") as (live, _):
        asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, x-class"}
        allows = origins[0]
        async with live.session.options(f"{live.url}/v1/completions", headers={"origin": ORIGIN, **asks}) as answer:
            assert answer.status == 204
            assert answer.headers["access-control-allow-origin"] == allows
            assert "POST" in answer.headers["access-control-allow-methods"]
            assert answer.headers["access-control-allow-headers"] == "authorization, x-class"
        for body in (GOOD, GOOD | {"max_tokens": 0}, GOOD | {"stream": True}):
            reply = await live.post(headers={"origin": ORIGIN}, **body)
            assert reply.headers["access-control-allow-origin"] == allows
            assert "x-fluidgate-reason" in reply.headers["access-control-expose-headers"]
        stranger = {"origin": "https://evil.example.org"}
        async with live.session.options(f"{live.url}/v1/completions", headers=stranger | asks) as answer:
            assert ("access-control-allow-origin" in answer.headers) == (origins == ["*"])
        reply = await live.post(headers=stranger, **GOOD)
        assert ("access-control-allow-origin" in reply.headers) == (origins == ["*"])
        assert (reply.headers.get("vary") == "origin") == (origins != ["*"])


def test_an_origin_has_no_path(tmp_path: Path) -> None:
    with pytest.raises(FluidgateError, match=r"server.cors_origins\[0\]: .* is no origin; give one such as"):
        settings_of(tmp_path, ["http://a"], scenario(), server='cors_origins = ["https://a.org/chat"]')


def bare(data: bytes) -> bytes:
    """As some clients understand "deflate"."""
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


@asynchronous
async def test_bodies_may_come_compressed(tmp_path: Path) -> None:
    async with live_gateway(tmp_path, more="[limits]\nmax_body_bytes = 100000\n") as live:

        async def status(body: bytes, encoding: str) -> tuple[int, str]:
            reply = await live.send("/v1/completions", body, {"content-encoding": encoding})
            return reply.status, reply.headers.get("x-fluidgate-reason", "")

        for body, encoding in (
            (gzip.compress(BODY), "gzip"),
            (gzip.compress(BODY), "GZIP"),
            (zlib.compress(BODY), "deflate"),
            (bare(BODY), "deflate"),
            (BODY, "identity"),
        ):
            assert await status(body, encoding) == (200, "")
        bomb = gzip.compress(json.dumps(GOOD | {"prompt": "a" * 50_000_000}).encode())
        assert len(bomb) < 100_000
        assert await status(bomb, "gzip") == (413, "body_too_large")
        for body in (BODY, gzip.compress(BODY)[:-9], gzip.compress(BODY) * 2, b""):
            assert await status(body, "gzip") == (400, "invalid_request")
        for encoding in ("br", "zstd", "gzip, gzip"):
            assert await status(BODY, encoding) == (415, "unsupported_encoding")
        reply = await live.send("/v1/completions", BODY, {"content-encoding": "br"})
        assert "'br'" in reply.json["error"]["message"]
        assert reply.headers["accept-encoding"] == "gzip, deflate"


def test_no_more_is_decompressed_than_may_be_read() -> None:
    bomb = gzip.compress(bytes(100 << 20))
    started = time.process_time()
    assert decompressed(bomb, "gzip", 1 << 16) is None
    assert time.process_time() - started < 0.1
    with pytest.raises(ApiError):
        decompressed(b"no gzip", "gzip", 100)


@asynchronous
async def test_a_byte_order_mark_before_the_json_is_no_error(tmp_path: Path) -> None:
    async with live_gateway(tmp_path) as live:
        assert (await live.send("/v1/completions", b"\xef\xbb\xbf" + BODY)).status == 200


@asynchronous
async def test_clients_of_http_1_0_get_no_chunks(tmp_path: Path) -> None:
    async with live_gateway(tmp_path) as live:
        line = b"POST /v1/completions HTTP/1.0"
        streamed = json.dumps(GOOD | {"stream": True, "ignore_eos": True}).encode()
        sent = message(b"content-length: %d\r\n" % len(streamed), streamed, line=line)
        head, _, content = (await raw(live, sent)).partition(b"\r\n\r\n")
        assert b" 200 " in head
        assert b"transfer-encoding" not in head.lower()
        assert content.startswith(b"data: {")
        assert content.endswith(b"data: [DONE]\n\n")
        head, _, content = (await raw(live, message(LENGTH, BODY, line=line))).partition(b"\r\n\r\n")
        assert b"content-length: %d" % len(content) in head
        assert json.loads(content)["object"] == "text_completion"
        for page in (b"GET /health HTTP/1.0", b"HEAD /health HTTP/1.0", b"OPTIONS /health HTTP/1.0"):
            assert (await raw(live, page + b"\r\n\r\n")).split(b" ")[1] in (b"200", b"204")
        expecting = message(LENGTH + b"expect: 100-continue\r\n", BODY, line=line)
        assert b" 200 " in (await raw(live, expecting))[:15]
        await live.until(live.at_rest)


async def half_sent(live: Live, sent: bytes) -> bytes:
    """What a client gets that sends no more than this."""
    async with asyncio.timeout(20.0):
        return await raw(live, sent)


@asynchronous
async def test_heads_and_bodies_that_do_not_end_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.3)
    async with live_gateway(tmp_path) as live:
        assert await half_sent(live, b"") == b"", "who says nothing is told nothing"
        begun = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"
        for sent in (b"PO", begun, begun + LENGTH + b"\r\n" + BODY[:5]):
            head, _, content = (await half_sent(live, sent)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408 ")
            assert b"x-fluidgate-reason: request_timeout" in head
            assert json.loads(content)["error"]["code"] == "request_timeout"
        # A connection that is kept, and between two requests, may be idle for longer; its next head may not.
        host, port = live.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        asked = begun + LENGTH + b"\r\n" + BODY
        for _ in range(2):
            writer.write(asked)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            await asyncio.sleep(0.6)
        writer.write(begun)
        async with asyncio.timeout(20.0):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        assert (await live.complete(2)).done


@asynchronous
async def test_a_stalled_body_may_come_as_slowly_as_the_least_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(asgi, "LEAST_RATE", 10.0)
    sent = 0

    async def receive() -> dict[str, object]:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.1)
        return {"type": "http.request", "body": b"x" * (10 if sent < 5 else 0), "more_body": sent != 5}

    assert await asgi.read_body([], receive, 1000) == b"x" * 40, "0.5 s, and its bytes give it 4.2 s"
    sent = 5
    with pytest.raises(ApiError) as raised:
        await asgi.read_body([], receive, 1000)
    assert (raised.value.status, raised.value.reason) == (408, "request_timeout")


EVENTS = [b'{"choices":[{"index":0,"text":"a","finish_reason":null}]}'] * 3
USAGE = b'{"choices":[],"usage":{"completion_tokens":3}}'


@dataclass
class LineEngine(MoodyEngine):
    """Ends the lines of its streams as it is told."""

    ending: bytes = b"\n"

    async def answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not body.get("stream"):
            return await super().answer(request, body)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for data in (*EVENTS, USAGE, b"[DONE]"):
            await response.write(b"data: " + data + self.ending * 2)
        return response


@pytest.mark.parametrize("ending", [b"\r\n", b"\r", b"\n"], ids=["CRLF", "CR", "LF"])
@asynchronous
async def test_a_stream_may_end_its_lines_in_any_way(tmp_path: Path, ending: bytes) -> None:
    async with before_moody_engines(tmp_path, make=lambda: LineEngine(ending=ending)) as (live, _):
        for wants in (False, True):
            reply = await live.post(prompt="a", stream=True, stream_options={"include_usage": wants})
            expected = (*EVENTS, USAGE, b"[DONE]") if wants else (*EVENTS, b"[DONE]")
            assert reply.content == b"".join(b"data: " + data + ending * 2 for data in expected)
        await live.until(live.idle)
        assert [(r["outcome"], r["output_tokens"]) for r in live.records()] == [("completed", 3)] * 2
