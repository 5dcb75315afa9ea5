"""A stream handed on: nothing before its first token, all afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fluidgate.gateway.client.response import Response
from fluidgate.gateway.client.stream_relay import StreamRelay
from fluidgate.gateway.engines import EngineUnreachable
from tests.gateway.asynchronous import asynchronous

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"choices":[{"text":"a","index":0}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"completion_tokens":7}}\n\n'
FAILED = b'data: {"error":{"message":"out of memory"}}\n\n'
DONE = b"data: [DONE]\n\n"


class FakeAnswer:
    """An engine's answer of these chunks, which may break off."""

    status = 200
    headers: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, *chunks: bytes, breaks: bool = False) -> None:
        self._chunks = chunks
        self._breaks = breaks

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._breaks:
            raise EngineUnreachable("http://a", "gone", taken=True)


class Relayed:
    """A relay, what its client has got, and the number of tokens when that began."""

    def __init__(self, *, drop_usage: bool = False) -> None:
        self.sent = b""
        self.began: list[int] = []
        self.relay = StreamRelay(
            Response(self.send, ""), "/v1/completions", begins=self.began.append, drop_usage=drop_usage
        )

    async def send(self, message: dict[str, Any]) -> None:
        self.sent += message.get("body", b"")

    async def run(self, answer: FakeAnswer) -> None:
        await self.relay.run(answer)  # type: ignore[arg-type]


@asynchronous
async def test_it_begins_with_the_first_token() -> None:
    relayed = Relayed()
    await relayed.run(FakeAnswer(ROLE, TOKEN, TOKEN, DONE))
    assert relayed.sent == ROLE + TOKEN + TOKEN + DONE
    assert relayed.began == [1]
    assert (relayed.relay.counter.tokens, relayed.relay.counter.finished) == (2, True)


@asynchronous
async def test_an_empty_answer_begins_with_its_end() -> None:
    relayed = Relayed()
    await relayed.run(FakeAnswer(ROLE, DONE))
    assert (relayed.began, relayed.sent) == ([0], ROLE + DONE)


@asynchronous
async def test_before_the_first_token_an_engine_fails_unseen() -> None:
    relayed = Relayed()
    with pytest.raises(EngineUnreachable):
        await relayed.run(FakeAnswer(ROLE, breaks=True))
    await relayed.run(FakeAnswer(FAILED, DONE))
    assert (relayed.began, relayed.sent) == ([], b"")


@asynchronous
async def test_a_connection_that_breaks_after_the_end_is_no_failure() -> None:
    relayed = Relayed()
    await relayed.run(FakeAnswer(TOKEN, DONE, breaks=True))
    assert relayed.relay.counter.finished


@asynchronous
async def test_usage_that_the_client_did_not_want_is_counted_and_kept() -> None:
    relayed = Relayed(drop_usage=True)
    await relayed.run(FakeAnswer(TOKEN, USAGE[:20], USAGE[20:] + DONE[:5], DONE[5:]))
    assert relayed.sent + relayed.relay.rest == TOKEN + DONE
    assert relayed.relay.counter.tokens == 7
