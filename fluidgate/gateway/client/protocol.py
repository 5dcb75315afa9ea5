"""HTTP/1.1 as the gateway speaks it: bounded heads, a large send buffer, and errors in OpenAI's form."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fluidgate.gateway.client.api_error import REASON_HEADER, ApiError
from fluidgate.gateway.ended import RefusedRequest

SEND_BUFFER = 4 << 20
"""Bytes that a client may be behind before its own stream waits for it."""

LINGER = 1.0
"""s for which what a refused client still sends is read and dropped: closed at once, it would never see the answer."""

UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)
"""The offer of another protocol, which is not taken up; the parser would read no body after it."""

HEAD_BYTES = 64 << 10
"""The longest request line and headers together."""

HEAD_SECONDS = 60.0
"""s within which a new connection must send a head, and any head that has begun must end."""

ENDLESS = 1 << 62
"""Bytes of an answer whose length is not known."""


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with a send buffer that holds most answers whole: a slow client keeps no engine's slot.

    A client that does not read is cut off after a while, heads are bounded in length and time, and what is no HTTP is
    answered in the form of OpenAI's errors. Clients of HTTP/1.0 get no chunks: their answer ends with the connection.
    """

    def __init__(
        self, *arguments: Any, refused: Callable[[RefusedRequest], None], client_seconds: float, **keywords: Any
    ) -> None:
        """
        Args:
            arguments, keywords: of uvicorn's own protocol.
            refused: called with what is refused as it is no HTTP.
            client_seconds: how long a client may let a full send buffer stand, s.
        """
        super().__init__(*arguments, **keywords)
        self._report_refused = refused
        self._client_seconds = client_seconds
        self._head = 0
        self._in_head = True
        self._between = True
        self._refused = False
        self._cut_off: asyncio.TimerHandle | None = None
        self._head_end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=SEND_BUFFER, low=SEND_BUFFER // 4 * 3)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel_cut_off()
        self._cancel_head_end()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._cut_off = self.loop.call_later(self._client_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_cut_off()

    def _cancel_cut_off(self) -> None:
        if self._cut_off is not None:
            self._cut_off.cancel()
            self._cut_off = None

    def _expect_head(self) -> None:
        if self._head_end is None:
            self._head_end = self.loop.call_later(HEAD_SECONDS, self._no_head)

    def _cancel_head_end(self) -> None:
        if self._head_end is not None:
            self._head_end.cancel()
            self._head_end = None

    def _no_head(self) -> None:
        """It has taken too long; a client that has sent nothing is told nothing."""
        self._head_end = None
        if self._refused or self.transport.is_closing():
            return
        if self._between:
            self.transport.close()
        else:
            self._refuse(ApiError(408, "request_timeout", f"the headers did not end within {HEAD_SECONDS:g} s"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._in_head, self._between = 0, True, False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._between = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if self._head > HEAD_BYTES:
            raise ValueError("too long a head")
        old = self.parser.get_http_version() == "1.0"
        if old:
            self.expect_100_continue = False
        if self.url == b"*":
            self.url = b"/*"
        super().on_headers_complete()
        if old:
            unframe(self.cycle)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._between:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = UPGRADE.sub(b"", head) + end + rest
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if not self._in_head:
            self._cancel_head_end()
            return
        self._expect_head()
        self._head += len(data)
        if self._head > HEAD_BYTES:
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """What came is no request; nothing on this connection is trusted any more."""
        if self._head > HEAD_BYTES:
            error = ApiError(431, "headers_too_large", f"the headers are longer than {HEAD_BYTES} bytes")
        else:
            error = ApiError(400, "invalid_http", "this is no HTTP request")
        self._refuse(error)

    def _refuse(self, error: ApiError) -> None:
        self._report_refused(
            RefusedRequest(error.status, error.reason, client=client_of(self.client), error=error.message)
        )
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
            return
        self._refused = True
        self.transport.write(whole_response(error))
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)


def unframe(cycle: RequestResponseCycle) -> None:
    """Let an answer whose length is not known end with the connection, in the place of chunks."""
    send = cycle.send

    async def unframed(message: Any) -> None:
        if message["type"] == "http.response.start":
            if all(name != b"content-length" for name, _ in message["headers"]):
                cycle.chunked_encoding, cycle.expected_content_length = False, ENDLESS
        elif not message.get("more_body", False) and cycle.expected_content_length > ENDLESS // 2:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = unframed  # type: ignore[method-assign]


def client_of(address: tuple[str, int] | None) -> str:
    """The address of a client as logs have it."""
    return "" if address is None else f"{address[0]}:{address[1]}"


def whole_response(error: ApiError) -> bytes:
    """An error as it goes over the wire."""
    body = error.body()
    lines = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        "content-type: application/json",
        f"{REASON_HEADER}: {error.reason}",
        f"content-length: {len(body)}",
        "connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + body
