"""A request on an emulated engine, from its arrival to its last token."""

from __future__ import annotations

import math
from asyncio import Future, get_running_loop
from dataclasses import dataclass, field
from typing import Literal

Finish = Literal["stop", "length", "abort", "error"]
Source = Literal["local_compute", "local_cache_hit", "external_kv_transfer"]


class Bell:
    """Wakes the one who answers, when a sequence of the answer has gone on."""

    def __init__(self) -> None:
        self._waiter: Future[None] | None = None

    def ring(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        """Return at the next ring."""
        self._waiter = get_running_loop().create_future()
        await self._waiter


@dataclass(eq=False, slots=True)
class EngineRequest:
    """A sequence that the engine writes, one choice of an answer; epochs in s of the engine, inf before they come.

    Attributes:
        id: as the API answers it.
        key: digest of the prompt.
        prompt: tokens of the prompt.
        output: tokens of the answer.
        ends: why the answer ends there.
        arrival: at the engine.
        since: from when it may join a batch; after the arrival while KV is on its way.
        choice: which answer to the prompt this is, from 0.
        remote_decode: whether it ends with its prompt, the KV kept for another engine.
        embeds: whether it ends with its prompt, and nothing is written.
        pin: name that the kept KV is fetched by.
        fetched: whether the prompt's KV has come from another engine.
        lost: whether KV on its way between two engines is lost.
        cached: tokens of the prompt whose KV was there.
        slow: factor of the iterations that it is part of.
        rank: of the engine's, where it is.
        queued: whether it has come to the scheduler.
        bell: rings as the request goes on; shared by the choices of an answer.
        every_token: whether it rings at each token, or only at the end.
        read, written: tokens so far.
        started, prompt_read, first_token, last_token: start of its first iteration, end of its last chunk, tokens.
        finish: why it ended; None while it has not.
    """

    id: str
    key: bytes
    prompt: int
    output: int
    ends: Finish = "length"
    arrival: float = 0.0
    since: float = 0.0
    choice: int = 0
    remote_decode: bool = False
    embeds: bool = False
    pin: str = ""
    fetched: bool = False
    lost: bool = False
    cached: int = 0
    slow: float = 1.0
    rank: int = 0
    queued: bool = False
    bell: Bell = field(default_factory=Bell)
    every_token: bool = True
    read: int = 0
    written: int = 0
    started: float = math.inf
    prompt_read: float = math.inf
    first_token: float = math.inf
    last_token: float = math.inf
    finish: Finish | None = None

    @property
    def unread(self) -> int:
        """Tokens of the prompt that are still to be read."""
        return self.prompt - self.read

    @property
    def aborted(self) -> bool:
        return self.finish == "abort"

    @property
    def broken(self) -> bool:
        """Whether it has ended without its answer."""
        return self.finish in ("abort", "error")

    @property
    def garbled(self) -> bool:
        """Whether the answer is garbage: it was written without the KV of its prompt."""
        return self.fetched and self.lost

    def wake(self) -> None:
        """Tell whoever answers that the request has gone on."""
        if self.every_token or self.finish is not None:
            self.bell.ring()
