"""The controller's state and its moves: who waits, who is where, and who starts next.

All of it is bookkeeping of the gateway's own events; the decisions are those of the policy, in compiled code. Nothing
here waits or touches the network: a request that must wait gets a future.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import SFC64, Generator, SeedSequence
from numpy.typing import NDArray

from fluidgate.control import Estimator
from fluidgate.gateway.decisions import (
    BOOK_DECODE,
    BRING_UP,
    DROP_PREFILL,
    END_PREFILL,
    LEAVE_SLOT,
    REGROUP,
    SET_CLOSED,
    SETTLE_MODE,
    START_DECODE,
    START_PREFILL,
    TAKE_DOWN,
    TAKE_SLOT,
    moves,
)
from fluidgate.gateway.fleet import empty_fleet
from fluidgate.gateway.ticket import Stage, Ticket
from fluidgate.policies.ready import NOWHERE
from fluidgate.policies.tables import Tables
from fluidgate.policies.view import MIXED, SOLO

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
        role: "mixed", "solo", "placed" or "down".
        prefills, decodes: of ours that are on it.
        foreign: slots that requests of others hold, or that it does not have.
    """

    role: str
    prefills: int
    decodes: int
    foreign: int


class Dispatcher(ABC):
    """What every way of dispatching offers. Epochs are those of `clock`, s."""

    def __init__(self, classes: int, estimator: Estimator | None, clock: Clock) -> None:
        self.classes = classes
        self.estimator = estimator
        self.clock = clock

    @abstractmethod
    def enter(self, ticket: Ticket) -> None:
        """A request has arrived; its `turn` comes when its prefill may start."""

    @abstractmethod
    def prompt_read(self, ticket: Ticket, tokens: int) -> bool:
        """Its prefill of so many tokens has ended; whether its decode may start now, on `decode_engine`. Else its
        `turn` comes."""

    @abstractmethod
    def leave(self, ticket: Ticket, *, weary: bool = False) -> None:
        """It is gone, from wherever it was; `weary` if it left a queue of its own will. Harmless when repeated."""

    @abstractmethod
    def enter_again(self, ticket: Ticket) -> None:
        """What it has is lost: it goes back to the front of its class, and its `turn` comes again."""

    @abstractmethod
    def engine_up(self, engine: int, foreign: int) -> None:
        """An engine answers; so many of its slots are held by others."""

    @abstractmethod
    def engine_down(self, engine: int) -> None:
        """An engine does not answer: nothing starts there."""

    @abstractmethod
    def set_foreign(self, engine: int, foreign: int) -> None:
        """So many slots of an engine that is up are held by others."""

    @abstractmethod
    def adopt(self, tables: Tables) -> None:
        """A new plan is in force. Nobody in flight is moved."""

    @abstractmethod
    def counts(self) -> Counts: ...

    @abstractmethod
    def engines(self) -> list[EngineState]: ...

    def note_completed(self, ticket: Ticket, output: int) -> None:
        """Its answer has been written to its end, `output` tokens."""
        if self.estimator is not None and output > 0:
            self.estimator.completed(ticket.cls, self.clock(), float(output))

    def _note_arrived(self, ticket: Ticket) -> None:
        ticket.arrived = ticket.since = self.clock()
        if self.estimator is not None:
            self.estimator.arrived(ticket.cls, ticket.arrived)

    def _note_prompt_read(self, ticket: Ticket, tokens: int) -> None:
        if self.estimator is not None:
            self.estimator.prompt_read(ticket.cls, self.clock(), float(tokens))


