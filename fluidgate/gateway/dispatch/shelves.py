"""Who of a class waits, by key: the next ones are found at once.

Those of a class with an index are in order of how much is to be read where most of it is, others in order of arrival.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain, islice

from fluidgate.gateway.dispatch.ticket import Ticket

Line = OrderedDict[Ticket, None]


class Shelves:
    """Those of a key who have about as much to read, to a factor of two, are in order of arrival; or all of them."""

    def __init__(self) -> None:
        self._of: dict[str, dict[int, Line]] = {}

    def add(self, ticket: Ticket, by_reading: bool) -> None:
        """
        Args:
            by_reading: whether its class has an index.
        """
        found = 0 if ticket.reuse is None or ticket.reuse.count[0] == 0 else int(ticket.reuse.tokens[0])
        ticket.shelf = max(0, (ticket.prompt - found).bit_length() - 1) if by_reading else 0
        self._of.setdefault(ticket.key, {}).setdefault(ticket.shelf, OrderedDict())[ticket] = None

    def remove(self, ticket: Ticket) -> None:
        """It waits no more; harmless where it is on none."""
        if ticket.shelf < 0:
            return
        shelves = self._of[ticket.key]
        line = shelves[ticket.shelf]
        del line[ticket]
        if not line:
            del shelves[ticket.shelf]
        if not shelves:
            del self._of[ticket.key]
        ticket.shelf = -1

    def first(self, key: str, most: int) -> Iterator[Ticket]:
        """Up to `most` of a key, shelf by shelf, on each those who wait longest."""
        shelves = self._of.get(key, {})
        return islice(chain.from_iterable(shelves[shelf] for shelf in sorted(shelves)), most)
