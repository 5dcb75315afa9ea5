"""Where the two sides of a pair meet, as with SGLang: on the engine that reads, in a room of the request's own.

The side that writes knocks, and its call stays open until the KV is there. So each side sees at once when the other
has died; SGLang's own engines see it within seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import BaseModel, Field

PATH = "/internal/bootstrap"


@dataclass(frozen=True)
class Meeting:
    """What a request says of its pair.

    Attributes:
        rid: its id, by which it may be aborted.
        host, port: of the engine that reads, as the one that writes knows it.
        room: where they meet there.
    """

    rid: str
    host: str
    port: int
    room: int


class Knock(BaseModel):
    """What the side that writes asks the other."""

    room: int = Field(ge=0, lt=2**63)
    has: int = Field(0, ge=0)


class Room:
    """The place of one request.

    Attributes:
        writer_came: set when the side that writes has knocked; `writer_left`, when it has gone before it had the KV.
        writer_has: tokens of the prompt that it has, and need not be sent.
        kv: tokens that the reader has handed over; None if there are none to come.
    """

    def __init__(self) -> None:
        self.writer_came = asyncio.Event()
        self.writer_left = asyncio.Event()
        self.writer_has = 0
        self.kv: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def hand_over(self, tokens: int | None) -> None:
        if not self.kv.done():
            self.kv.set_result(tokens)


class Rooms:
    """The rooms of an engine that reads, and of any the requests that wait for their other side.

    Attributes:
        waiting: how many those are.
    """

    def __init__(self) -> None:
        self._rooms: dict[int, Room] = {}
        self._waits: dict[str, asyncio.Event] = {}
        self._under_way: dict[str, Callable[[], None]] = {}

    @property
    def waiting(self) -> int:
        return len(self._waits)

    def room(self, number: int) -> Room:
        """A room, whichever side comes first."""
        return self._rooms.setdefault(number, Room())

    def leave(self, number: int) -> None:
        """The reader has done with it; nothing that has not been handed over will be."""
        if room := self._rooms.pop(number, None):
            room.hand_over(None)

    def begin(self, rid: str, end: Callable[[], None]) -> None:
        """A request is one side of a pair from now on; `end` is called where it is aborted while it does not wait."""
        self._under_way[rid] = end

    def end(self, rid: str) -> None:
        """It is no more."""
        self._under_way.pop(rid, None)

    def abort(self, rid: str) -> None:
        """Let a request wait no more, or go on no more; nothing if it is not there."""
        if (wait := self._waits.get(rid)) is not None:
            wait.set()
        elif (end := self._under_way.get(rid)) is not None:
            end()

    async def wait(self, rid: str, other: Awaitable[Any], seconds: float) -> Any:
        """What the other side brings; None if it does not come in time, or the request is aborted.

        A client that goes away ends no such wait.
        """
        aborted = self._waits[rid] = asyncio.Event()
        coming, end = asyncio.ensure_future(other), asyncio.ensure_future(aborted.wait())
        try:
            await asyncio.wait({coming, end}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else None
        finally:
            del self._waits[rid]
            for task in (coming, end):
                task.cancel()

    async def receive(self, knock: Knock, until_gone: Callable[[], Awaitable[None]]) -> int | None:
        """The answer to a knock: the tokens whose KV is there, once it is; None if it will not come.

        Args:
            until_gone: returns when the side that writes has gone.
        """
        room = self.room(knock.room)
        room.writer_has = knock.has
        room.writer_came.set()
        gone = asyncio.ensure_future(until_gone())
        try:
            either: set[asyncio.Future[Any]] = {gone, room.kv}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if room.kv.done():
                return room.kv.result()
            room.writer_left.set()
            return None
        finally:
            gone.cancel()


async def knock(session: aiohttp.ClientSession, host: str, port: int, number: int, has: int) -> int | None:
    """Ask an engine that reads for the KV of a room's prompt: its tokens, or None where it does not come.

    Args:
        has: tokens of the prompt whose KV is here.
    """
    wanted = Knock(room=number, has=has).model_dump()
    forever = aiohttp.ClientTimeout(total=None)
    try:
        async with session.post(f"http://{host}:{port}{PATH}", json=wanted, timeout=forever) as answer:
            return int((await answer.json())["tokens"]) if answer.status == 200 else None
    except (aiohttp.ClientError, OSError, ValueError, KeyError):
        return None
