"""A gateway within a running event loop: for tests, benchmarks, and programs that bring their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fluidgate.gateway.client.server import listening_socket, server_of
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.gateway_file import GatewaySettings


@asynccontextmanager
async def running_gateway(settings: GatewaySettings) -> AsyncIterator[tuple[Gateway, str]]:
    """Serve until the context is left; the gateway and its base URL. Signals are the caller's own.

    Raises:
        FluidgateError: it can't start.
    """
    sock = listening_socket(settings)
    gateway = Gateway(settings)
    serving = None
    try:
        await gateway.start()
        server = server_of(gateway)
        serving = asyncio.create_task(server.serve_here(sock))
        while not server.started:
            await asyncio.sleep(0.001)
        host, port = sock.getsockname()[:2]
        yield gateway, f"http://{host}:{port}"
    finally:
        if serving is not None:
            server.should_exit = True
            gateway.break_off()
            await serving
        await gateway.close()
        sock.close()
