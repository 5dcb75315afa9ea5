"""Several emulated engines in one event loop, each with a port of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from fluidgate.emulator.api import application
from fluidgate.emulator.engine import Clock
from fluidgate.emulator.server import EngineServer
from fluidgate.emulator.settings import EngineRole, EngineSettings
from fluidgate.errors import FluidgateError

LAST_PORT = 65535


@asynccontextmanager
async def serve_engines(
    settings: EngineSettings,
    count: int = 1,
    *,
    roles: Sequence[EngineRole] = (),
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[list[EngineServer]]:
    """Serve engines from the running event loop, until the context is left.

    Args:
        count: how many.
        roles: of the first, the second and so on, and over again; by default that of the settings.
        port: of the first, the others follow; 0 for any free ports.

    Raises:
        FluidgateError: a port is taken, or there are none so high.
    """
    if count < 1:
        raise FluidgateError(f"--count: must be at least 1, but is {count}")
    if port + count - 1 > LAST_PORT:
        raise FluidgateError(f"engine: {count} ports from {port} on go beyond {LAST_PORT}; give a lower --port")
    clock = Clock(settings.speed)
    servers = []
    for k in range(count):
        own = replace(settings, role=roles[k % len(roles)]) if roles else settings
        if own.kv_events:
            own = replace(own, kv_events=own.kv_events + k * own.data_parallel)
        servers.append(EngineServer(own, clock, host, port + k if port else 0, application))
    async with AsyncExitStack() as stack:
        for server in servers:
            server.siblings = servers
            stack.push_async_callback(server.close)
            await server.listen()
        yield servers
