"""What a rank of an engine has told of its KV memory so far, in the words of vLLM's KV events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ON_THE_GPU = (None, "GPU")


@dataclass(frozen=True)
class KvEvent:
    """Blocks that were stored or removed, or all of them at once.

    Attributes:
        kind: "BlockStored", "BlockRemoved" or "AllBlocksCleared".
        hashes: of the blocks, as the engine has them; `size`, tokens of each.
        medium: where they are; None for the GPU.
    """

    kind: str
    hashes: tuple[Any, ...] = ()
    size: int = 0
    medium: str | None = None


class KvCount:
    """Blocks with content, counted from the rank's first event on.

    Attributes:
        tokens: in them; None while that is not known, as events were missed.
        full: whether some have been taken out for others since that is known: it has no more room then.
    """

    def __init__(self) -> None:
        self.tokens: int | None = None
        self.full = False
        self._blocks: dict[Any, int] = {}
        self._next = -1

    def take(self, number: int, events: Iterable[KvEvent]) -> bool:
        """The events of a batch of such a number; whether all blocks were cleared in it."""
        if number == 0:
            self._begin()
        elif number != self._next:
            self.tokens, self.full = None, False
        self._next = number + 1
        cleared = False
        for event in events:
            if event.kind == "AllBlocksCleared":
                self._begin()
                cleared = True
            elif self.tokens is not None and event.medium in ON_THE_GPU:
                self._count(event)
        return cleared

    def _begin(self) -> None:
        self.tokens, self.full = 0, False
        self._blocks.clear()

    def _count(self, event: KvEvent) -> None:
        """A block may be there twice: it is counted once, as what can be found."""
        assert self.tokens is not None
        for each in event.hashes:
            if event.kind == "BlockStored":
                self.tokens += 0 if each in self._blocks else event.size
                self._blocks[each] = event.size
            elif event.kind == "BlockRemoved":
                self.tokens -= self._blocks.pop(each, 0)
                self.full = True
