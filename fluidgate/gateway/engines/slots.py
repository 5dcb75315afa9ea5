"""The slots of one server, dealt out one request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """Slots 0 to `count - 1`; the one that has been free for longest is dealt first, so what is in the others lasts.

    Attributes:
        count: of slots.
        uses: how often each has been dealt.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.uses = [0] * count
        self._free = list(range(count))
        self._any = asyncio.Semaphore(count)

    @asynccontextmanager
    async def one(self, wanted: int | None = None) -> AsyncIterator[int]:
        """A slot, `wanted` if it is free; waits for its turn."""
        async with self._any:
            slot = self._free.pop(self._free.index(wanted) if wanted in self._free else 0)
            self.uses[slot] += 1
            try:
                yield slot
            finally:
                self._free.append(slot)
