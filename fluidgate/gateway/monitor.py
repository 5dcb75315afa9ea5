"""Looks after the engines: who answers, and who serves requests that are not the gateway's."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING

from fluidgate.gateway.engines import Load
from fluidgate.gateway.roll_call import UNREADABLE

if TYPE_CHECKING:
    from fluidgate.gateway.gateway import Gateway

log = logging.getLogger("fluidgate.gateway")

ANSWER_SECONDS = 5.0
"""An engine that takes longer for its load is down."""

AGREEING = 2
"""So many looks in a row must see requests of others before their slots are closed: ours may be on their way."""

LAG = 0.1
"""s for which an engine may still count a request that has left it, or not yet count one that has come."""

LONGEST_REST = 8.0
FORGIVEN = 30.0
"""An engine that fails rests for twice as long each time, up to the former, s; after the latter all is forgotten."""


class Monitor:
    """One watch an engine. An engine is up when its last look was answered.

    Requests of others (of a gateway before this one, or of clients that go past it) are those that the engine counts
    beyond ours, those among ours that have just left; their slots are closed for as long as they are seen.
    """

    def __init__(self, gateway: Gateway, seconds: float) -> None:
        self._gateway = gateway
        self._seconds = seconds
        self._watches: list[asyncio.Task[None]] = []
        self.up = [False] * len(gateway.adapters)
        self.loads: list[Load | None] = [None] * len(gateway.adapters)
        self._excess: list[list[int]] = [[] for _ in gateway.adapters]
        self._unfit = [""] * len(gateway.adapters)
        self._falls = [0] * len(gateway.adapters)
        self._fell_at = [-math.inf] * len(gateway.adapters)
        self._rest_until = [-math.inf] * len(gateway.adapters)
        self._asleep = [asyncio.Event() for _ in gateway.adapters]

    async def first_look(self) -> None:
        """Look at all engines once, before anything is served."""
        await asyncio.gather(*(self._look(g) for g in range(len(self.up))))

    def start(self) -> None:
        self._watches = [asyncio.create_task(self._watch(g)) for g in range(len(self.up))]

    async def stop(self) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    def suspect(self, g: int) -> None:
        """An engine has failed a request: it is down until it answers a look, which is taken soon."""
        self._rest(g, min(0.1, self._seconds / 4), "it failed a request")

    def back_off(self, g: int) -> None:
        """An engine takes no requests now: others do, and it is looked at again in a while."""
        self._rest(g, self._seconds, "it takes no requests")

    def _rest(self, g: int, first: float, why: str) -> None:
        """Down for `first` s, or longer if it has been down lately: one that answers looks and fails requests."""
        self._asleep[g].set()
        if not self.up[g]:
            return
        now = self._gateway.clock()
        self._falls[g] = self._falls[g] + 1 if now - self._fell_at[g] < FORGIVEN else 0
        longer = self._seconds * 2.0 ** min(self._falls[g] - 1, 10)
        self._fell_at[g] = now
        self._rest_until[g] = now + (min(LONGEST_REST, longer) if self._falls[g] else first)
        self._fell(g, why)

    async def _watch(self, g: int) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._asleep[g].wait()
            while (rest := self._rest_until[g] - self._gateway.clock()) > 0.0:
                await asyncio.sleep(rest)
            self._asleep[g].clear()
            try:
                await self._look(g)
            except Exception:
                log.exception("engine %s: the look at it failed", self._gateway.adapters[g].url)

    async def _look(self, g: int) -> None:
        ours, came = self._gateway.dispatcher.held(g), self._gateway.dispatcher.taken[g]
        if ours:
            await asyncio.sleep(LAG)
        load = await self._load(g)
        if self._asleep[g].is_set():
            return  # it has failed a request meanwhile: this answer is from before
        if isinstance(load, str):
            self._gateway.roll_call.facts[g] = None
            if self.up[g]:
                self._fell(g, load)
            return
        self.loads[g] = load
        ours += self._gateway.dispatcher.taken[g] - came
        excess = max(0, load.running + load.waiting - ours)
        if self.up[g]:
            self._excess[g] = [*self._excess[g], excess][-AGREEING:]
            self._gateway.dispatcher.set_foreign(g, min(self._excess[g]))
        elif await self._is_fit(g):
            self._rose(g, excess)

    async def _load(self, g: int) -> Load | str:
        """How busy an engine is, or why it does not say so."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._gateway.adapters[g].load()
        except UNREADABLE as error:
            return str(error) or "no answer in time"

    async def _is_fit(self, g: int) -> bool:
        """Whether an engine that answers is what it should be; checked anew where it has been away."""
        if self._gateway.roll_call.facts[g] is not None:
            return True
        problem = await self._gateway.roll_call.again(g)
        if problem != self._unfit[g] and problem:
            log.warning("engine %s answers, but is not used: %s", self._gateway.adapters[g].url, problem)
        self._unfit[g] = problem
        return not problem

    def _rose(self, g: int, excess: int) -> None:
        self.up[g] = True
        self._excess[g] = [excess]
        beyond = f", {excess} requests of others on it" if excess else ""
        log.info("engine %s is up%s", self._gateway.adapters[g].url, beyond)
        self._gateway.engine_rose(g, excess)

    def _fell(self, g: int, why: str) -> None:
        self.up[g] = False
        self.loads[g] = None
        log.warning("engine %s is down: %s", self._gateway.adapters[g].url, why)
        self._gateway.engine_fell(g)
