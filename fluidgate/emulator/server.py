"""An emulated engine on a port: it listens, dies and comes back."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from fluidgate.emulator.engine import Clock, Engine
from fluidgate.emulator.kv_events import KvPublisher
from fluidgate.emulator.settings import EngineSettings
from fluidgate.emulator.transfer import Remote, fetch
from fluidgate.errors import FluidgateError

log = logging.getLogger("fluidgate")

KEEP_ALIVE = 5
"""Seconds after which an idle connection is closed, as vLLM does."""

FAREWELL = 0.05
"""Seconds between the answer to `/admin/kill` and the end."""


class Connection(HttpToolsProtocol):
    """A connection whose transport the application can reach, to cut it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["transport"] = self.transport  # type: ignore[typeddict-unknown-key]


class EngineServer:
    """One engine and the port it listens on.

    Args:
        application: makes the API that is served, out of this server.

    Attributes:
        engine: what serves at present; a new one after `revive`.
        siblings: all servers of the cluster, this one among them.
        kv_event_ports: on which its ranks tell KV events, once it listens.
    """

    def __init__(
        self,
        settings: EngineSettings,
        clock: Clock,
        host: str,
        port: int,
        application: Callable[[EngineServer], ASGIApp],
    ) -> None:
        self.settings = settings
        self.engine = Engine(settings, clock)
        self.siblings: list[EngineServer] = [self]
        self.host = host
        self.port = port
        self.kv_event_ports: list[int] = []
        self._clock = clock
        self._listener: asyncio.Server | None = None
        self._publishers: list[KvPublisher] = []
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._state = ServerState()
        self._state.default_headers = [(b"server", b"fluidgate-engine")]
        self._config = uvicorn.Config(
            application(self),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        self._config.load()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether it accepts connections."""
        return self._listener is not None

    def session(self) -> aiohttp.ClientSession:
        """For requests to other engines."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._session

    @property
    def state(self) -> dict[str, Any]:
        """As `GET /admin/state` answers it."""
        return self.engine.state()

    async def listen(self) -> None:
        """Accept connections; on a free port if `port` is 0.

        Raises:
            FluidgateError: the port is taken, or the host is not ours.
        """
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(self._connection, self.host, self.port, backlog=1024)
        except (OSError, OverflowError) as error:
            mend = "--port" if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES) else "--host"
            raise FluidgateError(
                f"engine: cannot listen on {self.host} port {self.port} ({_reason(error)}); give another {mend}"
            ) from None
        self.port = self._listener.sockets[0].getsockname()[1]
        self._tell_kv_events()

    def _tell_kv_events(self) -> None:
        """Each rank on a port of its own, the same after a revival."""
        first = self.settings.kv_events
        if first is None:
            return
        assert self._listener is not None
        host = self._listener.sockets[0].getsockname()[0]
        ports = self.kv_event_ports or [first + k if first else 0 for k in range(self.settings.data_parallel)]
        self._publishers = [KvPublisher(host, port, rank) for rank, port in enumerate(ports)]
        self.kv_event_ports = [publisher.port for publisher in self._publishers]
        self.engine.tell_kv_events([publisher.publish for publisher in self._publishers])

    def kill(self) -> None:
        """Die at once: no port, no connections, no KV, nothing in progress."""
        self.engine.stop()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for publisher in self._publishers:
            publisher.close()
        self._publishers = []
        for connection in list(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        if self._session is not None:
            session, self._session = self._session, None
            self._keep(asyncio.ensure_future(session.close()))

    def kill_soon(self, seconds: float | None) -> None:
        """Die once the answer to the request under way is out, and come back after `seconds` of the engine, if any."""
        self._keep(asyncio.ensure_future(self._die_and_return(seconds)))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _die_and_return(self, seconds: float | None) -> None:
        await asyncio.sleep(FAREWELL)
        log.info("engine on port %d: killed", self.port)
        self.kill()
        if seconds is not None:
            await asyncio.sleep(seconds / self.settings.speed)
            await self.revive()

    async def close(self) -> None:
        """Stop for good."""
        for task in list(self._tasks):
            task.cancel()
        self.kill()
        await asyncio.gather(*self._state.tasks, *self._tasks, return_exceptions=True)

    async def revive(self) -> None:
        """Come back on the same port as a new engine, its memory empty; nothing if it is alive.

        Raises:
            FluidgateError: the port has been taken meanwhile.
        """
        if not self.alive:
            self.engine = Engine(self.settings, self._clock)
            await self.listen()

    def fault(self, kind: str, value: float | None = None, requests: int | None = None) -> None:
        """Let a fault stand against the next requests, or against all if None.

        Raises:
            BadFault: no such fault, or a value out of its range.
        """
        self.engine.faults.add(kind, value, requests)
        if kind == "lose-kv":
            self.engine.lose_kv()

    def become(self, model: str) -> None:
        """Serve another model, here and after a revival."""
        self.engine.become(model)
        self.settings = self.engine.settings

    def release(self, remote: Remote) -> None:
        """Have another engine let go of the KV of a request that was refused here, as vLLM does."""
        self._keep(asyncio.ensure_future(fetch(self.session(), remote)))

    def clear_faults(self) -> None:
        """No fault stands any more."""
        self.engine.faults.clear()

    def _connection(self) -> Connection:
        return Connection(config=self._config, server_state=self._state, app_state={})


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "unknown host"
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)
