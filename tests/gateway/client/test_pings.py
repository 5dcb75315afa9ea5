"""Signs of life on streams that wait, and what becomes of refusals after them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.dialect import Dialect
from fluidgate.gateway.client.pings import pinged
from fluidgate.gateway.client.response import PING, Response
from tests.gateway.asynchronous import asynchronous
from tests.gateway.moody_engine import before_moody_engines
from tests.gateway.served import Live, Reply
from tests.gateway.versed_engine import VersedEngine

PINGS = "ping_seconds = 0.05"
SLOW: dict[str, Any] = {"prompt": "a", "user": "hangs", "stream": True}


class Sent:
    """What a response has sent."""

    def __init__(self, dialect: Dialect = Dialect.OPENAI) -> None:
        self.status = 0
        self.body = b""
        self.response = Response(self.send, "id", dialect=dialect)

    async def send(self, message: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


@asynchronous
async def test_pings_go_before_the_answer_and_never_into_it() -> None:
    sent = Sent()
    async with pinged(sent.response, 0.01):
        while sent.body.count(PING) < 3:
            await asyncio.sleep(0.01)
        await sent.response.begin(200, {})
        before = sent.body
        for piece in (b"data: {", b"}\n\n"):
            await sent.response.more(piece)
            await asyncio.sleep(0.05)
        await sent.response.end()
    assert sent.body == before + b"data: {}\n\n"
    assert (sent.status, sent.response.status) == (200, 200)


@asynchronous
async def test_no_pings_without_a_wish_for_them() -> None:
    sent = Sent()
    async with pinged(sent.response, 0.0):
        await asyncio.sleep(0.05)
    assert (sent.status, sent.body) == (0, b"")


@pytest.mark.parametrize("dialect", Dialect)
@asynchronous
async def test_after_a_ping_a_refusal_is_an_event(dialect: Dialect) -> None:
    error = ApiError(429, "wait_limit", "too long")
    for body in (b'{"error":\n{"message": "no"}}', b"<html>"):
        sent = Sent(dialect)
        await sent.response.ping()
        await sent.response.refuse(400, {}, body)
        event = sent.body.removeprefix(PING)
        assert sent.status == 200
        assert event.count(b"\n") == (2 if dialect is Dialect.OPENAI else 3)
        assert b"html" in event or b'{"error":{"message":"no"}}' in event
    told = Sent(dialect)
    await told.response.ping()
    await told.response.fail(error)
    assert told.body == PING + dialect.event(error)


async def waits(live: Live, **more: Any) -> Reply:
    """A request that waits for the only engine, where another prompt is read for ever."""
    other = asyncio.create_task(live.post(**SLOW))
    await live.until(lambda: live.gateway.dispatcher.counts().prefilling.sum() == 1)
    reply = await live.post(**({"prompt": "a", "stream": True} | more))
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    return reply


@asynchronous
async def test_the_longest_wait_holds_and_the_log_says_what_happened(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 1, server=PINGS, more="[limits]\nmax_wait = 0.4\n") as (live, _):
        reply = await waits(live, user="late")
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["x-request-id"].startswith("fg-")
        assert reply.content.count(PING) >= 3
        assert [event["error"]["code"] for event in reply.events] == ["wait_limit"]
        await live.until(live.idle)
        (record,) = (record for record in live.records() if record["outcome"] == "wait_limit")
        assert (record["status"], record["first_token"]) == (200, None)


@asynchronous
async def test_a_whole_answer_is_not_pinged(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 1, server=PINGS, more="[limits]\nmax_wait = 0.3\n") as (live, _):
        reply = await waits(live, stream=False)
        assert (reply.status, reply.headers["x-fluidgate-reason"]) == (429, "wait_limit")
        await live.until(live.idle)


@asynchronous
async def test_what_engines_refuse_after_a_ping_comes_as_they_said_it(tmp_path: Path) -> None:
    class Hesitant(VersedEngine):
        async def answer(self, request, body):  # type: ignore[no-untyped-def]
            if body.get("user") in ("400", "fine"):
                await asyncio.sleep(0.3)
            return await super().answer(request, body)

    async with before_moody_engines(tmp_path, make=Hesitant, server=PINGS, kind="vllm-coupled") as (live, _):
        refused = await live.post(prompt="a", stream=True, user="400")
        assert (refused.status, refused.content[: len(PING)]) == (200, PING)
        assert b'"message":"scripted 400"' in refused.content
        fine = await live.post(prompt="a", stream=True, user="fine")
        assert fine.content.startswith(PING)
        assert fine.done
        anthropic = await live.post("/v1/messages", messages=[{"content": "a"}], stream=True, user="400")
        assert b"event: error\ndata: " in anthropic.content
        await live.until(live.idle)
        assert [(r["status"], r["outcome"]) for r in live.records()] == [
            (200, "engine_refused"),
            (200, "completed"),
            (200, "engine_refused"),
        ]


@asynchronous
async def test_the_official_client_reads_over_pings(tmp_path: Path) -> None:
    class Hesitant(VersedEngine):
        async def answer(self, request, body):  # type: ignore[no-untyped-def]
            await asyncio.sleep(0.2)
            return await super().answer(request, body)

    async with (
        before_moody_engines(tmp_path, make=Hesitant, server=PINGS) as (live, _),
        openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client,
    ):
        stream = await client.completions.create(model="emulated", prompt="a", stream=True)
        assert [chunk.choices[0].text async for chunk in stream] == ["a"]
        with pytest.raises(openai.APIError, match="scripted 400"):
            async for _ in await client.completions.create(model="emulated", prompt="a", stream=True, user="400"):
                pass
