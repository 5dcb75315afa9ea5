"""How late the client itself is: what it sees is late as well."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from contextlib import suppress
from typing import Self

import numpy as np

BEAT = 0.005
"""s between two looks at the clock."""


class Pace:
    """Wakes up every few milliseconds and notes by how much it was late.

    Attributes:
        times, late: of each look, s of `time.perf_counter`, and how late it was, s.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.late: list[float] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _beat(self) -> None:
        due = time.perf_counter() + BEAT
        while True:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            now = time.perf_counter()
            self.times.append(now)
            self.late.append(max(0.0, now - due))
            due = now + BEAT

    def worst(self, begin: float, end: float) -> float:
        """How late it was at most between two times, s."""
        first, last = bisect_left(self.times, begin), bisect_left(self.times, end + BEAT)
        return max(self.late[first:last], default=0.0)

    @property
    def usual(self) -> float:
        """How late it was in 9 of 10 cases at most, s."""
        return float(np.quantile(self.late, 0.9)) if self.late else 0.0
