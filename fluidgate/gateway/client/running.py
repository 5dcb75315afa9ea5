"""A gateway that runs: as a process of its own, within a running event loop, or only for as long as its checks take."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.frontend import Frontend
from fluidgate.gateway.client.notify import ServiceManager
from fluidgate.gateway.client.server import listening_socket, raise_file_limit, server_of
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.gateway_file import GatewaySettings
from fluidgate.gateway.gateway_tables import LOOPBACK

log = logging.getLogger("fluidgate.gateway")


async def serve(settings: GatewaySettings, *, started: Callable[[str], None] | None = None) -> None:
    """Run a gateway until it is told to stop.

    Args:
        started: called with the base URL once requests are taken.

    Raises:
        FluidgateError: it can't start.
    """
    raise_file_limit()
    manager = ServiceManager.from_environment()
    with closing(listening_socket(settings)) as sock:
        manager.status("looking for the engines")
        async with started_gateway(settings) as (gateway, frontend):
            host, port = sock.getsockname()[:2]
            if host not in LOOPBACK:
                log.warning("listening on %s: whoever reaches this address reaches the engines", host)
            gc.collect()
            gc.freeze()  # what is there by now stays: to look through it all again holds up everybody for 80 ms
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

            def announce() -> None:
                manager.ready(f"gateway on {url}")
                if started is not None:
                    started(url)

            await server_of(settings, gateway, frontend, manager, announce).serve(sockets=[sock])


@asynccontextmanager
async def running_gateway(settings: GatewaySettings) -> AsyncIterator[tuple[Gateway, str]]:
    """Serve until the context is left; the gateway and its base URL. Signals are the caller's own.

    For tests, benchmarks, and programs that bring their own event loop.

    Raises:
        FluidgateError: it can't start.
    """
    with closing(listening_socket(settings)) as sock:
        async with started_gateway(settings) as (gateway, frontend):
            server = server_of(settings, gateway, frontend)
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


async def check(settings: GatewaySettings) -> Gateway:
    """Start a gateway and leave again; the engines as they were found.

    Raises:
        FluidgateError: it can't start, or an engine is missing.
    """
    async with started_gateway(settings, patient=True) as (gateway, _):
        engines = [engine for group in gateway.groups for engine in group.backends]
        if missing := [engine for engine in engines if not engine.up]:
            whys = dict.fromkeys(engine.why for engine in missing)
            named = ", ".join(f"{', '.join(each.url for each in missing if each.why == why)} ({why})" for why in whys)
            raise FluidgateError(
                f"{settings.source}: engines.urls: {len(engines) - len(missing)} of {len(engines)} engines are fit, "
                f"not {named}; mend them, or take them out"
            )
        return gateway


@asynccontextmanager
async def started_gateway(
    settings: GatewaySettings, *, patient: bool = False
) -> AsyncIterator[tuple[Gateway, Frontend]]:
    """A gateway that looks after its engines, and its HTTP side, which nobody reaches yet.

    Args:
        patient: whether to wait for each engine until it has answered or failed to.

    Raises:
        FluidgateError: it can't start.
    """
    gateway, frontend = Gateway(settings), None
    try:
        frontend = Frontend(settings, gateway)
        await gateway.start(patient=patient)
        yield gateway, frontend
    finally:
        await gateway.close()
        if frontend is not None:
            await frontend.close()  # last: requests that the server has cancelled leave their records meanwhile
