"""Dispatching by a rule of placement: no gate, the engines queue."""

from __future__ import annotations

from collections import Counter, OrderedDict

import numpy as np

from fluidgate.gateway.dispatch.dispatcher import Clock, Counts, Dispatcher, EngineState
from fluidgate.gateway.dispatch.loads import EngineLoads
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.gateway.prefixes import PrefixIndex
from fluidgate.policies.decisions.placement import NOTHING_SAID, Criteria
from fluidgate.policies.decisions.tables import Tables
from fluidgate.replanning import Estimator


class Placed(Dispatcher):
    """A rule of placement: each request goes to an engine as it arrives, and stays there; the engines queue.

    The rules are those of the simulator's published policies, in the same code.
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
        criteria: Criteria = NOTHING_SAID,
        prefixes: PrefixIndex | None = None,
    ) -> None:
        super().__init__(engines, classes, estimator, clock, prefixes)
        self._foreign = np.zeros(engines, np.int64)
        self._held = np.zeros(engines, np.int64)
        self._prefilling = np.zeros((engines, classes), np.int64)
        self._decoding = np.zeros((engines, classes), np.int64)
        self._unread_by_class = [0] * classes
        self._unread_by_key: Counter[str] = Counter()
        self._unplaced: OrderedDict[Ticket, None] = OrderedDict()
        self._loads = EngineLoads(rule, engines, seed, criteria)

    def enter(self, ticket: Ticket) -> None:
        self._note_arrived(ticket)
        self._place(ticket)

    def prompt_read(self, ticket: Ticket, tokens: int) -> bool:
        self._note_prompt_read(ticket, tokens)
        self._prefilling[ticket.engine, ticket.cls] -= 1
        self._decoding[ticket.engine, ticket.cls] += 1
        self._loads.change(ticket.engine, 0, -ticket.unread)
        self._count_unread(ticket, -1)
        ticket.stage = Stage.DECODE
        return True

    def leave(self, ticket: Ticket, *, abandoned: bool = False) -> None:
        if ticket.stage is Stage.DONE:
            return
        self._give_up_place(ticket)
        ticket.stage = Stage.DONE

    def enter_again(self, ticket: Ticket) -> None:
        self._give_up_place(ticket)
        self._place(ticket)

    def go_beside(self, ticket: Ticket, engine: int) -> None:
        if ticket.stage is Stage.NEW:
            self._note_arrived(ticket)
        else:
            self._give_up_place(ticket)
        ticket.wait(Stage.WAITING)
        self._count_unread(ticket, 1)
        self._send_to(ticket, engine)

    def engine_up(self, engine: int, foreign: int, role: str = "both") -> None:
        self._loads.set_up(engine, True)
        self.set_foreign(engine, foreign)
        while self._unplaced:
            ticket, _ = self._unplaced.popitem(last=False)
            self._place_now(ticket)

    def engine_down(self, engine: int) -> None:
        self._loads.set_up(engine, False)

    def set_foreign(self, engine: int, foreign: int) -> None:
        self._loads.change(engine, foreign - int(self._foreign[engine]), 0)
        self._foreign[engine] = foreign

    def show_queue(self, engine: int, waiting: int, used: float) -> None:
        self._loads.show_queue(engine, waiting, used)

    def adopt(self, tables: Tables) -> None:
        """A rule of placement reads no plan."""

    def queued(self, ticket: Ticket) -> tuple[int, int]:
        """Engines queue: a prompt waits where another one is unread on its engine, with all that are unread."""
        if ticket.stage is Stage.PREFILL and self._prefilling[ticket.engine].sum() == 1:
            return 0, 0
        waiting = self._unread_by_class
        return waiting[ticket.cls], sum(waiting)

    def waiting_of(self, key: str) -> int:
        """Prompts of a key that engines have not read."""
        return self._unread_by_key[key]

    def takes(self, engine: int) -> bool:
        return self._loads.is_up(engine)

    def held(self, engine: int) -> int:
        return int(self._held[engine])

    def counts(self) -> Counts:
        nobody = np.zeros(self.classes, np.int64)
        mixed = self._prefilling.any(axis=1)
        waiting = nobody.copy()
        for ticket in self._unplaced:
            waiting[ticket.cls] += 1
        return Counts(
            waiting,
            self._prefilling.sum(axis=0),
            nobody,
            self._decoding[mixed].sum(axis=0),
            self._decoding[~mixed].sum(axis=0),
        )

    def state(self, engine: int) -> EngineState:
        return EngineState(
            "placed" if self._loads.is_up(engine) else "down",
            int(self._prefilling[engine].sum()),
            int(self._decoding[engine].sum()),
            int(self._foreign[engine]),
        )

    def _place(self, ticket: Ticket) -> None:
        ticket.wait(Stage.WAITING)
        self._count_unread(ticket, 1)
        if self._loads.any_up:
            self._place_now(ticket)
        else:
            self._unplaced[ticket] = None

    def _place_now(self, ticket: Ticket) -> None:
        self._look_up(ticket)
        self._send_to(ticket, self._loads.place(ticket.prompt, ticket.reuse))

    def _send_to(self, ticket: Ticket, g: int) -> None:
        self._held[g] += 1
        self._note_sent(ticket, g)
        self._loads.change(g, 1, ticket.unread)
        self._prefilling[g, ticket.cls] += 1
        ticket.stage = Stage.PREFILL
        ticket.engine = ticket.decode_engine = g
        ticket.attempts += 1
        self.taken[g] += 1
        ticket.go(g)

    def _count_unread(self, ticket: Ticket, change: int) -> None:
        self._unread_by_class[ticket.cls] += change
        self._unread_by_key[ticket.key] += change

    def _give_up_place(self, ticket: Ticket) -> None:
        if ticket.stage in (Stage.WAITING, Stage.PREFILL):
            self._count_unread(ticket, -1)
        if ticket.stage is Stage.WAITING:
            self._unplaced.pop(ticket, None)
            return
        g = ticket.engine
        reading = ticket.stage is Stage.PREFILL
        self._note_left(ticket, read=not reading)
        self._held[g] -= 1
        self._loads.change(g, -1, -ticket.unread if reading else 0)
        (self._prefilling if reading else self._decoding)[g, ticket.cls] -= 1
