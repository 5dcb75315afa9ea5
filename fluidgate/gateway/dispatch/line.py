"""Who of a class waits for a prefill, and who is next: fair among keys, first come first served within one.

Start-time fair queueing: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996; before many servers at
a time, W. Jin, J. S. Chase, J. Kaur, "Interposed proportional sharing for a storage service utility", SIGMETRICS 2004.
A request costs its tokens. What it costs is foretold when it starts and set right when it is known, as in the virtual
token counter of Y. Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024.

Between any two keys that both wait throughout, tokens started by weight differ at most by the largest request of each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, nsmallest
from itertools import chain, count, takewhile

from fluidgate.gateway.dispatch.account import Account
from fluidgate.gateway.dispatch.ticket import Ticket


class KeyLine:
    """Those of one key, in order of arrival.

    Attributes:
        listed: whether the heap has an entry for it; one whose last request has left keeps it until it comes up.
    """

    __slots__ = ("account", "key", "listed", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.account = Account()
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()
        self.listed = False


class FairLine:
    """The line of a class. A request costs O(log keys).

    Each key has a tag: the virtual time at which its next request may start. The lowest is next, of equals the one that
    has waited in front for longer. A start moves the key's tag on by the request's tokens over the key's weight, and
    the virtual time of all to the tag that it started at; a key that comes into the line starts there at the earliest.
    Who was sent back started before all that wait, and goes before them, charged once.
    """

    def __init__(self, cost: Callable[[Ticket], float]) -> None:
        """
        Args:
            cost: tokens that a request is expected to take.
        """
        self._cost = cost
        self._keys: dict[str, KeyLine] = {}
        self._heap: list[tuple[float, int, KeyLine]] = []
        self._back: OrderedDict[Ticket, None] = OrderedDict()
        self._order = count()
        self._now = 0.0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Ticket]:
        """Those sent back, then those of each key in their order."""
        return chain(self._back, *(line.waiting for line in self._keys.values()))

    def waiting_of(self, key: str) -> int:
        """How many of a key wait."""
        line = self._keys.get(key)
        return sum(ticket.key == key for ticket in self._back) + (0 if line is None else len(line.waiting))

    @property
    def head(self) -> Ticket | None:
        """Who is next; None if nobody waits."""
        if self._back:
            return next(iter(self._back))
        return next(iter(self._next().waiting)) if self._size else None

    def add(self, ticket: Ticket) -> None:
        """To the end of its key's."""
        line = self._keys.get(ticket.key)
        if line is None:
            line = self._keys[ticket.key] = KeyLine(ticket.key)
        if not line.listed:
            line.account.open(self._now)
            self._list(line)
        line.waiting[ticket] = None
        self._size += 1

    def put_back(self, ticket: Ticket) -> None:
        """To the front of all, but for those put back before that came earlier."""
        older = list(takewhile(lambda other: other.arrived < ticket.arrived, self._back))
        self._back[ticket] = None
        for each in (ticket, *reversed(older)):
            self._back.move_to_end(each, last=False)
        self._size += 1

    def pop(self) -> Ticket:
        """The head starts."""
        if self._back:
            ticket, _ = self._back.popitem(last=False)
        else:
            line = self._next()
            heappop(self._heap)
            line.listed = False
            ticket, _ = line.waiting.popitem(last=False)
            self._now = line.account.tag
            self._charge(ticket, line)
        self._lost_one()
        return ticket

    def take(self, ticket: Ticket) -> None:
        """It starts before those in front of it; its key pays as for the head."""
        if ticket in self._back:
            del self._back[ticket]
        else:
            line = self._keys[ticket.key]
            self._now = self._next().account.tag
            del line.waiting[ticket]
            self._heap = [entry for entry in self._heap if entry[2] is not line]
            heapify(self._heap)
            line.listed = False
            self._charge(ticket, line)
        self._lost_one()

    def turns(self, most: int) -> Iterator[str | None]:
        """Whose turn it is: None for those sent back, then the names of up to `most` keys that wait, in order."""
        if self._back:
            yield None
        for _, _, line in nsmallest(most, (entry for entry in self._heap if entry[2].waiting)):
            yield line.key

    @property
    def sent_back(self) -> Iterator[Ticket]:
        """Those that were put back, who go first."""
        return iter(self._back)

    def remove(self, ticket: Ticket) -> None:
        """It leaves before its turn, and costs nothing."""
        if ticket in self._back:
            del self._back[ticket]
        else:
            del self._keys[ticket.key].waiting[ticket]
        self._lost_one()

    def _charge(self, ticket: Ticket, line: KeyLine) -> None:
        """One of a key starts, which is listed anew if more of it wait."""
        ticket.cost = self._cost(ticket)
        ticket.account = line.account
        line.account.pay(ticket.cost / ticket.weight)
        if line.waiting:
            self._list(line)

    def _list(self, line: KeyLine) -> None:
        line.listed = True
        heappush(self._heap, (line.account.tag, next(self._order), line))

    def _next(self) -> KeyLine:
        """The key that is next, once those that have left are off the top."""
        while not (line := self._heap[0][2]).waiting:
            heappop(self._heap)
            line.listed = False
        return line

    def _lost_one(self) -> None:
        """Where nobody waits, nobody has been kept waiting for another: all start anew."""
        self._size -= 1
        if self._size == 0:
            self._keys.clear()
            self._heap.clear()
            self._now = 0.0


def settle(ticket: Ticket, cost: float) -> None:
    """It is known better how many tokens a request takes that has started: its key pays them from its next start on."""
    if ticket.account is not None:
        ticket.account.owed += (cost - ticket.cost) / ticket.weight
        ticket.cost = cost
