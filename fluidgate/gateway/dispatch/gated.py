"""Dispatching by a policy's gate and router, its decisions taken in compiled code."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from fluidgate.compiled import by_reference
from fluidgate.compiled.random import stream
from fluidgate.gateway.dispatch.decisions import (
    BOOK_DECODE,
    BRING_UP,
    DROP_PREFILL,
    END_PREFILL,
    GO_ON,
    KINDS,
    LEAVE_SLOT,
    NOBODY,
    NOTHING,
    OPEN_AGAIN,
    PREFILL,
    REGROUP,
    SET_CLOSED,
    START,
    STAY_ON,
    TAKE_DOWN,
    moves,
)
from fluidgate.gateway.dispatch.dispatcher import Clock, Counts, Dispatcher, EngineState
from fluidgate.gateway.dispatch.fleet import ANY, OUT, READS, WRITES, Fleet, empty_fleet
from fluidgate.gateway.dispatch.homes import Homes
from fluidgate.gateway.dispatch.line import FairLine, settle
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.gateway.prefixes import PrefixIndex
from fluidgate.policies.decisions.board import FAULT, NOWHERE, Functions
from fluidgate.policies.decisions.own import Decision, describe_fault, functions_of
from fluidgate.policies.decisions.tables import Tables
from fluidgate.policies.decisions.view import MIXED, SOLO
from fluidgate.replanning import Estimator

log = logging.getLogger("fluidgate.gateway")

ROLES = {"both": ANY, "prefill": READS, "decode": WRITES}


class Gated(Dispatcher):
    """The gate and the router of a policy: at most one prefill an engine, and at most B requests.

    Attributes:
        tables: in force.
        binding: "late" (the decode's engine is chosen when the prefill has ended), "early" (when it starts), "stay"
            (it is the prefill's) or "pairs" (when it starts, among engines that take nothing else).
    """

    def __init__(
        self,
        tables: Tables,
        engines: int,
        batch_size: int,
        classes: int,
        *,
        kv_tokens: int | None = None,
        binding: str = "late",
        functions: Mapping[str, Decision | None] | None = None,
        estimator: Estimator | None = None,
        clock: Clock,
        seed: int = 0,
        prefixes: PrefixIndex | None = None,
    ) -> None:
        """
        Args:
            kv_tokens: KV memory of an engine, tokens; None for no limit. A prefill starts only where its prompt and
                the mean output of its class fit beside what is booked; a prompt that has been read keeps them booked
                where it was read until its decode starts elsewhere.
            functions: a user's `gate`, `route` and `refill` in the place of the shipped ones.
            seed: of the policy's draws.
            prefixes: see `Dispatcher`. Where decodes stay, gate and placement decide together by what it says, if the
                tables are made for that (`Tables.homing`) and no gate of a user's decides.

        Raises:
            FluidgateError: such a function can't be compiled.
        """
        super().__init__(engines, classes, estimator, clock, prefixes)
        self.binding = binding
        self.tables = tables
        self._functions = dict(functions or {})
        self._tables = by_reference(tables)
        self._set_fleet(
            empty_fleet(
                engines,
                batch_size,
                classes,
                reserve=bool(tables.reserve),
                ranked=bool(tables.fewest),
                kv_tokens=kv_tokens or 0,
                pairs=binding == "pairs",
                draws=stream(SeedSequence(seed)),
                functions=functions_of(**self._functions) if self._functions else Functions(),
            )
        )
        self._waiting = tuple(FairLine(self._work) for _ in range(classes))
        self._buffered = tuple(tuple(OrderedDict[Ticket, None]() for _ in range(classes)) for _ in (MIXED, SOLO))
        self._again: set[Ticket] = set()
        self._homes: Homes | None = None
        own_gate = self._functions.get("gate") is not None
        if binding == "stay" and tables.homing and prefixes is not None and not own_gate:
            self._homes = Homes(tables, engines, classes, kv_tokens)
        self._foreign = np.zeros(engines, np.int64)
        self._beside = np.zeros(engines, np.int64)
        self._opened = False
        self._timer: asyncio.TimerHandle | None = None
        self.fleet.board.state.now[0] = self.clock()
        self._then(REGROUP, 0)  # compiles
        if estimator is not None:
            estimator.compile()

    def enter(self, ticket: Ticket) -> None:
        self._note_arrived(ticket)
        self._look_up(ticket)
        self._waiting[ticket.cls].add(ticket)
        if self._homes is not None:
            self._homes.waits(ticket)
        self._wait_for_prefill(ticket)
        if self.estimator is not None:
            self.estimator.waits(ticket.cls, ticket.since)
        self._then(NOTHING)

    def prompt_read(self, ticket: Ticket, tokens: int) -> bool:
        self._note_prompt_read(ticket, tokens)
        settle(ticket, self._work(ticket))
        if self._homes is not None:
            self._homes.read(ticket)
        if ticket.stage is Stage.BESIDE:
            return True
        g = ticket.engine
        if self.binding == "late" and not ticket.stays:
            self._route(ticket)
        elif not self.fleet.pairs and (ticket.decode_engine < 0 or self._lost_booking(ticket)):
            self._decode_on(ticket, g)
            self._then(STAY_ON, g)
        else:
            self._decode_on(ticket, ticket.decode_engine)
            self._then(DROP_PREFILL, g)
        return ticket.stage is Stage.DECODE

    def leave(self, ticket: Ticket, *, abandoned: bool = False) -> None:
        if ticket.stage is Stage.DONE:
            return
        move = self._give_up_place(ticket, abandoned)
        self._unbook(ticket)
        ticket.stage = Stage.DONE
        self._again.discard(ticket)
        self._then(*move)

    def enter_again(self, ticket: Ticket) -> None:
        self._do(*self._give_up_place(ticket, False))
        self._unbook(ticket)
        self._again.add(ticket)
        ticket.reuse = None
        ticket.since = ticket.arrived
        self._waiting[ticket.cls].put_back(ticket)
        self._wait_for_prefill(ticket)
        self._then(NOTHING)

    def go_beside(self, ticket: Ticket, engine: int) -> None:
        if ticket.stage is Stage.NEW:
            self._note_arrived(ticket)
        else:
            self._do(*self._give_up_place(ticket, False))
            self._unbook(ticket)
        ticket.stage = Stage.BESIDE
        ticket.engine = ticket.decode_engine = engine
        ticket.attempts += 1
        self.taken[engine] += 1
        self._note_sent(ticket, engine)
        self._beside[engine] += 1
        self._then(*self._closing(engine))

    def engine_up(self, engine: int, foreign: int, role: str = "both") -> None:
        self.fleet.gpu["role"][engine] = ROLES[role]
        self._set_fleet(self.fleet.with_up(self.fleet.up + 1))
        self._foreign[engine] = foreign
        self._do(BRING_UP, engine, self._closed(engine))
        self._regroup()

    def engine_down(self, engine: int) -> None:
        self._set_fleet(self.fleet.with_up(self.fleet.up - 1))
        self._do(TAKE_DOWN, engine)
        self._regroup()

    def set_foreign(self, engine: int, foreign: int) -> None:
        self._foreign[engine] = foreign
        if self._closed(engine) != self.fleet.gpu["closed"][engine]:
            self._then(*self._closing(engine))

    def adopt(self, tables: Tables) -> None:
        self.tables, self._tables = tables, by_reference(tables)
        if self._homes is not None:
            self._homes.adopt(tables)
        if bool(tables.reserve) != self.fleet.board.reserve:
            self._set_fleet(self.fleet.with_reserve(bool(tables.reserve)))
        if not tables.split_buffers:
            self._into_one_buffer()
        self._regroup()

    @property
    def release(self) -> float:
        """Epoch at which `look_again` is due if nothing happens before, s; inf for never."""
        return float(self.fleet.release[0])

    def look_again(self) -> None:
        """Time has passed: those may start who waited for a limit."""
        self._then(NOTHING)

    def averages(self) -> NDArray[np.float64]:
        """Means of the recent past, see `fluidgate.gateway.dispatch.averages`; shape (AVERAGES, classes)."""
        self._do(NOTHING)
        return np.array(self.fleet.averages)

    def queued(self, ticket: Ticket) -> tuple[int, int]:
        if ticket.stage is not Stage.WAITING:
            return 0, 0
        return len(self._waiting[ticket.cls]), sum(map(len, self._waiting))

    def waiting_of(self, key: str) -> int:
        return sum(line.waiting_of(key) for line in self._waiting)

    def note_completed(self, ticket: Ticket, output: int) -> None:
        super().note_completed(ticket, output)
        if output > 0:
            settle(ticket, ticket.read + output)

    def takes(self, engine: int) -> bool:
        return bool(self.fleet.gpu["group"][engine] != OUT)

    def held(self, engine: int) -> int:
        prefills = int(self.fleet.gpu["prefill_seat"][engine] != NOWHERE)
        return prefills + int(self.fleet.decodes[engine].sum()) + int(self._beside[engine])

    def counts(self) -> Counts:
        state = self.fleet.board.state
        return Counts(
            state.waiting.copy(),
            state.prefilling.copy(),
            state.buffered.sum(axis=0),
            state.mixed_decodes.copy(),
            state.solo_decodes.copy(),
        )

    def state(self, engine: int) -> EngineState:
        here, beside = self.fleet.gpu[engine], int(self._beside[engine])
        unread = self._unread_slots(engine)
        names = ("prefill", "decode", "down") if self.fleet.pairs else ("mixed", "solo", "down")
        return EngineState(
            names[here["group"]],
            int(here["prefill_seat"] != NOWHERE),
            int(self.fleet.decodes[engine].sum()) + beside,
            max(0, int(here["closed"]) - beside - unread) if here["group"] != OUT else 0,
        )

    def _do(self, move: int, a: int = 0, b: int = 0) -> int:
        """One move after which nobody starts; what it came to."""
        self._move(move, a, b, may_start=False)
        return int(self.fleet.outcome[0])

    def _then(self, move: int, a: int = 0, b: int = 0) -> None:
        """One move, then start what may start."""
        if self._homes is None:
            self._start_all(self._move(move, a, b))
        else:
            self._do(move, a, b)
            self._start_at_home(self._homes)

    def _move(self, move: int, a: int = 0, b: int = 0, now: float | None = None, *, may_start: bool = True) -> int:
        now = self.clock() if now is None else now
        code: int = moves(self._state, self._tables, move, a, b, now, may_start)
        if self.fleet.board.round[FAULT] != 0:
            self._take_shipped_decisions()
            if may_start and code == NOBODY:
                return self._move(NOTHING)
        return code

    def _take_shipped_decisions(self) -> None:
        """A user's decision has given an answer that it may not: from now on the shipped ones decide."""
        fault = int(self.fleet.board.round[FAULT])
        self.fleet.board.round[FAULT] = 0
        log.error("%s (the policy's base decides from now on)", describe_fault(fault, self._functions))
        self._functions = {}
        self._set_fleet(self.fleet.with_functions(Functions()))

    def _set_fleet(self, fleet: Fleet) -> None:
        self.fleet, self._state = fleet, by_reference(fleet)

    def _lost_booking(self, ticket: Ticket) -> bool:
        """Whether the engine where its decode was to go is down; the slot is given up then."""
        if self.fleet.gpu["group"][ticket.decode_engine] != OUT:
            return False
        self._do(LEAVE_SLOT, ticket.decode_engine, ticket.cls)
        return True

    def _route(self, ticket: Ticket) -> None:
        """Its prefill has ended: its decode takes a slot or waits, and others start."""
        ticket.since = self.clock()
        code = self._move(END_PREFILL, ticket.engine, now=ticket.since)
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
            code = self._move(GO_ON)
        if self._opened:
            self._opened = False
            self._then(NOTHING)
        elif self.tables.limited:
            self._look_again_in_time()

    def _start_at_home(self, homes: Homes) -> None:
        """Start prompts where they cost least, in turn, while there are such that have room."""
        while start := homes.next_start(self.fleet, self._waiting, self._look_up):
            ticket, g = start
            self._waiting[ticket.cls].take(ticket)
            homes.waits_no_more(ticket)
            self._do(START, g, ticket.cls)
            self._take_seat(ticket, g)
            homes.sent(ticket)

    def _look_again_in_time(self) -> None:
        """A class that waits for a limit may start at `release`, though nobody comes or goes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.release < np.inf:
            delay = max(0.0, self.release - self.clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self.look_again)

    def _start_prefill(self, cls: int, g: int) -> None:
        self._take_seat(self._waiting[cls].pop(), g)

    def _take_seat(self, ticket: Ticket, g: int) -> None:
        """It has left the line for the prefill of engine `g`."""
        cls = ticket.cls
        self._first(cls)
        self._book(ticket, g)
        self._wait_ended(ticket)
        ticket.stage = Stage.PREFILL
        ticket.engine = g
        ticket.decode_engine = -1
        ticket.attempts += 1
        self.taken[g] += 1
        self._note_sent(ticket, g)
        if self.fleet.pairs or (self.binding == "early" and not ticket.stays):
            ticket.decode_engine = self._do(BOOK_DECODE, g)
        ticket.go(g)

    def _start_decode(self, cls: int, g: int, buffer: int) -> None:
        line = self._buffered[buffer][cls]
        ticket, _ = line.popitem(last=False)
        self._head(self.fleet.board.state.buffered_since[buffer], cls, line)
        self._wait_ended(ticket)
        self._decode_on(ticket, g)
        ticket.go(g)

    def _wait_for_prefill(self, ticket: Ticket) -> None:
        """It is in the line, and may be the head of it."""
        ticket.wait(Stage.WAITING)
        if self._waiting[ticket.cls].head is ticket:
            self._first(ticket.cls)
        self.fleet.board.state.waiting[ticket.cls] += 1

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
            self.fleet.board.state.buffered[:, cls] = len(merged), 0
            self.fleet.board.state.buffered_since[:, cls] = merged[0].since, np.inf

    def _decode_on(self, ticket: Ticket, g: int) -> None:
        ticket.stage = Stage.DECODE
        ticket.decode_engine = g
        if g != ticket.engine:
            self.taken[g] += 1
            self._note_moved(ticket, g)
            self._unbook(ticket)
            self._book(ticket, g)

    def _give_up_place(self, ticket: Ticket, abandoned: bool) -> tuple[int, int, int]:
        """Take a request out of the queue; or the move that takes it off the slot that it holds."""
        self._note_left(ticket, read=ticket.stage is not Stage.PREFILL)
        if ticket.stage is Stage.WAITING:
            self._waiting[ticket.cls].remove(ticket)
            if self._homes is not None:
                self._homes.waits_no_more(ticket)
            self._first(ticket.cls)
            self.fleet.board.state.waiting[ticket.cls] -= 1
            self._wait_ended(ticket, abandoned)
        elif ticket.stage is Stage.BUFFERED:
            line = self._buffered[ticket.buffer][ticket.cls]
            del line[ticket]
            self._head(self.fleet.board.state.buffered_since[ticket.buffer], ticket.cls, line)
            self.fleet.board.state.buffered[ticket.buffer, ticket.cls] -= 1
            self._wait_ended(ticket, abandoned)
        elif ticket.stage is Stage.PREFILL:
            if ticket.decode_engine >= 0:
                self._do(LEAVE_SLOT, ticket.decode_engine, ticket.cls)
            return DROP_PREFILL, ticket.engine, 0
        elif ticket.stage is Stage.DECODE:
            return LEAVE_SLOT, ticket.decode_engine, ticket.cls
        elif ticket.stage is Stage.BESIDE:
            self._beside[ticket.engine] -= 1
            return self._closing(ticket.engine)
        return NOTHING, 0, 0

    def _wait_ended(self, ticket: Ticket, abandoned: bool = False) -> None:
        """Tell the estimator, but for those that were sent back into the queue: they have been served."""
        if self.estimator is None or (ticket in self._again and ticket.stage is Stage.WAITING):
            return
        if abandoned:
            self.estimator.left(ticket.cls, self.clock())
        else:
            self.estimator.waits_no_more(ticket.cls, self.clock())

    def _first(self, cls: int) -> None:
        """Somebody else is the next of a class that waits for its prefill."""
        head = self._waiting[cls].head
        self.fleet.board.state.waiting_since[cls] = np.inf if head is None else head.since
        if self.fleet.kv_tokens > 0 and head is not None:
            self.fleet.need[cls] = self._expected(head)

    def _expected(self, ticket: Ticket) -> int:
        """KV tokens that a request is expected to hold at the end."""
        return ticket.prompt + round(float(self.tables.expected_output[ticket.cls]))

    def _work(self, ticket: Ticket) -> float:
        """Tokens that a request is expected to take, its prompt as counted if it has been read."""
        output = min(float(self.tables.expected_output[ticket.cls]), ticket.most_output)
        return (ticket.read or ticket.prompt) + output

    def _book(self, ticket: Ticket, g: int) -> None:
        if self._homes is not None:
            self._homes.add(ticket, g)
        if self.fleet.kv_tokens > 0:
            ticket.kept, ticket.booked = g, self._expected(ticket)
            self.fleet.gpu["kv"][g] += ticket.booked

    def _unbook(self, ticket: Ticket) -> None:
        """Its memory is free again, and the policy is asked about it at the next move."""
        if self._homes is not None:
            self._homes.remove(ticket)
        g, ticket.kept = ticket.kept, -1
        if g < 0:
            return
        self.fleet.gpu["kv"][g] -= ticket.booked
        if self.fleet.gpu["barred"][g]:
            self._do(OPEN_AGAIN, g)
            self._opened = True

    def _regroup(self) -> None:
        if self.fleet.pairs:
            self._then(NOTHING)
            return
        self._then(REGROUP, min(int(self.tables.mixed_gpus), self.fleet.up))

    def _closed(self, engine: int) -> int:
        """Slots of an engine that no policy deals in: those of others, and of ours that are there without its leave."""
        taken = int(self._foreign[engine] + self._beside[engine]) + self._unread_slots(engine)
        return max(0, min(self.fleet.batch_size, taken))

    def _unread_slots(self, engine: int) -> int:
        """Slots that an engine does not have because it only reads, one prompt at a time."""
        return self.fleet.batch_size - 1 if self.fleet.gpu["role"][engine] == READS else 0

    def _closing(self, engine: int) -> tuple[int, int, int]:
        """The move that closes them; those of an engine that is down are closed already."""
        if self.fleet.gpu["group"][engine] == OUT:
            return NOTHING, 0, 0
        return SET_CLOSED, engine, self._closed(engine)

    @staticmethod
    def _head(since: Any, cls: int, line: OrderedDict[Ticket, None]) -> None:
        since[cls] = next(iter(line)).since if line else np.inf
