"""A request on its way through the gateway."""

from __future__ import annotations

import asyncio
from enum import Enum


class Stage(Enum):
    """Where a request is."""

    NEW = "new"
    WAITING = "waiting"  # for its prefill
    PREFILL = "prefill"
    BUFFERED = "buffered"  # for its decode
    DECODE = "decode"
    BESIDE = "beside"  # on an engine that no policy has chosen
    DONE = "done"


class Ticket:
    """A request as the dispatcher knows it.

    Attributes:
        cls: index of its class.
        prompt: tokens, as estimated on arrival.
        arrived: epoch, s; `since`, the start of its wait in a queue.
        stage: where it is.
        engine: index of the engine of its prefill; `decode_engine`, of its decode; -1 while there is none.
        buffer: of the decode buffer where it waits.
        stays: whether its decode must stay on the engine of its prefill.
        turn: set with the index of an engine when what it waits for may start.
        attempts: prefills begun.
        booked: KV tokens in the books of engine `kept`, by expectation; `kept` is -1 for none.
    """

    __slots__ = (
        "arrived", "attempts", "booked", "buffer", "cls", "decode_engine", "engine", "kept", "prompt", "since", "stage",
        "stays", "turn",
    )  # fmt: skip

    def __init__(self, cls: int, prompt: int, *, stays: bool = False) -> None:
        self.cls = cls
        self.prompt = prompt
        self.arrived = 0.0
        self.since = 0.0
        self.stage = Stage.NEW
        self.engine = -1
        self.decode_engine = -1
        self.buffer = 0
        self.stays = stays
        self.turn: asyncio.Future[int] | None = None
        self.attempts = 0
        self.booked = 0
        self.kept = -1

    def wait(self, stage: Stage) -> None:
        self.stage = stage
        self.turn = asyncio.get_running_loop().create_future()

    def go(self, engine: int) -> None:
        assert self.turn is not None
        if not self.turn.done():
            self.turn.set_result(engine)
