"""`GET /v1/plan/events`: the plan and the engines as a stream of server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fluidgate.gateway.client.asgi import Receive
from fluidgate.gateway.client.dashboard.feed import Feed
from fluidgate.gateway.client.response import EVENTS, Response

HEADERS = EVENTS | {"x-accel-buffering": "no"}
"""Of the answer; proxies that know the last one pass each event on at once."""


class LiveStream:
    """Hands the events of a feed to one client after the other."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def serve(self, method: str, receive: Receive, response: Response) -> None:
        """Answer one request, until its client has gone or the feed ends it.

        Raises:
            ApiError: too many listen already, or the gateway leaves; nothing has been sent.
        """
        with self._feed.listening() as events:
            await response.begin(200, HEADERS)
            if method != "HEAD":
                sending = asyncio.create_task(_send(events, response))
                gone = asyncio.create_task(_gone(receive))
                try:
                    await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (sending, gone):
                        task.cancel()
                    await asyncio.gather(sending, gone, return_exceptions=True)
            await response.end()


async def _send(events: AsyncIterator[bytes], response: Response) -> None:
    async for event in events:
        await response.more(event)


async def _gone(receive: Receive) -> None:
    """Until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
