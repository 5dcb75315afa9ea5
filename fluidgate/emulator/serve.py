"""Emulated engines as a process of their own, until a signal ends it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from fluidgate.emulator.cluster import serve_engines
from fluidgate.emulator.settings import EngineRole, EngineSettings
from fluidgate.event_loop import fast_loop


def run_engines(
    settings: EngineSettings,
    count: int,
    *,
    roles: Sequence[EngineRole] = (),
    host: str,
    port: int,
    ready: Callable[[list[str]], None],
) -> None:
    """Serve until SIGTERM; Ctrl-C leaves as KeyboardInterrupt.

    Args:
        roles: as in `serve_engines`.
        ready: called with the engines' addresses once they listen.

    Raises:
        FluidgateError: a port is taken.
    """
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        interrupted = runner.run(_serve(settings, count, roles, host, port, ready))
    if interrupted:
        raise KeyboardInterrupt


async def _serve(
    settings: EngineSettings,
    count: int,
    roles: Sequence[EngineRole],
    host: str,
    port: int,
    ready: Callable[[list[str]], None],
) -> bool:
    """Whether it was Ctrl-C that ended it."""
    ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def end(interrupted: bool) -> None:
        if not ended.done():
            ended.set_result(interrupted)

    for number, interrupted in ((signal.SIGINT, True), (signal.SIGTERM, False)):
        asyncio.get_running_loop().add_signal_handler(number, end, interrupted)
    async with serve_engines(settings, count, roles=roles, host=host, port=port) as servers:
        ready([server.url for server in servers])
        return await ended
