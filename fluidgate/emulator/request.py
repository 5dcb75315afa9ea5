"""A request on an emulated engine, from its arrival to its last token."""

from __future__ import annotations

import math
from asyncio import Future, get_running_loop
from dataclasses import dataclass, field
from typing import Literal

from fluidgate.emulator.prompt import Prompt

Finish = Literal["stop", "length", "abort", "error"]
Source = Literal["local_compute", "local_cache_hit", "external_kv_transfer"]


class Block:
    """A block of KV memory.

    Attributes:
        hash: of what it holds; None where nobody could use it.
        holders: requests that hold it.
    """

    __slots__ = ("hash", "holders")

    def __init__(self) -> None:
        self.hash: int | None = None
        self.holders = 0


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
        text: its prompt's tokens; None for a prompt like no other.
        cached: tokens whose KV was there when it joined last.
        found: tokens of the prompt whose KV was there when it joined first.
        found_there: tokens that the engine which read the prompt had found; None if it was read here.
        blocks: that it holds, in order; the first `known` of them are full, and may be taken over by others.
        hashes: of its first blocks.
        again: tokens of its answer that it has to read again, as it was preempted.
        preempted: whether it was.
        beside: whether it joins without the prefill's place.
        batched: whether it is in the batch.
        number: among the engine's requests; turn: among those that joined.
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
    text: Prompt | None = None
    cached: int = 0
    found: int = 0
    found_there: int | None = None
    blocks: list[Block] = field(default_factory=list)
    known: int = 0
    hashes: list[int] = field(default_factory=list)
    again: int = 0
    preempted: bool = False
    beside: bool = False
    batched: bool = False
    number: int = 0
    turn: int = 0
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
        """Tokens that are still to be read."""
        return self.prompt + self.again - self.read

    @property
    def brought(self) -> bool:
        """Whether its KV has come from another engine, and has not been lost here since."""
        return self.fetched and not self.preempted

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

    @property
    def reused(self) -> int:
        """Tokens of the prompt that were found in a memory where it was read."""
        return self.found if self.found_there is None else self.found_there

    def wake(self) -> None:
        """Tell whoever answers that the request has gone on."""
        if self.every_token or self.finish is not None:
            self.bell.ring()
