"""Gate and placement decided together: who starts next, where it costs least, in the simulator's own code.

What lies on the engines is what the gateway has sent there: it does not see how far an iteration is (the wait for it
counts as 0), nor how much of an answer has been written (it counts as half of what is expected).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from fluidgate.compiled import by_reference, kept
from fluidgate.gateway.dispatch.fleet import OUT, Fleet
from fluidgate.gateway.dispatch.kv_books import KvBook
from fluidgate.gateway.dispatch.line import FairLine
from fluidgate.gateway.dispatch.shelves import Shelves
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.policies.decisions.homes import (
    LOOKED_AT,
    Places,
    cheapest,
    claim,
    drop_claims,
    is_slow,
    new_places,
    show,
    turn,
)
from fluidgate.policies.decisions.placement import Reuse, no_reuse
from fluidgate.policies.decisions.tables import Tables

SHOW = 0
FIND = 1
CLAIM = 2
DROP_CLAIMS = 3
TURN = 4

ENDLESS = 1 << 40
"""Tokens of a KV memory of which nobody knows the size."""


class Asked(NamedTuple):
    """What the compiled code sees.

    Attributes:
        places: what lies on the engines.
        reuse: where the beginning of the prompt is that is asked about.
        turn: when it is asked, see `fluidgate.policies.decisions.homes.turn`; before, when it came, s; shape (1,).
    """

    places: Places
    reuse: Reuse
    turn: Any


@dataclass
class Lying:
    """A request on an engine: tokens of context, and those that are still to be read."""

    engine: int
    context: int
    unread: int


class Homes:
    """Who waits for which engine, and what lies on each."""

    def __init__(self, tables: Tables, engines: int, classes: int, kv_tokens: int | None) -> None:
        """
        Args:
            kv_tokens: KV memory of an engine; None for endless.
        """
        self._kv_tokens = kv_tokens
        self._asked = Asked(new_places(engines), no_reuse(), np.zeros(1))
        self._state = by_reference(self._asked)
        self._books = [KvBook() for _ in range(engines)]
        self._lying: dict[Ticket, Lying] = {}
        self._shelves = tuple(Shelves() for _ in range(classes))
        self._alike: dict[int, set[Ticket]] = {}
        self._takes = np.zeros(engines, np.bool_)
        self._changed = np.ones(engines, np.bool_)
        self.adopt(tables)
        self._ask(SHOW)  # compiles

    def adopt(self, tables: Tables) -> None:
        """A new plan is in force."""
        self._tables, self._values = tables, by_reference(tables)
        self._changed[:] = True

    def waits(self, ticket: Ticket) -> None:
        """It has come into the queue, its `reuse` looked up."""
        self._shelves[ticket.cls].add(ticket, by_reading=self._tables.priority[ticket.cls] > 0.0)
        if (first := _first_block(ticket)) is not None:
            self._alike.setdefault(first, set()).add(ticket)

    def waits_no_more(self, ticket: Ticket) -> None:
        self._shelves[ticket.cls].remove(ticket)
        first = _first_block(ticket)
        if first is not None and first in self._alike:
            self._alike[first].discard(ticket)
            if not self._alike[first]:
                del self._alike[first]

    def sent(self, ticket: Ticket) -> None:
        """Its prompt is on its way: of those who wait and begin alike it is not known any more where they do."""
        first = _first_block(ticket)
        if first is not None:
            for other in self._alike.get(first, ()):
                other.reuse = None

    def add(self, ticket: Ticket, g: int) -> None:
        """It is given to engine `g`."""
        output = self._output(ticket)
        found = ticket.found(g)
        self._lying[ticket] = Lying(g, ticket.prompt + round(0.5 * output), ticket.prompt - found)
        places = self._asked.places
        places.context[g] += self._lying[ticket].context
        places.backlog[g] += self._lying[ticket].unread
        self._books[g].add(ticket, output)
        self._changed[g] = True

    def read(self, ticket: Ticket) -> None:
        """Its prompt has been read."""
        here = self._lying.get(ticket)
        if here is not None:
            self._asked.places.backlog[here.engine] -= here.unread
            self._changed[here.engine] = True
            here.unread = 0

    def remove(self, ticket: Ticket) -> None:
        """It has left its engine; harmless where it is on none."""
        here = self._lying.pop(ticket, None)
        if here is None:
            return
        places, g = self._asked.places, here.engine
        places.context[g] -= here.context
        places.backlog[g] -= here.unread
        self._books[g].remove(ticket)
        self._changed[g] = True

    def next_start(
        self, fleet: Fleet, lines: Sequence[FairLine], look_up: Callable[[Ticket], None]
    ) -> tuple[Ticket, int] | None:
        """Who starts next, and on which engine; None for nobody.

        All are asked in turn; who has no room where it costs least keeps those after it out there.

        Args:
            lines: of those who wait, by class.
            look_up: finds out where the beginning of a prompt is.
        """
        if fleet.board.state.startable[0] == 0:
            return None
        self._show_changed(fleet)
        try:
            for ticket in self._in_turn(lines, look_up):
                home, has_room = self._place_of(fleet, ticket)
                if home == NOWHERE:
                    continue
                if has_room:
                    return ticket, home
                self._ask(CLAIM, home, ticket.cls, ticket.prompt)
            return None
        finally:
            self._ask(DROP_CLAIMS)

    def _in_turn(self, lines: Sequence[FairLine], look_up: Callable[[Ticket], None]) -> Iterator[Ticket]:
        """Those who are asked, of each class its keys in the order of their fair shares."""
        waiting = [
            islice(chain.from_iterable(self._groups(line, shelves)), LOOKED_AT)
            for line, shelves in zip(lines, self._shelves, strict=True)
        ]
        heads = [next(each, None) for each in waiting]
        while any(head is not None for head in heads):
            of = max(
                (cls for cls, head in enumerate(heads) if head is not None),
                key=lambda cls: self._turn(heads[cls], look_up),
            )
            ticket, heads[of] = heads[of], next(waiting[of], None)
            assert ticket is not None
            if ticket.reuse is None:
                look_up(ticket)
            yield ticket

    def _turn(self, ticket: Ticket | None, look_up: Callable[[Ticket], None]) -> float:
        """The larger, the earlier it is asked; only of several classes does it matter."""
        assert ticket is not None
        if ticket.reuse is None:
            look_up(ticket)
        self._know(ticket)
        self._asked.turn[0] = ticket.since
        self._ask(TURN, 0, ticket.cls, ticket.prompt)
        return float(self._asked.turn[0])

    def _place_of(self, fleet: Fleet, ticket: Ticket) -> tuple[int, bool]:
        """The engine where a request costs least, NOWHERE if none takes any; and whether it has room there."""
        ready = int(fleet.board.prefill_ready[0]) if fleet.board.state.startable[0] > 0 else NOWHERE
        self._know(ticket)
        self._note_memory(ticket)
        found = self._ask(FIND, ready, ticket.cls, ticket.prompt)
        if found == NOWHERE:
            return NOWHERE, False
        home, takes = divmod(found, 2)
        return home, takes == 1 and fleet.gpu["prefill_position"][home] != NOWHERE and self._fits(ticket, home)

    def _know(self, ticket: Ticket) -> None:
        """The compiled code is asked about it next."""
        known = self._asked.reuse
        known.count[0] = 0 if ticket.reuse is None else ticket.reuse.count[0]
        if ticket.reuse is not None:
            known.gpu[:], known.tokens[:] = ticket.reuse.gpu, ticket.reuse.tokens

    def _note_memory(self, ticket: Ticket) -> None:
        """What memory it has to wait for on each engine; what is not known to be there, nobody holds there."""
        places, output = self._asked.places, self._output(ticket)
        places.short[:] = round(ticket.prompt + output) - places.free
        if self._kv_tokens is None or ticket.reuse is None:
            return
        for g in ticket.reuse.gpu[: ticket.reuse.count[0]].tolist():
            places.short[g] = round(self._books[g].needs(ticket, output)) - places.free[g]

    def _groups(self, line: FairLine, shelves: Shelves) -> Iterator[Sequence[Ticket]]:
        """Those of a class who are looked at, key by key in the order of their fair shares."""
        left = LOOKED_AT
        for key in line.turns(LOOKED_AT):
            group = list(islice(line.sent_back, left) if key is None else shelves.first(key, left))
            left -= len(group)
            yield group
            if left <= 0:
                return

    def _fits(self, ticket: Ticket, g: int) -> bool:
        """Whether its memory and its answer's are there beside what is booked; an engine without requests takes any."""
        book = self._books[g]
        if self._kv_tokens is None or len(book) == 0:
            return True
        return book.tokens + book.needs(ticket, self._output(ticket)) <= self._kv_tokens

    def _show_changed(self, fleet: Fleet) -> None:
        """What lies on engines is as the fleet has it."""
        places = self._asked.places
        takes = fleet.gpu["group"] != OUT
        changed = self._changed | (fleet.gpu["occupied"] != places.decodes) | (takes != self._takes)
        places.decodes[:] = fleet.gpu["occupied"]
        self._takes, self._changed[:] = takes, False
        for g in np.flatnonzero(changed).tolist():
            if self._kv_tokens is None:
                places.free[g] = ENDLESS
            else:
                places.free[g] = self._kv_tokens - round(self._books[g].tokens)
            self._ask(SHOW, g, int(takes[g]))

    def _output(self, ticket: Ticket) -> float:
        """Tokens that its answer is expected to have."""
        return min(float(self._tables.expected_output[ticket.cls]), ticket.most_output)

    def _ask(self, what: int, g: int = 0, cls: int = 0, prompt: int = 0) -> int:
        return int(ask_homes(self._state, self._values, what, g, cls, prompt))


