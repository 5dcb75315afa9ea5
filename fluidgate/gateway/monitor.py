"""Looks after the engines: who answers, and who serves requests that are not the gateway's."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from fluidgate.gateway.engines import Adapter, EngineError, Load

if TYPE_CHECKING:
    from fluidgate.gateway.gateway import Gateway

log = logging.getLogger("fluidgate.gateway")

ANSWER_SECONDS = 5.0
"""An engine that takes longer for its load is down."""

AGREEING = 2
"""So many looks in a row must see requests of others before their slots are closed: ours may be on their way."""


class Monitor:
    """One watch an engine. An engine is up when its last look was answered.

    Requests of others (of a gateway before this one, or of clients that go past it) are those that the engine counts
    beyond ours; their slots are closed for as long as they are seen.
    """

    def __init__(self, gateway: Gateway, seconds: float) -> None:
        self._gateway = gateway
        self._seconds = seconds
        self._watches: list[asyncio.Task[None]] = []
        self.up = [False] * len(gateway.adapters)
        self.loads: list[Load | None] = [None] * len(gateway.adapters)
        self._excess: list[list[int]] = [[] for _ in gateway.adapters]
        self._asleep = [asyncio.Event() for _ in gateway.adapters]

    async def first_look(self) -> None:
        """Look at all engines once, before anything is served."""
        await asyncio.gather(*(self._look(g, adapter) for g, adapter in enumerate(self._gateway.adapters)))

    def start(self) -> None:
        self._watches = [asyncio.create_task(self._watch(g)) for g in range(len(self.up))]

    async def stop(self) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    def suspect(self, g: int) -> None:
        """An engine has failed a request: it is down until it answers a look, which is taken soon."""
        if self.up[g]:
            self._fell(g, "it failed a request")
        self._asleep[g].set()

    def back_off(self, g: int) -> None:
        """An engine takes no requests now: all its slots are closed until the next look."""
        self._excess[g].clear()
        self._gateway.dispatcher.set_foreign(g, self._gateway.batch_size)

    async def _watch(self, g: int) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._asleep[g].wait()
                await asyncio.sleep(min(0.1, self._seconds / 4))
            self._asleep[g].clear()
            await self._look(g, self._gateway.adapters[g])

    async def _look(self, g: int, adapter: Adapter) -> None:
        before = self._ours(g)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                load = await adapter.load()
        except (EngineError, TimeoutError) as error:
            if self.up[g]:
                self._fell(g, str(error) or "no answer in time")
            return
        self.loads[g] = load
        excess = max(0, load.running + load.waiting - max(before, self._ours(g)))
        if not self.up[g]:
            self.up[g] = True
            log.info("engine %s is up%s", adapter.url, f", {excess} requests of others on it" if excess else "")
            self._excess[g] = [excess]
            self._gateway.engine_rose(g, excess)
            return
        self._excess[g] = [*self._excess[g], excess][-AGREEING:]
        self._gateway.dispatcher.set_foreign(g, min(self._excess[g]))

    def _fell(self, g: int, why: str) -> None:
        self.up[g] = False
        self.loads[g] = None
        log.warning("engine %s is down: %s", self._gateway.adapters[g].url, why)
        self._gateway.engine_fell(g)

    def _ours(self, g: int) -> int:
        return self._gateway.ours_on(g)
