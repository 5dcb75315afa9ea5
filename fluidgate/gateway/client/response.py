"""The way back to a client: one answer, begun once, ended once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import orjson

from fluidgate.gateway.client.api_error import REASON_HEADER, ApiError
from fluidgate.gateway.client.asgi import Send
from fluidgate.gateway.client.dialect import Dialect

Headers = Mapping[str, str]
Pairs = Sequence[tuple[bytes, bytes]]

EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
"""Headers of a stream that begins with a ping."""

PING = b": ping\n\n"

OURS = ("x-request-id", "access-control-")
"""What headers of an engine that are not handed on begin with."""


class Response:
    """Sends an answer.

    Attributes:
        status: of HTTP, 0 before anything was sent.
        begun: whether the answer itself has begun; pings may have gone before it.
        ended: whether its last byte has been handed over.
    """

    def __init__(self, send: Send, request_id: str, *, dialect: Dialect = Dialect.OPENAI, headers: Pairs = ()) -> None:
        """
        Args:
            request_id: sent back as `X-Request-Id`, unless it is "".
            dialect: of errors; `headers`, further ones of every answer.
        """
        self.request_id = request_id
        self.status = 0
        self.begun = False
        self.ended = False
        self._send = send
        self._dialect = dialect
        self._headers = headers
        self._opening = asyncio.Lock()

    def add_headers(self, headers: Headers) -> None:
        """Further headers of the gateway's own; they go in the place of an engine's."""
        self._headers = [*self._headers, *_encoded(headers)]

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """An answer in one piece."""
        await self.begin(status, {**headers, "content-length": str(len(body))})
        await self.end(body)

    async def begin(self, status: int, headers: Headers) -> None:
        self.begun = True
        async with self._opening:
            if not self.status:
                await self._start(status, headers)

    async def ping(self) -> None:
        """Show a client that waits for a stream that it is not forgotten; nothing once the answer has begun."""
        async with self._opening:
            if self.begun or self.ended:
                return
            if not self.status:
                await self._start(200, EVENTS)
            await self._send({"type": "http.response.body", "body": PING, "more_body": True})

    async def more(self, chunk: bytes) -> None:
        """A further piece; waits while the client's buffer is full."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, last: bytes = b"") -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": last, "more_body": False})

    async def fail(self, error: ApiError) -> None:
        """End with an error: as the answer, or as the last event of a stream that has begun."""
        if self.ended:
            return
        async with self._opening:
            self.begun = True
        if self.status:
            await self.end(self._dialect.event(error))
        else:
            own = {"content-type": "application/json", REASON_HEADER: error.reason}
            await self.whole(error.status, own | error.headers, self._dialect.body(error))

    async def refuse(self, status: int, headers: Headers, body: bytes) -> None:
        """Hand on an error as an engine has said it: as the answer, or as the last event of a stream."""
        async with self._opening:
            self.begun = True
        if not self.status:
            await self.whole(status, headers, body)
            return
        try:
            line = orjson.dumps(orjson.loads(body))
        except orjson.JSONDecodeError:
            said = body[:1000].decode(errors="replace")
            line = self._dialect.body(ApiError(status, "engine_refused", said))
        await self.end(self._dialect.as_event(line))

    async def _start(self, status: int, headers: Headers) -> None:
        named = [(b"x-request-id", self.request_id.encode("latin-1"))] if self.request_id else []
        ours = {name for name, _ in self._headers}
        lines = [*(pair for pair in _encoded(headers) if pair[0] not in ours), *named, *self._headers]
        await self._send({"type": "http.response.start", "status": status, "headers": lines})
        self.status = status


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode(), value.encode("latin-1", "replace"))
        for name, value in headers.items()
        if not name.startswith(OURS)
    ]
