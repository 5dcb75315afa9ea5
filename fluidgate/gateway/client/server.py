"""The HTTP server: listens, serves, and leaves without losing anyone."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import cast

import uvicorn

from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.frontend import Frontend
from fluidgate.gateway.client.notify import ServiceManager
from fluidgate.gateway.client.protocol import Protocol
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.gateway_file import GatewaySettings
from fluidgate.shown import several

log = logging.getLogger("fluidgate.gateway")

BACKLOG = 2048
"""Connections that may wait to be accepted."""


class Server(uvicorn.Server):
    """Leaves in three steps: load balancers are told (`/ready`), nothing new is taken, what is under way ends.

    It listens to the end, so that who comes late is told so, too. A second signal ends all at once; SIGHUP reads the
    gateway file anew and opens the log anew.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        gateway: Gateway,
        frontend: Frontend,
        manager: ServiceManager,
        announce: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self._manager = manager
        self._announce = announce
        self._gateway = gateway
        self._frontend = frontend
        self._leaving: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Signals are heeded by now: who is told of the gateway may send one at once."""
        await super().startup(sockets=sockets)
        if self._announce is not None:
            self._announce()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        with super().capture_signals():
            with suppress(NotImplementedError, AttributeError):
                loop.add_signal_handler(signal.SIGHUP, self.reload)
            try:
                yield
            finally:
                with suppress(NotImplementedError, AttributeError):
                    loop.remove_signal_handler(signal.SIGHUP)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._leaving is not None:
            log.warning("leaving at once: broken off: %s", several(self._frontend.under_way, "request"))
            self._frontend.break_off()
            self.should_exit = True
            return
        grace = self._gateway.settings.server.grace_seconds if sig == signal.SIGTERM else 0.0
        loop = asyncio.get_running_loop()
        self._leaving = loop.create_task(self._leave(grace))

    async def _leave(self, grace: float) -> None:
        gateway, seconds = self._gateway, self._gateway.settings.server.drain_seconds
        gateway.drain()
        self._manager.stopping("requests under way end")
        if grace:
            log.info("leaving: /ready says 503; requests are taken for %g s more", grace)
            await asyncio.sleep(grace)
        gateway.close_door()
        log.info("draining: requests under way get %g s; a second signal ends them", seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._frontend.under_way:
                    await asyncio.sleep(0.02)
        if broken := self._frontend.under_way:
            log.warning("leaving: broken off after %g s: %s", seconds, several(broken, "request"))
        else:
            log.info("leaving: no request is under way any more")
        self._frontend.break_off()
        self.should_exit = True

    def reload(self) -> None:
        """Read the gateway file anew, and go on with it if it is right."""
        self._frontend.reopen_log()
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        try:
            with self._manager.reloading():
                await self._frontend.reload()
            log.info("the gateway file has been read anew")
        except FluidgateError as error:
            log.error("%s (what was in force stays)", error)
        except Exception:
            log.exception("the gateway file could not be followed (what was in force stays)")

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
    if settings.server.reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        raise FluidgateError(
            f"{settings.source}: server: can't listen on {host}:{port} ({reason}); give another host or port there, or "
            "--host or --port"
        ) from None
    return sock


def server_of(
    settings: GatewaySettings,
    gateway: Gateway,
    frontend: Frontend,
    manager: ServiceManager | None = None,
    announce: Callable[[], None] | None = None,
) -> Server:
    """The server of a gateway's HTTP side.

    Args:
        manager: is told of what it does.
        announce: called once requests are taken.
    """
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
        timeout_graceful_shutdown=5,
    )
    return Server(config, gateway, frontend, manager or ServiceManager(), announce)


def raise_file_limit() -> None:
    """Let this process open as many files as it may: a connection is a file."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
