"""A request on its way through the gateway."""

from __future__ import annotations

import asyncio
import math
from enum import Enum

from fluidgate.gateway.dispatch.account import Account
from fluidgate.gateway.prefixes import Chain, Held, Sent
from fluidgate.policies.decisions.placement import Reuse


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
        prompt: tokens, as estimated on arrival; `read`, as counted when it was read, 0 before.
        most_output: tokens that its answer may have; inf where it does not say.
        key: name of its API key, "" for none; `weight`, of the key's share in its class.
        arrived: epoch, s; `since`, the start of its wait in a queue.
        stage: where it is.
        engine: index of the engine of its prefill; `decode_engine`, of its decode; -1 while there is none.
        buffer: of the decode buffer where it waits.
        stays: whether its decode must stay on the engine of its prefill.
        turn: set with the index of an engine when what it waits for may start.
        attempts: prefills begun.
        booked: KV tokens in the books of engine `kept`, by expectation; `kept` is -1 for none.
        chain: of its prompt; None where prefixes are not looked for.
        answers: the chains of its prompt with each answer, once they have been written and as far as they are known.
        reuse: where its beginning was when it came; None if that was not looked up.
        shelf: by how much of it was to be read when it came, see `shelves`; -1 while it is on none.
        sent: what was believed of the engine that got its prompt last; None before.
        held: where the blocks of its prompt are held; None while they are nowhere.
        cost: tokens that its key has been charged for it, on `account`, which is None before it has started.
    """

    __slots__ = (
        "account", "answers", "arrived", "attempts", "booked", "buffer", "chain", "cls", "cost", "decode_engine",
        "engine", "held", "kept", "key", "most_output", "prompt", "read", "reuse", "sent", "shelf", "since", "stage",
        "stays", "turn", "weight",
    )  # fmt: skip

    def __init__(
        self,
        cls: int,
        prompt: int,
        *,
        stays: bool = False,
        most_output: float = math.inf,
        key: str = "",
        weight: float = 1.0,
        chain: Chain | None = None,
    ) -> None:
        self.cls = cls
        self.prompt = prompt
        self.read = 0
        self.most_output = most_output
        self.key = key
        self.weight = weight
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
        self.cost = 0.0
        self.account: Account | None = None
        self.chain = chain
        self.reuse: Reuse | None = None
        self.sent: Sent | None = None
        self.answers: tuple[Chain, ...] = ()
        self.held: Held | None = None
        self.shelf = -1

    def found(self, engine: int) -> int:
        """Tokens of its prompt that an engine was believed to have when it came."""
        if self.reuse is None:
            return 0
        count = int(self.reuse.count[0])
        at = self.reuse.gpu[:count] == engine
        return int(self.reuse.tokens[:count][at].sum())

    @property
    def unread(self) -> int:
        """Tokens of its prompt that its engine has to read, or had to: without those believed to be there."""
        return self.prompt - (0 if self.sent is None else self.sent.found)

    def wait(self, stage: Stage) -> None:
        self.stage = stage
        self.turn = asyncio.get_running_loop().create_future()

    def go(self, engine: int) -> None:
        assert self.turn is not None
        if not self.turn.done():
            self.turn.set_result(engine)
