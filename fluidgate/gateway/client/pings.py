"""Signs of life on a stream whose answer has not begun: without them, proxies and clients give it up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fluidgate.gateway.client.response import Response


@asynccontextmanager
async def pinged(response: Response, seconds: float) -> AsyncIterator[None]:
    """Within this context, a comment goes out every so many seconds until the answer begins; none if `seconds` is 0."""
    if not seconds:
        yield
        return
    task = asyncio.create_task(_ping(response, seconds))
    try:
        yield
    finally:
        task.cancel()


async def _ping(response: Response, seconds: float) -> None:
    while not (response.begun or response.ended):
        await asyncio.sleep(seconds)
        await response.ping()
