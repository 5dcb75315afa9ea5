"""The controller's state and its moves: who waits, who is where, and who starts next.

All of it is bookkeeping of the gateway's own events; the decisions are those of the policy, in compiled code. Nothing
here waits or touches the network: a request that must wait gets a future.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
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
    KINDS,
    LEAVE_SLOT,
    NOTHING,
    PREFILL,
    REGROUP,
    SET_CLOSED,
    STAY_ON,
    TAKE_DOWN,
    moves,
)
from fluidgate.gateway.fleet import OUT, empty_fleet
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
    """What every way of dispatching offers. Epochs are those of `clock`, s.

    Attributes:
        taken: requests that have come to each engine so far, a prefill and a decode elsewhere counted apart.
    """

    def __init__(self, engines: int, classes: int, estimator: Estimator | None, clock: Clock) -> None:
        self.classes = classes
        self.estimator = estimator
        self.clock = clock
        self.taken = [0] * engines

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
    def queued(self, ticket: Ticket) -> tuple[int, int]:
        """How many wait for a prefill, of its class and of all, if it waits itself; (0, 0) if it does not."""

    @abstractmethod
    def held(self, engine: int) -> int:
        """Requests of ours on an engine."""

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
        super().__init__(engines, classes, estimator, clock)
        self.binding = binding
        self.tables = tables
        self.fleet = empty_fleet(engines, batch_size, classes, reserve=bool(tables.reserve))
        self._draws = Generator(SFC64(SeedSequence(seed)))
        self._waiting: tuple[OrderedDict[Ticket, None], ...] = tuple(OrderedDict() for _ in range(classes))
        self._buffered = tuple(tuple(OrderedDict[Ticket, None]() for _ in range(classes)) for _ in (MIXED, SOLO))
        self._again: set[Ticket] = set()
        self._then(REGROUP, 0)  # compiles
        if estimator is not None:
            estimator.compile()

    def enter(self, ticket: Ticket) -> None:
        self._note_arrived(ticket)
        self._wait_for_prefill(ticket)
        if self.estimator is not None:
            self.estimator.waits(ticket.cls, ticket.since)
        self._then(NOTHING)

    def prompt_read(self, ticket: Ticket, tokens: int) -> bool:
        self._note_prompt_read(ticket, tokens)
        g = ticket.engine
        if self.binding == "late" and not ticket.stays:
            self._route(ticket)
        elif ticket.decode_engine < 0 or self._lost_booking(ticket):
            self._decode_on(ticket, g)
            self._then(STAY_ON, g)
        else:
            self._decode_on(ticket, ticket.decode_engine)
            self._then(DROP_PREFILL, g)
        return ticket.stage is Stage.DECODE

    def leave(self, ticket: Ticket, *, weary: bool = False) -> None:
        if ticket.stage is Stage.DONE:
            return
        move = self._give_up_place(ticket, weary)
        ticket.stage = Stage.DONE
        self._again.discard(ticket)
        self._then(*move)

    def enter_again(self, ticket: Ticket) -> None:
        self._do(*self._give_up_place(ticket, False))
        self._again.add(ticket)
        ticket.since = ticket.arrived
        self._wait_for_prefill(ticket)
        self._before_the_younger(ticket)
        self._then(NOTHING)

    def engine_up(self, engine: int, foreign: int) -> None:
        self._do(BRING_UP, engine, self._within(foreign))
        self._regroup()

    def engine_down(self, engine: int) -> None:
        self._do(TAKE_DOWN, engine)
        self._regroup()

    def set_foreign(self, engine: int, foreign: int) -> None:
        foreign = self._within(foreign)
        if foreign != self.fleet.gpu["closed"][engine]:
            self._then(SET_CLOSED, engine, foreign)

    def adopt(self, tables: Tables) -> None:
        self.tables = tables
        if bool(tables.reserve) != self.fleet.reserve:
            self.fleet = self.fleet._replace(reserve=bool(tables.reserve))
        if not tables.split_buffers:
            self._into_one_buffer()
        self._regroup()

    def queued(self, ticket: Ticket) -> tuple[int, int]:
        if ticket.stage is not Stage.WAITING:
            return 0, 0
        return len(self._waiting[ticket.cls]), sum(map(len, self._waiting))

    def held(self, engine: int) -> int:
        prefills = int(self.fleet.gpu["prefill_seat"][engine] != NOWHERE)
        return prefills + int(self.fleet.decodes[engine].sum())

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

    def _do(self, move: int, a: int = 0, b: int = 0) -> int:
        """One move after which nobody starts; what it came to."""
        moves(self.fleet, self.tables, move, a, b, 0.0, False, self._draws)
        return int(self.fleet.outcome[0])

    def _then(self, move: int, a: int = 0, b: int = 0) -> None:
        """One move, then start what may start."""
        self._start_all(moves(self.fleet, self.tables, move, a, b, 0.0, True, self._draws))

    def _lost_booking(self, ticket: Ticket) -> bool:
        """Whether the engine where its decode was to go is down; the slot is given up then."""
        if self.fleet.gpu["group"][ticket.decode_engine] != OUT:
            return False
        self._do(LEAVE_SLOT, ticket.decode_engine, ticket.cls)
        return True

    def _route(self, ticket: Ticket) -> None:
        """Its prefill has ended: its decode takes a slot or waits, and others start."""
        ticket.since = self.clock()
        code = moves(self.fleet, self.tables, END_PREFILL, ticket.engine, 0, ticket.since, True, self._draws)
        to = int(self.fleet.outcome[0])
        if to < 0:
            self._wait_for_decode(ticket, -1 - to)
        else:
            self._decode_on(ticket, to)
        self._start_all(code)

    def _start_all(self, code: int) -> None:
        """Take who has started off its queue, and ask for the next."""
        while code >= 0:
            place, kind = divmod(code, KINDS)
            g, cls = divmod(place, self.classes)
            if kind == PREFILL:
                self._start_prefill(cls, g)
            else:
                self._start_decode(cls, g, kind)
            code = moves(self.fleet, self.tables, NOTHING, 0, 0, 0.0, True, self._draws)

    def _start_prefill(self, cls: int, g: int) -> None:
        ticket, _ = self._waiting[cls].popitem(last=False)
        self._head(self.fleet.waiting_since, cls, self._waiting[cls])
        self._wait_ended(ticket)
        ticket.stage = Stage.PREFILL
        ticket.engine = g
        ticket.decode_engine = -1
        ticket.attempts += 1
        self.taken[g] += 1
        if self.binding == "early" and not ticket.stays:
            ticket.decode_engine = self._do(BOOK_DECODE, g)
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

    def _before_the_younger(self, ticket: Ticket) -> None:
        """To the front of its class, but for those sent back before that came earlier."""
        line = self._waiting[ticket.cls]
        older = list(takewhile(lambda other: other.arrived < ticket.arrived, line))
        for each in (ticket, *reversed(older)):
            line.move_to_end(each, last=False)
        self._head(self.fleet.waiting_since, ticket.cls, line)

    def _wait_for_decode(self, ticket: Ticket, buffer: int) -> None:
        ticket.buffer = buffer
        ticket.wait(Stage.BUFFERED)
        self._buffered[buffer][ticket.cls][ticket] = None
        if self.estimator is not None:
            self.estimator.waits(ticket.cls, ticket.since)

    def _into_one_buffer(self) -> None:
        """Under a plan with one decode buffer all wait in the first, in the order in which they came."""
        for cls, (line, other) in enumerate(zip(*self._buffered, strict=True)):
            if not other:
                continue
            merged = sorted((*line, *other), key=lambda ticket: ticket.since)
            line.clear()
            other.clear()
            for ticket in merged:
                ticket.buffer = MIXED
                line[ticket] = None
            self.fleet.buffered[:, cls] = len(merged), 0
            self.fleet.buffered_since[:, cls] = merged[0].since, np.inf

    def _decode_on(self, ticket: Ticket, g: int) -> None:
        ticket.stage = Stage.DECODE
        ticket.decode_engine = g
        if g != ticket.engine:
            self.taken[g] += 1

    def _give_up_place(self, ticket: Ticket, weary: bool) -> tuple[int, int, int]:
        """Take a request out of the queue; or the move that takes it off the slot that it holds."""
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
            if ticket.decode_engine >= 0:
                self._do(LEAVE_SLOT, ticket.decode_engine, ticket.cls)
            return DROP_PREFILL, ticket.engine, 0
        elif ticket.stage is Stage.DECODE:
            return LEAVE_SLOT, ticket.decode_engine, ticket.cls
        return NOTHING, 0, 0

    def _wait_ended(self, ticket: Ticket, weary: bool = False) -> None:
        """Tell the estimator, but for those that were sent back into the queue: they have been served."""
        if self.estimator is None or (ticket in self._again and ticket.stage is Stage.WAITING):
            return
        if weary:
            self.estimator.left(ticket.cls, self.clock())
        else:
            self.estimator.waits_no_more(ticket.cls, self.clock())

    def _regroup(self) -> None:
        self._then(REGROUP, min(int(self.tables.mixed_gpus), int(self.fleet.up[0])))

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
        super().__init__(engines, classes, estimator, clock)
        self.rule = rule
        self._up = np.zeros(engines, bool)
        self._foreign = np.zeros(engines, np.int64)
        self._load = np.zeros(engines, np.int64)
        self._unread = np.zeros(engines, np.int64)
        self._prefilling = np.zeros((engines, classes), np.int64)
        self._decoding = np.zeros((engines, classes), np.int64)
        self._unread_by_class = [0] * classes
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
        self._unread_by_class[ticket.cls] -= 1
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
            ticket, _ = self._homeless.popitem(last=False)
            self._send_to(ticket, self._choose(ticket))

    def engine_down(self, engine: int) -> None:
        self._up[engine] = False

    def set_foreign(self, engine: int, foreign: int) -> None:
        self._foreign[engine] = foreign

    def adopt(self, tables: Tables) -> None:
        """A rule of placement reads no plan."""

    def queued(self, ticket: Ticket) -> tuple[int, int]:
        """Engines queue: a prompt waits where another one is unread on its engine, with all that are unread."""
        if ticket.stage is Stage.PREFILL and self._prefilling[ticket.engine].sum() == 1:
            return 0, 0
        waiting = self._unread_by_class
        return waiting[ticket.cls], sum(waiting)

    def held(self, engine: int) -> int:
        return int(self._load[engine])

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
        self._unread_by_class[ticket.cls] += 1
        if self._up.any():
            self._send_to(ticket, self._choose(ticket))
        else:
            self._homeless[ticket] = None

    def _send_to(self, ticket: Ticket, g: int) -> None:
        self._load[g] += 1
        self._unread[g] += ticket.prompt
        self._prefilling[g, ticket.cls] += 1
        ticket.stage = Stage.PREFILL
        ticket.engine = ticket.decode_engine = g
        ticket.attempts += 1
        self.taken[g] += 1
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
        if ticket.stage in (Stage.WAITING, Stage.PREFILL):
            self._unread_by_class[ticket.cls] -= 1
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