class Gated(Dispatcher):
    """The gate and the router of a policy: at most one prefill an engine, and at most B requests.

    Attributes:
        tables: in force.
        binding: "late" (the decode's engine is chosen when the prefill has ended), "early" (when it starts) or "stay"
            (it is the prefill's).
    """

    def __init__(
        self,
        tables: Tables,
        engines: int,
        batch_size: int,
        classes: int,
        *,
        binding: str = "late",
        estimator: Estimator | None = None,
        clock: Clock,
        seed: int = 0,
    ) -> None:
        super().__init__(classes, estimator, clock)
        self.binding = binding
        self.tables = tables
        self.fleet = empty_fleet(engines, batch_size, classes, reserve=bool(tables.reserve))
        self._draws = Generator(SFC64(SeedSequence(seed)))
        self._waiting: tuple[OrderedDict[Ticket, None], ...] = tuple(OrderedDict() for _ in range(classes))
        self._buffered = tuple(tuple(OrderedDict[Ticket, None]() for _ in range(classes)) for _ in (MIXED, SOLO))
        self._again: set[Ticket] = set()
        self._move(REGROUP, 0)  # compiles
        if estimator is not None:
            estimator.compile()

    def enter(self, ticket: Ticket) -> None:
        self._note_arrived(ticket)
        self._wait_for_prefill(ticket)
        if self.estimator is not None:
            self.estimator.waits(ticket.cls, ticket.since)
        self._settle()

    def prompt_read(self, ticket: Ticket, tokens: int) -> bool:
        self._note_prompt_read(ticket, tokens)
        g = ticket.engine
        if self.binding == "late":
            to = self._move(END_PREFILL, g)
            if to < 0:
                self._wait_for_decode(ticket, -1 - to)
            else:
                self._decode_on(ticket, to)
            self._settle()
            self._move(SETTLE_MODE, g)
        else:
            self._move(DROP_PREFILL, g)
            if ticket.decode_engine < 0:
                self._move(TAKE_SLOT, g, ticket.cls)
            self._decode_on(ticket, g if ticket.decode_engine < 0 else ticket.decode_engine)
            self._settle()
        return ticket.stage is Stage.DECODE

    def leave(self, ticket: Ticket, *, weary: bool = False) -> None:
        if ticket.stage is Stage.DONE:
            return
        self._give_up_place(ticket, weary)
        ticket.stage = Stage.DONE
        self._again.discard(ticket)
        self._settle()

    def enter_again(self, ticket: Ticket) -> None:
        self._give_up_place(ticket, False)
        self._again.add(ticket)
        ticket.since = ticket.arrived
        self._wait_for_prefill(ticket)
        self._waiting[ticket.cls].move_to_end(ticket, last=False)
        self.fleet.waiting_since[ticket.cls] = ticket.since
        self._settle()

    def engine_up(self, engine: int, foreign: int) -> None:
        self._move(BRING_UP, engine, self._within(foreign))
        self._regroup()

    def engine_down(self, engine: int) -> None:
        self._move(TAKE_DOWN, engine)
        self._regroup()

    def set_foreign(self, engine: int, foreign: int) -> None:
        foreign = self._within(foreign)
        if foreign != self.fleet.gpu["closed"][engine]:
            self._move(SET_CLOSED, engine, foreign)
            self._settle()

    def adopt(self, tables: Tables) -> None:
        self.tables = tables
        if bool(tables.reserve) != self.fleet.reserve:
            self.fleet = self.fleet._replace(reserve=bool(tables.reserve))
        self._regroup()

    def counts(self) -> Counts:
        f = self.fleet
        return Counts(
            f.waiting.copy(), f.prefilling.copy(), f.buffered.sum(axis=0), f.mixed_decodes.copy(), f.solo_decodes.copy()
        )

    def engines(self) -> list[EngineState]:
        gpu, decodes = self.fleet.gpu, self.fleet.decodes.sum(axis=1)
        return [
            EngineState(
                ("mixed", "solo", "down")[here["group"]],
                int(here["prefill_seat"] != NOWHERE),
                int(decodes[g]),
                int(here["closed"]) if here["group"] < 2 else 0,
            )
            for g, here in enumerate(gpu)
        ]

    def _move(self, move: int, a: int = 0, b: int = 0) -> int:
        return int(moves(self.fleet, self.tables, move, a, b, self._draws))

    def _settle(self) -> None:
        """Start what may start: prefills first, then waiting decodes, as the simulators do."""
        while (code := self._move(START_PREFILL)) >= 0:
            g, cls = divmod(code, self.classes)
            self._start_prefill(cls, g)
        while (code := self._move(START_DECODE)) >= 0:
            g, cls = divmod(code >> 1, self.classes)
            self._start_decode(cls, g, code & 1)

    def _start_prefill(self, cls: int, g: int) -> None:
        ticket, _ = self._waiting[cls].popitem(last=False)
        self._head(self.fleet.waiting_since, cls, self._waiting[cls])
        self._wait_ended(ticket)
        ticket.stage = Stage.PREFILL
        ticket.engine = g
        ticket.decode_engine = -1
        ticket.attempts += 1
        if self.binding == "early":
            ticket.decode_engine = self._move(BOOK_DECODE, g)
        ticket.go(g)

    def _start_decode(self, cls: int, g: int, buffer: int) -> None:
        line = self._buffered[buffer][cls]
        ticket, _ = line.popitem(last=False)
        self._head(self.fleet.buffered_since[buffer], cls, line)
        self._wait_ended(ticket)
        self._decode_on(ticket, g)
        ticket.go(g)

    def _wait_for_prefill(self, ticket: Ticket) -> None:
        ticket.wait(Stage.WAITING)
        line = self._waiting[ticket.cls]
        line[ticket] = None
        if len(line) == 1:
            self.fleet.waiting_since[ticket.cls] = ticket.since
        self.fleet.waiting[ticket.cls] += 1

    def _wait_for_decode(self, ticket: Ticket, buffer: int) -> None:
        ticket.since = self.clock()
        ticket.buffer = buffer
        ticket.wait(Stage.BUFFERED)
        line = self._buffered[buffer][ticket.cls]
        line[ticket] = None
        if len(line) == 1:
            self.fleet.buffered_since[buffer, ticket.cls] = ticket.since
        self.fleet.buffered[buffer, ticket.cls] += 1
        if self.estimator is not None:
            self.estimator.waits(ticket.cls, ticket.since)

    def _decode_on(self, ticket: Ticket, g: int) -> None:
        ticket.stage = Stage.DECODE
        ticket.decode_engine = g

    def _give_up_place(self, ticket: Ticket, weary: bool) -> None:
        """Take a request out of the queue or off the slot that it holds."""
        if ticket.stage is Stage.WAITING:
            line = self._waiting[ticket.cls]
            del line[ticket]
            self._head(self.fleet.waiting_since, ticket.cls, line)
            self.fleet.waiting[ticket.cls] -= 1
            self._wait_ended(ticket, weary)
        elif ticket.stage is Stage.BUFFERED:
            line = self._buffered[ticket.buffer][ticket.cls]
            del line[ticket]
            self._head(self.fleet.buffered_since[ticket.buffer], ticket.cls, line)
            self.fleet.buffered[ticket.buffer, ticket.cls] -= 1
            self._wait_ended(ticket, weary)
        elif ticket.stage is Stage.PREFILL:
            self._move(DROP_PREFILL, ticket.engine)
            if ticket.decode_engine >= 0:
                self._move(LEAVE_SLOT, ticket.decode_engine, ticket.cls)
        elif ticket.stage is Stage.DECODE:
            self._move(LEAVE_SLOT, ticket.decode_engine, ticket.cls)

    def _wait_ended(self, ticket: Ticket, weary: bool = False) -> None:
        """Tell the estimator, but for those that were sent back into the queue: they have been served."""
        if self.estimator is None or (ticket in self._again and ticket.stage is Stage.WAITING):
            return
        if weary:
            self.estimator.left(ticket.cls, self.clock())
        else:
            self.estimator.waits_no_more(ticket.cls, self.clock())

    def _regroup(self) -> None:
        mixed = min(int(self.tables.mixed_gpus), int(self.fleet.up[0]))
        self._move(REGROUP, mixed)
        self._settle()

    def _within(self, foreign: int) -> int:
        return max(0, min(self.fleet.batch_size, foreign))

    @staticmethod
    def _head(since: Any, cls: int, line: OrderedDict[Ticket, None]) -> None:
        since[cls] = next(iter(line)).since if line else np.inf


