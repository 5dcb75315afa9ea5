"""The gateway's process: listens, serves, and leaves without losing anyone."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fluidgate.errors import FluidgateError
from fluidgate.gateway.app import App
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.gateway_file import LOOPBACK, GatewaySettings

log = logging.getLogger("fluidgate.gateway")

SEND_BUFFER = 4 << 20
"""Bytes that a client may be behind before its own stream waits for it."""

BACKLOG = 2048


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with a send buffer that holds most answers whole: a slow client keeps no engine's slot."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=SEND_BUFFER)


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
        if started is not None:
            started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await server_of(gateway).serve(sockets=[sock])
    finally:
        await gateway.close()
        sock.close()


def server_of(gateway: Gateway) -> Server:
    config = uvicorn.Config(
        App(gateway),
        http=Protocol,
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
