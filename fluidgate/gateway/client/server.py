"""The HTTP server: listens, serves, and leaves without losing anyone."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import cast

import uvicorn

from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.frontend import Frontend
from fluidgate.gateway.client.protocol import Protocol
from fluidgate.gateway.gateway_file import GatewaySettings

log = logging.getLogger("fluidgate.gateway")

BACKLOG = 2048
"""Connections that may wait to be accepted."""


class Server(uvicorn.Server):
    """Drains on the first signal: nothing new is taken, what is under way ends, the rest is told so."""

    def __init__(
        self, config: uvicorn.Config, *, drain: Callable[[], None], break_off: Callable[[], None], seconds: float
    ) -> None:
        """
        Args:
            drain: takes nothing new; `break_off` ends what is still under way, after so many seconds.
        """
        super().__init__(config)
        self._drain = drain
        self._break_off = break_off
        self._seconds = seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._break_off()
        else:
            log.info("draining: requests under way get %g s", self._seconds)
            self._drain()
            asyncio.get_running_loop().call_later(self._seconds, self._break_off)
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


def server_of(settings: GatewaySettings, frontend: Frontend, *, drain: Callable[[], None]) -> Server:
    """The server of a gateway's HTTP side; `drain` is called on the first signal."""
    seconds = settings.server.drain_seconds
    protocol = partial(Protocol, refused=frontend.refused, client_seconds=settings.server.client_seconds)
    config = uvicorn.Config(
        frontend.app,
        http=cast("type[Protocol]", protocol),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(seconds) + 5,
    )
    return Server(config, drain=drain, break_off=frontend.break_off, seconds=seconds)
