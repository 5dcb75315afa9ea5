"""The gateway's process: listens, serves, and leaves without losing anyone."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from functools import partial
from http import HTTPStatus
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.api_error import REASON_HEADER, ApiError
from fluidgate.gateway.client.app import App
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.gateway_file import LOOPBACK, GatewaySettings

log = logging.getLogger("fluidgate.gateway")

SEND_BUFFER = 4 << 20
"""Bytes that a client may be behind before its own stream waits for it."""

BACKLOG = 2048


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

    def __init__(self, *arguments: Any, gateway: Gateway, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._gateway = gateway
        self._head = 0
        self._in_head = True
        self._between = True
        self._refused = False
        self._impatience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=SEND_BUFFER, low=SEND_BUFFER // 4 * 3)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._be_patient()

    def pause_writing(self) -> None:
        super().pause_writing()
        seconds = self._gateway.settings.server.client_seconds
        self._impatience = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._be_patient()

    def _be_patient(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

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
        self._gateway.note_refusal(error, "", "")
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


class Server(uvicorn.Server):
    """Drains on the first signal: nothing new is taken, what is under way ends, the rest is told so."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._seconds = gateway.settings.server.drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._gateway.break_off()
        else:
            log.info("draining: requests under way get %g s", self._seconds)
            self._gateway.drain()
            asyncio.get_running_loop().call_later(self._seconds, self._gateway.break_off)
        self.should_exit = True

    async def serve_here(self, sock: socket.socket) -> None:
        """Serve without taking the process's signals."""
        await self._serve([sock])


def listening_socket(settings: GatewaySettings) -> socket.socket:
    """A socket bound to the address of the file.

    Raises:
        FluidgateError: it is taken, or not this machine's.
    """
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        raise FluidgateError(
            f"{settings.source}: server: can't listen on {host}:{port} ({reason}); give another"
        ) from None
    return sock


async def serve(settings: GatewaySettings, *, started: Any = None) -> None:
    """Run a gateway until it is told to stop.

    Args:
        started: called with the base URL once requests are taken.

    Raises:
        FluidgateError: it can't start.
    """
    sock = listening_socket(settings)
    gateway = Gateway(settings)
    try:
        await gateway.start()
        host, port = sock.getsockname()[:2]
        if host not in LOOPBACK:
            log.warning("listening on %s: whoever reaches this address reaches the engines", host)
        sock.listen(BACKLOG)  # who reads the URL may come at once
        if started is not None:
            started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await server_of(gateway).serve(sockets=[sock])
    finally:
        await gateway.close()
        sock.close()


def server_of(gateway: Gateway) -> Server:
    config = uvicorn.Config(
        App(gateway),
        http=cast("type[Protocol]", partial(Protocol, gateway=gateway)),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(gateway.settings.server.drain_seconds) + 5,
    )
    return Server(config, gateway)
