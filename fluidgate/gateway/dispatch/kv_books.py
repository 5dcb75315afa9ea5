"""KV memory that requests on an engine hold: what several of them begin with alike is held once."""

from __future__ import annotations

from collections import Counter

from fluidgate.gateway.dispatch.ticket import Ticket


class KvBook:
    """Tokens of KV memory of an engine, by expectation, and who holds them.

    Attributes:
        tokens: held, each block of a prompt counted once, and of answers what they are expected to have.
    """

    def __init__(self) -> None:
        self.tokens = 0.0
        self._holders: dict[Ticket, tuple[float, list[int]]] = {}
        self._blocks = Counter[int]()
        self._weight: dict[int, float] = {}

    def __len__(self) -> int:
        """Requests."""
        return len(self._holders)

    def needs(self, ticket: Ticket, output: float) -> float:
        """Tokens that are held more once a request is there."""
        return ticket.prompt + output - self._shared(ticket) * _block(ticket)

    def add(self, ticket: Ticket, output: float) -> None:
        block = _block(ticket)
        hashes = _hashes(ticket)
        new = hashes[self._shared(ticket) :]
        alone = ticket.prompt - len(hashes) * block + output
        self._blocks.update(hashes)
        self._weight.update(dict.fromkeys(new, block))
        self._holders[ticket] = alone, hashes
        self.tokens += len(new) * block + alone

    def remove(self, ticket: Ticket) -> None:
        alone, hashes = self._holders.pop(ticket)
        self.tokens -= alone
        for block in hashes:
            self._blocks[block] -= 1
            if self._blocks[block] == 0:
                del self._blocks[block]
                self.tokens -= self._weight.pop(block)
        if not self._holders:
            self.tokens = 0.0

    def _shared(self, ticket: Ticket) -> int:
        """Blocks of a prompt that others hold: its first ones, since the hash of each stands for all before it."""
        if ticket.chain is None:
            return 0
        hashes = ticket.chain.hashes
        low, high = 0, len(hashes)
        while low < high:
            middle = (low + high + 1) // 2
            if int(hashes[middle - 1]) in self._weight:
                low = middle
            else:
                high = middle - 1
        return low


def _hashes(ticket: Ticket) -> list[int]:
    hashes: list[int] = [] if ticket.chain is None else ticket.chain.hashes.tolist()
    return hashes


def _block(ticket: Ticket) -> float:
    """Tokens of a block of its prompt."""
    chain = ticket.chain
    return 0.0 if chain is None or chain.size == 0 else ticket.prompt * chain.block / chain.size
