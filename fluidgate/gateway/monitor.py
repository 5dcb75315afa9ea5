"""Looks after the engines: who answers, and who serves requests that are not the gateway's."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from fluidgate.gateway.backends import Backends
from fluidgate.gateway.dispatch.dispatcher import Clock, Dispatcher
from fluidgate.gateway.engine_checks import UNREADABLE, check_again
from fluidgate.gateway.engines import Load

log = logging.getLogger("fluidgate.gateway")

ANSWER_SECONDS = 5.0
"""An engine that takes longer for its load is down."""

AGREEING = 2
"""So many looks in a row must see requests of others before their slots are closed: ours may be on their way."""

LAG = 0.1
"""s for which an engine may still count a request that has left it, or not yet count one that has come."""

LONGEST_COOLDOWN = 8.0
FORGIVEN = 30.0
"""An engine that fails rests for twice as long each time, up to the former, s; after the latter all is forgotten."""


@dataclass
class Watch:
    """What the monitor remembers of an engine.

    Attributes:
        excess: requests of others that the last looks have seen.
        problem: why it answers and is not used all the same, "" if nothing is known.
        failures: in a row, each soon after the one before; `failed_at`, epoch of the last, s.
        rests_until: epoch before which it is not looked at, s.
        failed: set when it has failed a request since the last look began.
    """

    excess: list[int] = field(default_factory=list)
    problem: str = ""
    failures: int = 0
    failed_at: float = -math.inf
    rests_until: float = -math.inf
    failed: asyncio.Event = field(default_factory=asyncio.Event)


class Monitor:
    """One watch an engine. An engine is up when its last look was answered.

    Requests of others (of a gateway before this one, or of clients that go past it) are those that the engine counts
    beyond ours, those among ours that have just left; their slots are closed for as long as they are seen.

    Attributes:
        watches: one an engine.
    """

    def __init__(
        self,
        backends: Backends,
        dispatcher: Dispatcher,
        *,
        resized: Callable[[int], None],
        clock: Clock,
        seconds: float,
    ) -> None:
        """
        Args:
            backends: who is up and how loaded is written here.
            dispatcher: told of engines that come and go, and of slots that others hold.
            resized: called with the number of engines that are up when it has changed.
            seconds: between two looks at an engine.
        """
        self._backends = backends
        self._dispatcher = dispatcher
        self._resized = resized
        self._clock = clock
        self._seconds = seconds
        self.watches = [Watch() for _ in backends.adapters]
        self._tasks: list[asyncio.Task[None]] = []

    async def first_look(self) -> None:
        """Look at all engines once, before anything is served."""
        await asyncio.gather(*(self._look(g) for g in range(len(self.watches))))

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep_looking(g)) for g in range(len(self.watches))]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def report_failure(self, g: int) -> None:
        """An engine has failed a request: it is down until it answers a look, which is taken soon."""
        self._cool_down(g, min(0.1, self._seconds / 4), "it failed a request")

    def back_off(self, g: int) -> None:
        """An engine takes no requests now: others do, and it is looked at again in a while."""
        self._cool_down(g, self._seconds, "it takes no requests")

    def _cool_down(self, g: int, first: float, why: str) -> None:
        """Down for `first` s, or longer if it has been down lately: one that answers looks and fails requests."""
        watch = self.watches[g]
        watch.failed.set()
        if not self._backends.up[g]:
            return
        now = self._clock()
        watch.failures = watch.failures + 1 if now - watch.failed_at < FORGIVEN else 0
        longer = self._seconds * 2.0 ** min(watch.failures - 1, 10)
        watch.failed_at = now
        watch.rests_until = now + (min(LONGEST_COOLDOWN, longer) if watch.failures else first)
        self._mark_down(g, why)

    async def _keep_looking(self, g: int) -> None:
        watch = self.watches[g]
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await watch.failed.wait()
            while (rest := watch.rests_until - self._clock()) > 0.0:
                await asyncio.sleep(rest)
            watch.failed.clear()
            try:
                await self._look(g)
            except Exception:
                log.exception("engine %s: the look at it failed", self._backends.url(g))

    async def _look(self, g: int) -> None:
        watch, backends, dispatcher = self.watches[g], self._backends, self._dispatcher
        ours, taken = dispatcher.held(g), dispatcher.taken[g]
        if ours:
            await asyncio.sleep(LAG)
        load = await self._load(g)
        if watch.failed.is_set():
            return  # it has failed a request meanwhile: this answer is from before
        if isinstance(load, str):
            backends.facts[g] = None
            if backends.up[g]:
                self._mark_down(g, load)
            return
        backends.loads[g] = load
        ours += dispatcher.taken[g] - taken
        excess = max(0, load.running + load.waiting - ours)
        if backends.up[g]:
            watch.excess = [*watch.excess, excess][-AGREEING:]
            dispatcher.set_foreign(g, min(watch.excess))
        elif await self._is_fit(g):
            self._mark_up(g, excess)

    async def _load(self, g: int) -> Load | str:
        """How busy an engine is, or why it does not say so."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._backends.adapters[g].load()
        except UNREADABLE as error:
            return str(error) or "no answer in time"

    async def _is_fit(self, g: int) -> bool:
        """Whether an engine that answers is what it should be; checked anew where it has been away."""
        if self._backends.facts[g] is not None:
            return True
        watch, problem = self.watches[g], await check_again(self._backends, g)
        if problem != watch.problem and problem:
            log.warning("engine %s answers, but is not used: %s", self._backends.url(g), problem)
        watch.problem = problem
        return not problem

    def _mark_up(self, g: int, excess: int) -> None:
        self._backends.up[g] = True
        self.watches[g].excess = [excess]
        beyond = f", {excess} requests of others on it" if excess else ""
        log.info("engine %s is up%s", self._backends.url(g), beyond)
        self._resized(self._backends.up_count)
        self._dispatcher.engine_up(g, excess + self._backends.missing_slots(g))

    def _mark_down(self, g: int, why: str) -> None:
        self._backends.up[g] = False
        self._backends.loads[g] = None
        log.warning("engine %s is down: %s", self._backends.url(g), why)
        self._dispatcher.engine_down(g)
        self._resized(self._backends.up_count)
