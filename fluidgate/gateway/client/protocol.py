"""HTTP/1.1 as the gateway speaks it: bounded heads, a large send buffer, and errors in OpenAI's form."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with a send buffer that holds most answers whole: a slow client keeps no engine's slot.

    A client that does not read is cut off after a while, heads are bounded, and what is no HTTP is answered in the form
    of OpenAI's errors.
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

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=SEND_BUFFER, low=SEND_BUFFER // 4 * 3)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel_cut_off()

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
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._between:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = UPGRADE.sub(b"", head) + end + rest
        super().data_received(data)
        if self._in_head and not self._refused and not self.transport.is_closing():
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """What came is no request; nothing on this connection is trusted any more."""
        if self._head > HEAD_BYTES:
            error = ApiError(431, "headers_too_large", f"the headers are longer than {HEAD_BYTES} bytes")
        else:
            error = ApiError(400, "invalid_http", "this is no HTTP request")
        self._report_refused(RefusedRequest(error.status, error.reason))
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
            return
        self._refused = True
        self.transport.write(whole_response(error))
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)


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
