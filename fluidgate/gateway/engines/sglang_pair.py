"""One request on a pair of SGLang engines: both get it at once, and meet by themselves."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from typing import Any

import orjson

from fluidgate.gateway.engines import sglang_wire
from fluidgate.gateway.engines.adapter import Call
from fluidgate.gateway.engines.errors import EngineError, EngineRefused, EngineUnreachable, KvLost
from fluidgate.gateway.engines.upstream import Answer, Upstream

ROOM_BITS = 63

ASKED_AGAIN = (0.1, 0.4, 1.5)
"""s after which an engine is asked once more to end a request, and at last left alone."""


class Pair:
    """Two calls under way. The reader ends with the KV handed over; the writer's first token comes after that.

    Each waits for the other for minutes (SGLang's `SGLANG_DISAGGREGATION_BOOTSTRAP_TIMEOUT` and `..._WAITING_TIMEOUT`,
    300 s), connection or no connection; so where one fails, the other is told to stop.
    """

    def __init__(self, reader: Upstream, writer: Upstream, call: Call, meeting: tuple[str, int]) -> None:
        """
        Args:
            meeting: host and bootstrap port of the reader, as the writer knows them.
        """
        room = secrets.randbits(ROOM_BITS)
        self._reader, self.writer = reader, writer
        self._rid = f"{call.id}-{room:x}"
        host, port = meeting
        more = {"bootstrap_host": host, "bootstrap_port": port, "bootstrap_room": room, "rid": self._rid}
        body = dict(call.body) | more
        reads = {name: value for name, value in body.items() if name != "stream_options"} | {"stream": False}
        self._stack = AsyncExitStack()
        opening = writer.open(
            call.path, orjson.dumps(body), call.id, call.headers, stream=call.stream, silence=call.silence
        )
        self._reading: asyncio.Task[Any] = asyncio.create_task(reader.post(call.path, reads, call.id, call.headers))
        self._writing = asyncio.create_task(self._stack.enter_async_context(opening))
        self._taken = False

    async def prompt_read(self) -> Any:
        """What the reader answers, once the writer has the KV.

        Raises:
            EngineError: of the reader or the writer, whichever failed.
        """
        await asyncio.wait({self._reading, self._writing}, return_when=asyncio.FIRST_COMPLETED)
        if self._failure() is None and not self._reading.done():
            await asyncio.wait({self._reading})
        if failure := self._failure():
            raise failure from failure.__cause__
        return self._reading.result()

    async def answer(self) -> Answer:
        """What the writer answers; to be asked for once.

        Raises:
            EngineError: of the writer.
        """
        if self._taken:
            raise KvLost(f"{self.writer.url} has begun with this answer before")
        self._taken = True
        await asyncio.wait({self._writing})
        if failure := self._failure():
            raise failure from failure.__cause__
        return self._writing.result()

    async def end(self) -> None:
        """The answer has been read."""
        await self._stack.aclose()

    async def stop(self) -> None:
        """Break off what is under way, on both sides; never fails, and harmless when repeated."""
        self._taken = True
        await asyncio.gather(self._stop(self._reading, self._reader), self._stop(self._writing, self.writer))
        await self._stack.aclose()

    async def _stop(self, task: asyncio.Task[Any], upstream: Upstream) -> None:
        """Ask an engine to end its part, until it has: one asked before the request has come takes it all the same."""
        for seconds in ASKED_AGAIN:
            if task.done():
                break
            await sglang_wire.abort(upstream, self._rid)
            await asyncio.wait({task}, timeout=seconds)
        if task.cancel() or (task is self._writing and _has_ended(task)):
            await self._stack.aclose()
            await sglang_wire.abort(upstream, self._rid)
        await asyncio.gather(task, return_exceptions=True)

    def _failure(self) -> Exception | None:
        """The first thing to tell of: that the request is wrong, that an engine is not there, or that the two did not
        come together, which may be either's fault."""
        errors = [task.exception() for task in (self._reading, self._writing) if task.done()]
        failures = [error for error in errors if isinstance(error, Exception)]
        return min(map(_told, failures), key=_precedence, default=None)


def _has_ended(task: asyncio.Task[Any]) -> bool:
    """Whether an engine has done its part."""
    return task.done() and not task.cancelled() and task.exception() is None


def _told(error: Exception) -> Exception:
    """SGLang answers 500 to whatever went wrong between the two."""
    if isinstance(error, EngineRefused) and error.status >= 500 and not error.elsewhere:
        lost = KvLost(f"the KV did not get to its engine: {error}")
        lost.__cause__ = error
        return lost
    return error


def _precedence(error: Exception) -> int:
    if isinstance(error, EngineRefused):
        return 0
    if isinstance(error, EngineUnreachable):
        return 1
    return 2 if isinstance(error, EngineError) else 3
