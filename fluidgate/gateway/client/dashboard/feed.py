"""One event a second, made once for all who listen, and not at all while nobody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from fluidgate.gateway.client.api_error import unavailable

log = logging.getLogger("fluidgate.gateway")

SECONDS = 1.0
"""Time between two events, s."""

MOST = 64
"""Listeners at a time."""

PING = b": ping\n\n"
"""A comment, sent in the place of an event that could not be made."""


class Feed:
    """Events for whoever listens. Who is too slow for one gets the next.

    Attributes:
        listeners: how many there are.
    """

    def __init__(self, begin: Callable[[], Callable[[], bytes]], *, seconds: float = SECONDS, most: int = MOST) -> None:
        """
        Args:
            begin: called with the first listener; what it gives makes an event, one line of text, at each call.
            seconds: between two events; `most`, listeners at a time.
        """
        self.listeners = 0
        self._begin = begin
        self._seconds = seconds
        self._most = most
        self._event = b""
        self._fresh = asyncio.Event()
        self._closed = False
        self._life = 0
        self._making: asyncio.Task[None] | None = None

    @contextmanager
    def listening(self) -> Iterator[AsyncIterator[bytes]]:
        """One more listener; its events as they go over the wire, the last one at once, until `end` is called.

        Raises:
            ApiError: there are too many, or the gateway leaves.
        """
        if self._closed:
            raise unavailable("shutting_down", "the gateway is shutting down")
        if self.listeners >= self._most:
            raise unavailable("too_many_listeners", f"{self._most} others listen already; close one", 10.0)
        self.listeners += 1
        if self._making is None:
            self._making = asyncio.create_task(self._make(self._begin()))
        try:
            yield self._events(self._life)
        finally:
            self.listeners -= 1
            if not self.listeners:
                self._stop()

    def end(self) -> None:
        """Let the streams of those who listen now end; they may come again."""
        self._life += 1
        self._stop()
        self._fresh.set()
        self._fresh = asyncio.Event()

    def close(self) -> None:
        """The same, and take no further listener."""
        self._closed = True
        self.end()

    async def _events(self, life: int) -> AsyncIterator[bytes]:
        while life == self._life:
            fresh = self._fresh
            if self._event:
                yield self._event
            await fresh.wait()

    async def _make(self, read: Callable[[], bytes]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                self._event = b"data: " + read() + b"\n\n"
            except Exception:
                log.exception("an event of /v1/plan/events could not be made")
                self._event = PING
            self._fresh.set()
            self._fresh = asyncio.Event()
            due = max(due + self._seconds, loop.time())
            await asyncio.sleep(due - loop.time())

    def _stop(self) -> None:
        if self._making is not None:
            self._making.cancel()
            self._making = None
        self._event = b""
