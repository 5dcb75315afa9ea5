"""A request on an emulated engine, from its arrival to its last token."""

from __future__ import annotations

import math
from asyncio import Event, Future, get_running_loop
from dataclasses import dataclass, field
from typing import Literal

Finish = Literal["stop", "length", "abort"]
Source = Literal["local_compute", "local_cache_hit", "external_kv_transfer"]


@dataclass(eq=False, slots=True)
class EngineRequest:
    """A request; epochs in seconds of the engine, inf or nan before they come.

    Attributes:
        id: as the API answers it.
        key: digest of the prompt.
        prompt: tokens of the prompt.
        output: tokens of the answer.
        ends: why the answer ends there.
        arrival: at the engine.
        since: from when it may join a batch; after the arrival while KV is on its way.
        remote_decode: whether it ends with its prompt, the KV kept for another engine.
        pin: name that the kept KV is fetched by.
        fetched: whether the prompt's KV has come from another engine.
        lost: whether KV on its way between two engines is lost; the answer to a request that fetched it is garbage.
        cached: tokens of the prompt whose KV was there.
        slow: factor of the iterations that it is part of.
        queued: whether it has come to the scheduler.
        every_token: whether `more` returns at each token, or only at the end.
        read, written: tokens so far.
        started, prompt_read, first_token, last_token: start of its first iteration, end of its last chunk, tokens.
        finish: why it ended; None while it has not.
        gone: set when the client has gone.
    """

    id: str
    key: bytes
    prompt: int
    output: int
    ends: Finish = "length"
    arrival: float = 0.0
    since: float = 0.0
    remote_decode: bool = False
    pin: str = ""
    fetched: bool = False
    lost: bool = False
    cached: int = 0
    slow: float = 1.0
    queued: bool = False
    every_token: bool = True
    read: int = 0
    written: int = 0
    started: float = math.inf
    prompt_read: float = math.inf
    first_token: float = math.inf
    last_token: float = math.inf
    finish: Finish | None = None
    gone: Event = field(default_factory=Event)
    _waiter: Future[None] | None = None

    @property
    def unread(self) -> int:
        """Tokens of the prompt that are still to be read."""
        return self.prompt - self.read

    @property
    def aborted(self) -> bool:
        return self.finish == "abort"

    @property
    def garbled(self) -> bool:
        """Whether the answer is garbage."""
        return self.fetched and self.lost

    def wake(self) -> None:
        """Let whoever waits in `more` go on."""
        waiter = self._waiter
        if waiter is not None and (self.every_token or self.finish is not None):
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def more(self, than: int) -> None:
        """Return when more than so many tokens are written, or the request has ended."""
        while self.finish is None and (self.written <= than or not self.every_token):
            self._waiter = get_running_loop().create_future()
            await self._waiter