def _first_block(ticket: Ticket) -> int | None:
    """Hash of the first block of its prompt; None for one without."""
    chain = ticket.chain
    return None if chain is None or len(chain.hashes) == 0 else int(chain.hashes[0])


def ask_homes_kernel(asked, tables, what, g, cls, prompt):
    """What `what` says.

    SHOW: engine `g` has changed, and takes requests or not (`cls`). FIND: the home of a request, `g` being ready, twice
    its number, and 1 more if a decode may go there for which nobody waits. CLAIM: it waits for `g`; DROP_CLAIMS: all
    have been asked. TURN: when it is asked.
    """
    if what == SHOW:
        show(asked.places, tables, g, cls == 1)
        return g
    if what == DROP_CLAIMS:
        drop_claims(asked.places, tables)
        return g
    if what == TURN:
        most = asked.reuse.tokens[0] if asked.reuse.count[0] > 0 else 0
        asked.turn[0] = turn(tables, cls, prompt, most, asked.turn[0])
        return g
    if what == CLAIM:
        found = 0
        for k in range(asked.reuse.count[0]):
            if asked.reuse.gpu[k] == g:
                found = asked.reuse.tokens[k]
        claim(asked.places, tables, g, prompt, found)
        return g
    home = cheapest(asked.places, tables, asked.reuse, g, cls, prompt)
    if home == NOWHERE:
        return NOWHERE
    takes = asked.places.claims[0, home] == 0 and not is_slow(asked.places, tables, home, prompt)
    return 2 * home + (1 if takes else 0)


ask_homes = kept(ask_homes_kernel, "the gateway's choice of places", seconds=3)
