"""What every way of dispatching offers: who waits, who is where, and who starts next.

All of it is bookkeeping of the gateway's own events. Nothing here waits or touches the network: a request that must
wait gets a future.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.gateway.prefixes import PrefixIndex
from fluidgate.policies.decisions.tables import Tables
from fluidgate.replanning import Estimator

Clock = Callable[[], float]


@dataclass(frozen=True)
class Counts:
    """Requests by stage and class, int64, each of shape (classes,), and by engine."""

    waiting: NDArray[np.int64]
    prefilling: NDArray[np.int64]
    buffered: NDArray[np.int64]
    mixed_decodes: NDArray[np.int64]
    solo_decodes: NDArray[np.int64]


@dataclass(frozen=True)
class EngineState:
    """An engine as the dispatcher sees it.

    Attributes:
        role: "mixed", "solo", "placed" or "down"; of pairs "prefill" or "decode".
        prefills, decodes: of ours that are on it.
        foreign: slots that requests of others hold, or that it does not have.
    """

    role: str
    prefills: int
    decodes: int
    foreign: int


class Dispatcher(ABC):
    """What every way of dispatching offers. Epochs are those of `clock`, s.

    Attributes:
        taken: requests that have come to each engine so far, a prefill and a decode elsewhere counted apart.
        prefixes: where the beginnings of prompts are; None where that is not looked for.
        happened: grows with each request that comes, has its prompt read, or ends.
    """

    def __init__(
        self,
        engines: int,
        classes: int,
        estimator: Estimator | None,
        clock: Clock,
        prefixes: PrefixIndex | None = None,
    ) -> None:
        self.prefixes = prefixes
        self.classes = classes
        self.estimator = estimator
        self.clock = clock
        self.taken = [0] * engines
        self.happened = 0

    @abstractmethod
    def enter(self, ticket: Ticket) -> None:
        """A request has arrived; its `turn` comes when its prefill may start."""

    @abstractmethod
    def prompt_read(self, ticket: Ticket, tokens: int) -> bool:
        """Its prefill of so many tokens has ended; whether its decode may start now, on `decode_engine`. Else its
        `turn` comes."""

    @abstractmethod
    def leave(self, ticket: Ticket, *, abandoned: bool = False) -> None:
        """It is gone, from wherever it was; `abandoned` if it left a queue of its own will. Harmless when repeated."""

    @abstractmethod
    def enter_again(self, ticket: Ticket) -> None:
        """What it has is lost: it goes back to the front of its class, and its `turn` comes again."""

    @abstractmethod
    def go_beside(self, ticket: Ticket, engine: int) -> None:
        """It goes to this engine at once, without the policy's leave: no other could serve it."""

    @abstractmethod
    def engine_up(self, engine: int, foreign: int, role: str = "both") -> None:
        """An engine answers; so many of its slots are held by others. `role` is the side that it takes of pairs,
        "prefill" or "decode"."""

    @abstractmethod
    def engine_down(self, engine: int) -> None:
        """An engine does not answer: nothing starts there."""

    @abstractmethod
    def set_foreign(self, engine: int, foreign: int) -> None:
        """So many slots of an engine that is up are held by others."""

    def show_queue(self, engine: int, waiting: int, used: float) -> None:
        """An engine says that so many of its requests wait, and what part of its KV memory is taken."""
        return

    @abstractmethod
    def adopt(self, tables: Tables) -> None:
        """A new plan is in force. Nobody in flight is moved."""

    @abstractmethod
    def queued(self, ticket: Ticket) -> tuple[int, int]:
        """How many wait for a prefill, of its class and of all, if it waits itself; (0, 0) if it does not."""

    @abstractmethod
    def waiting_of(self, key: str) -> int:
        """How many requests of a key wait for a prefill."""

    @abstractmethod
    def takes(self, engine: int) -> bool:
        """Whether an engine takes requests."""

    @abstractmethod
    def held(self, engine: int) -> int:
        """Requests of ours on an engine."""

    @abstractmethod
    def counts(self) -> Counts: ...

    @abstractmethod
    def state(self, engine: int) -> EngineState:
        """An engine as it is seen here."""

    def note_completed(self, ticket: Ticket, output: int) -> None:
        """Its answer has been written to its end, `output` tokens."""
        self.happened += 1
        if self.estimator is not None and output > 0:
            self.estimator.completed(ticket.cls, self.clock(), float(output))

    def note_told(self, ticket: Ticket, prompt: int, cached: int | None) -> None:
        """The engine of its prefill has told how many tokens its prompt had, and, if it says so, had not to be read."""
        if self.prefixes is not None and ticket.sent is not None:
            self.prefixes.told(ticket.engine, ticket.sent, prompt, cached)

    def _look_up(self, ticket: Ticket) -> None:
        """Where the beginning of its prompt is, among the engines that take requests."""
        if self.prefixes is not None and ticket.chain is not None:
            ticket.reuse = self.prefixes.found(ticket.chain, ticket.prompt, self.takes)

    def _note_sent(self, ticket: Ticket, engine: int) -> None:
        """Its prompt goes to an engine."""
        if self.prefixes is not None and ticket.chain is not None:
            ticket.held = ticket.sent = self.prefixes.sent(engine, ticket.chain, ticket.prompt)

    def _note_moved(self, ticket: Ticket, engine: int) -> None:
        """The KV of its prompt has come to an engine, and is held no more where it was read."""
        if self.prefixes is not None and ticket.chain is not None:
            self._note_left(ticket)
            ticket.held = self.prefixes.held_on(engine, ticket.chain)

    def _note_left(self, ticket: Ticket, *, read: bool = True) -> None:
        """Its blocks are held no more; `read` if its prompt was read, and its answers are there as far as known."""
        if self.prefixes is not None and ticket.held is not None:
            self.prefixes.left(ticket.held, ticket.answers, read=read)
            ticket.held = None

    def _note_arrived(self, ticket: Ticket) -> None:
        ticket.arrived = ticket.since = self.clock()
        self.happened += 1
        if self.estimator is not None:
            self.estimator.arrived(ticket.cls, ticket.arrived)

    def _note_prompt_read(self, ticket: Ticket, tokens: int) -> None:
        self.happened += 1
        ticket.read = tokens
        if self.estimator is not None:
            self.estimator.prompt_read(ticket.cls, self.clock(), float(tokens))
