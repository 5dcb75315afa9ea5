"""A gateway that runs: as a process of its own, within a running event loop, or only for as long as its checks take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

from fluidgate.gateway.backends import Backends
from fluidgate.gateway.client.frontend import Frontend
from fluidgate.gateway.client.notify import ServiceManager
from fluidgate.gateway.client.server import BACKLOG, listening_socket, server_of
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.gateway_file import LOOPBACK, GatewaySettings

log = logging.getLogger("fluidgate.gateway")


async def serve(settings: GatewaySettings, *, started: Callable[[str], None] | None = None) -> None:
    """Run a gateway until it is told to stop.

    Args:
        started: called with the base URL once requests are taken.

    Raises:
        FluidgateError: it can't start.
    """
    manager = ServiceManager.from_environment()
    with closing(listening_socket(settings)) as sock:
        manager.status("looking for the engines")
        async with started_gateway(settings) as (gateway, frontend):
            host, port = sock.getsockname()[:2]
            if host not in LOOPBACK:
                log.warning("listening on %s: whoever reaches this address reaches the engines", host)
            sock.listen(BACKLOG)  # who reads the URL may come at once
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

            def drain() -> None:
                manager.stopping("requests under way end")
                gateway.drain()

            manager.ready(f"gateway on {url}")
            if started is not None:
                started(url)
            await server_of(settings, frontend, drain=drain).serve(sockets=[sock])


@asynccontextmanager
async def running_gateway(settings: GatewaySettings) -> AsyncIterator[tuple[Gateway, str]]:
    """Serve until the context is left; the gateway and its base URL. Signals are the caller's own.

    For tests, benchmarks, and programs that bring their own event loop.

    Raises:
        FluidgateError: it can't start.
    """
    with closing(listening_socket(settings)) as sock:
        async with started_gateway(settings) as (gateway, frontend):
            server = server_of(settings, frontend, drain=gateway.drain)
            serving = asyncio.create_task(server.serve_here(sock))
            try:
                while not server.started:
                    await asyncio.sleep(0.001)
                host, port = sock.getsockname()[:2]
                yield gateway, f"http://{host}:{port}"
            finally:
                server.should_exit = True
                frontend.break_off()
                await serving


async def check(settings: GatewaySettings) -> Backends:
    """Start a gateway and leave again; the engines as they were found.

    Raises:
        FluidgateError: it can't start.
    """
    async with started_gateway(settings) as (gateway, _):
        return gateway.backends


@asynccontextmanager
async def started_gateway(settings: GatewaySettings) -> AsyncIterator[tuple[Gateway, Frontend]]:
    """A gateway that looks after its engines, and its HTTP side, which nobody reaches yet.

    Raises:
        FluidgateError: it can't start.
    """
    gateway, frontend = Gateway(settings), None
    try:
        frontend = Frontend(settings, gateway)
        await gateway.start()
        yield gateway, frontend
    finally:
        await gateway.close()
        if frontend is not None:
            frontend.close()  # last: requests that the server has cancelled leave their records meanwhile