class Placed(Dispatcher):
    """A rule of placement: each request goes to an engine as it arrives, and stays there; the engines queue.

    The rules are those of the simulator's published policies.
    """

    def __init__(
        self,
        rule: str,
        engines: int,
        classes: int,
        *,
        estimator: Estimator | None = None,
        clock: Clock,
        seed: int = 0,
    ) -> None:
        super().__init__(classes, estimator, clock)
        self.rule = rule
        self._up = np.zeros(engines, bool)
        self._foreign = np.zeros(engines, np.int64)
        self._load = np.zeros(engines, np.int64)
        self._unread = np.zeros(engines, np.int64)
        self._prefilling = np.zeros((engines, classes), np.int64)
        self._decoding = np.zeros((engines, classes), np.int64)
        self._homeless: OrderedDict[Ticket, None] = OrderedDict()
        self._next = 0
        self._draws = Generator(SFC64(SeedSequence(seed)))

    def enter(self, ticket: Ticket) -> None:
        self._note_arrived(ticket)
        self._place(ticket)

    def prompt_read(self, ticket: Ticket, tokens: int) -> bool:
        self._note_prompt_read(ticket, tokens)
        self._prefilling[ticket.engine, ticket.cls] -= 1
        self._decoding[ticket.engine, ticket.cls] += 1
        self._unread[ticket.engine] -= ticket.prompt
        ticket.stage = Stage.DECODE
        return True

    def leave(self, ticket: Ticket, *, weary: bool = False) -> None:
        if ticket.stage is Stage.DONE:
            return
        self._give_up_place(ticket)
        ticket.stage = Stage.DONE

    def enter_again(self, ticket: Ticket) -> None:
        self._give_up_place(ticket)
        self._place(ticket)

    def engine_up(self, engine: int, foreign: int) -> None:
        self._up[engine] = True
        self._foreign[engine] = foreign
        while self._homeless:
            self._place(self._homeless.popitem(last=False)[0])

    def engine_down(self, engine: int) -> None:
        self._up[engine] = False

    def set_foreign(self, engine: int, foreign: int) -> None:
        self._foreign[engine] = foreign

    def adopt(self, tables: Tables) -> None:
        """A rule of placement reads no plan."""

    def counts(self) -> Counts:
        nobody = np.zeros(self.classes, np.int64)
        mixed = self._prefilling.any(axis=1)
        waiting = nobody.copy()
        for ticket in self._homeless:
            waiting[ticket.cls] += 1
        return Counts(
            waiting,
            self._prefilling.sum(axis=0),
            nobody,
            self._decoding[mixed].sum(axis=0),
            self._decoding[~mixed].sum(axis=0),
        )

    def engines(self) -> list[EngineState]:
        return [
            EngineState(
                "placed" if up else "down",
                int(self._prefilling[g].sum()),
                int(self._decoding[g].sum()),
                int(self._foreign[g]),
            )
            for g, up in enumerate(self._up)
        ]

    def _place(self, ticket: Ticket) -> None:
        ticket.wait(Stage.WAITING)
        if not self._up.any():
            self._homeless[ticket] = None
            return
        g = self._choose(ticket)
        self._load[g] += 1
        self._unread[g] += ticket.prompt
        self._prefilling[g, ticket.cls] += 1
        ticket.stage = Stage.PREFILL
        ticket.engine = ticket.decode_engine = g
        ticket.attempts += 1
        ticket.go(g)

    def _choose(self, ticket: Ticket) -> int:
        up = np.flatnonzero(self._up)
        load = self._load + self._foreign
        match self.rule:
            case "round-robin":
                g = int(next((g for g in up if g >= self._next), up[0]))
                self._next = g + 1
                return g
            case "least-loaded":
                return int(up[int(np.argmin(load[up]))])
            case "power-of-two":
                drawn = self._draws.choice(up, size=min(2, len(up)), replace=False)
                return int(min(drawn, key=lambda g: load[g]))
            case _:
                return int(up[int(np.argmin((self._unread[up] + ticket.prompt) * (load[up] + 1)))])

    def _give_up_place(self, ticket: Ticket) -> None:
        if ticket.stage is Stage.WAITING:
            self._homeless.pop(ticket, None)
            return
        g = ticket.engine
        self._load[g] -= 1
        if ticket.stage is Stage.PREFILL:
            self._prefilling[g, ticket.cls] -= 1
            self._unread[g] -= ticket.prompt
        elif ticket.stage is Stage.DECODE:
            self._decoding[g, ticket.cls] -= 1
