"""Looks after the engines: who answers, who can be trusted, and who serves requests that are not the gateway's."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.cluster.engine import Engine, Watch
from fluidgate.gateway.cluster.joining import UNREADABLE, Joining
from fluidgate.gateway.cluster.kv_listener import KvListener
from fluidgate.gateway.dispatch.dispatcher import Clock, Dispatcher
from fluidgate.gateway.engines import EngineUnreachable, Load, Served
from fluidgate.gateway.prefixes import PrefixIndex

log = logging.getLogger("fluidgate.gateway")

ANSWER_SECONDS = 5.0
"""A look that takes longer is late."""

LATE_LOOKS = 3
"""So many late looks in a row, and no answer to a request meanwhile, are needed for an engine to be down."""

AGREEING = 2
"""So many looks in a row must see requests of others before their slots are closed: ours may be on their way."""

LAG = 0.1
"""s for which an engine may still count a request that has left it, or not yet count one that has come."""

MODELS_SECONDS = 5.0
"""Time between two looks at what an engine serves, s."""

IDLE_LONGER = 5
"""So many times longer is the time between two looks at an engine that serves nobody."""

LONGEST_REST = 8.0
FORGIVEN = 30.0
"""An engine that goes down again and again rests for twice as long each time, up to the former, s; after the latter all
is forgotten."""


class Monitor:
    """One watch an engine.

    An engine is down when it refuses connections, when it has failed different requests that others then served, or
    when several looks in a row have come to nothing while it answered nobody. The last engine is never taken out for
    what it failed, nor is any for late looks while most are late: then requests are tried.

    Requests of others (of a gateway before this one, or of clients that go past it) are those that the engine counts
    beyond ours, those among ours that have just left; their slots are closed for as long as they are seen.

    Attributes:
        dispatchers: those that place requests on the engines; all but the first take no new ones.
        watches: one an engine, by place.
    """

    def __init__(
        self,
        backends: Backends,
        dispatcher: Dispatcher,
        joining: Joining,
        *,
        resized: Callable[[int], None],
        clock: Clock,
        seconds: float,
        prefixes: PrefixIndex | None = None,
        listener: KvListener | None = None,
    ) -> None:
        """
        Args:
            backends: who is up and how loaded is written here.
            dispatcher: told of engines that come and go, and of slots that others hold.
            joining: checks an engine that comes late, or comes back.
            resized: called with the number of engines that are up when it has changed.
            seconds: between two looks at an engine.
            prefixes: told of engines that begin anew, go, and what they count.
            listener: to their KV events, if they are listened to.
        """
        self.dispatchers = [dispatcher]
        self.watches: defaultdict[int, Watch] = defaultdict(Watch)
        self._backends = backends
        self._joining = joining
        self._resized = resized
        self._clock = clock
        self._seconds = seconds
        self._prefixes = prefixes
        self._listener = listener
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._at_once: set[asyncio.Task[None]] = set()

    async def first_look(self) -> None:
        """Look at all engines that are known by now, before anything is served; they come up as one."""
        known = [engine for engine in self._backends if engine.facts is not None]
        resized, self._resized = self._resized, lambda up: None
        try:
            await asyncio.gather(*(self._look(engine) for engine in known))
        finally:
            self._resized = resized
        self._resized(self._backends.up_count)

    def start(self) -> None:
        for engine in self._backends:
            self.watch(engine)

    def watch(self, engine: Engine) -> None:
        """Look after an engine from now on."""
        self._tasks[engine.place] = asyncio.create_task(self._keep_looking(engine))
        if self._listener is not None:
            self._listener.listen(engine.place, engine.url)

    async def forget(self, engine: Engine) -> None:
        """Look after an engine no more."""
        if task := self._tasks.pop(engine.place, None):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.watches.pop(engine.place, None)
        if self._prefixes is not None:
            self._prefixes.remove(engine.place)
        if self._listener is not None:
            await self._listener.leave(engine.place)

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def served(self, engine: Engine) -> None:
        """An engine has served a request."""
        engine.health.served(self._clock())

    def failed(self, engine: Engine, request: str, why: str) -> None:
        """An engine has failed a request of such an id that was not at fault itself: too many such, and it is down."""
        engine.health.failed(self._clock(), request)
        if engine.up and self._backends.up_count > 1 and engine.health.is_bad(self._clock()):
            failed, seen = engine.health.counts(self._clock())
            self._rest(engine)
            self._go_down(engine, "failures", f"failed {failed} of its last {seen} requests; {request}: {why}")

    def refused(self, engine: Engine, why: str) -> None:
        """An engine has refused a connection: nobody is there."""
        if engine.answers:
            self._rest(engine)
            self._go_down(engine, "refused", why)

    def replaced(self, engine: Engine, why: str) -> None:
        """Another one answers at an engine's address: it is down until it has been looked at anew."""
        engine.facts = None
        if engine.answers:
            self._go_down(engine, "replaced", why)
        self._look_soon(engine)

    async def serves(self, engine: Engine, model: str) -> bool:
        """Whether an engine that has just said that it does not know `model` does: asked at once, of itself."""
        told = await self._ask_for_models(engine)
        if told is None or model in told.models:
            return told is not None
        self._take_note(engine, told)
        return False

    async def look_now(self, engine: Engine, seconds: float) -> None:
        """Look at an engine at once, and wait for what that comes to, but no longer than so many s."""
        watch = self.watches.get(engine.place)
        if watch is None or not engine.answers:
            return
        looked = watch.looked
        self._look_soon(engine)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await looked.wait()

    def cordon(self, engine: Engine, cordoned: bool) -> None:
        """Let an engine take nothing new, or let it again."""
        if engine.cordoned == cordoned:
            return
        was_up = engine.up
        engine.cordoned = cordoned
        engine.since = self._clock()
        if was_up and not engine.up:
            self._tell_down(engine)
        elif engine.up and not was_up:
            self._tell_up(engine, self._excess(engine))

    def _look_soon(self, engine: Engine) -> None:
        if watch := self.watches.get(engine.place):
            watch.wanted.set()

    def _rest(self, engine: Engine) -> None:
        """Not to be looked at for a while, longer if it has been down lately: it may answer looks and fail requests."""
        watch, now = self.watches[engine.place], self._clock()
        watch.downs = watch.downs + 1 if now - watch.down_at < FORGIVEN else 0
        watch.down_at = now
        longer = min(LONGEST_REST, self._seconds * 2.0 ** min(watch.downs - 1, 10))
        watch.rests_until = now + (longer if watch.downs else min(0.1, self._seconds / 4))
        watch.wanted.set()

    async def _keep_looking(self, engine: Engine) -> None:
        watch = self.watches[engine.place]
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds * (IDLE_LONGER if self._is_idle(engine) else 1)):
                    await watch.wanted.wait()
            while (rest := watch.rests_until - self._clock()) > 0.0:
                await asyncio.sleep(rest)
            watch.wanted.clear()
            looked = watch.looked = asyncio.Event()
            try:
                await self._look(engine)
            except Exception:
                log.exception("engine %s: the look at it failed", engine.url)
            looked.set()

    def _is_idle(self, engine: Engine) -> bool:
        """Whether an engine is up and serves nobody, as far as is known, nor has since the last look."""
        watch, taken = self.watches[engine.place], self._taken(engine)
        unused, watch.taken = taken == watch.taken and not self._held(engine), taken
        return unused and engine.answers and watch.late == 0 and not any(watch.excess)

    async def _look(self, engine: Engine) -> None:
        watch = self.watches[engine.place]
        ours, taken = self._held(engine), self._taken(engine)
        before, heard = (engine.answers, engine.life), engine.adapter.heard
        if ours:
            await asyncio.sleep(LAG)
        load = await self._load(engine)
        if (engine.answers, engine.life) != before:
            return  # it has gone down meanwhile: this answer is from before
        if not isinstance(load, Load):
            self._in_vain(engine, load, engine.adapter.heard != heard)
            return
        watch.late, engine.load = 0, load
        if load.waiting is not None:
            for dispatcher in self.dispatchers:
                dispatcher.show_queue(engine.place, load.waiting, load.kv_usage or 0.0)
        if not engine.answers:
            if await self._is_fit(engine):
                self._come_up(engine, load)
            return
        ours += self._taken(engine) - taken
        excess = max(0, load.requests - ours) if load.counted else 0
        self._note_counters(engine, load)
        watch.excess = [*watch.excess, excess][-AGREEING:]
        self._close_slots(engine, min(watch.excess))
        await self._look_up_models(engine)

    def _note_counters(self, engine: Engine, load: Load) -> None:
        """What an engine counts of the prompts that it finds in its memory."""
        if self._prefixes is not None and load.prefix_hits is not None:
            self._prefixes.counted(engine.place, load.prefix_hits, load.prompt_tokens)

    async def _load(self, engine: Engine) -> Load | Exception:
        """How busy an engine is, or why it does not say so."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await engine.adapter.load()
        except TimeoutError:
            return TimeoutError(f"no answer to a look within {ANSWER_SECONDS:g} s")
        except UNREADABLE as error:
            return error

    def _in_vain(self, engine: Engine, why: Exception, alive: bool) -> None:
        """A look has come to nothing; `alive` if the engine answered a request meanwhile."""
        watch = self.watches[engine.place]
        watch.late = 0 if alive else watch.late + 1
        gone = isinstance(why, EngineUnreachable) and not why.taken
        engine.load = None
        if not engine.answers:
            engine.facts = None
            engine.why = str(why)
        elif gone or (watch.late >= LATE_LOOKS and not self._most_are_late()):
            engine.facts = None
            self._go_down(engine, "refused" if gone else "late", str(why))
            engine.give_up_unanswered()

    def _most_are_late(self) -> bool:
        """Whether it is the looks that are late, for want of time or of a network, rather than an engine."""
        up = [self.watches[engine.place].late > 0 for engine in self._backends if engine.answers]
        return sum(up) > len(up) / 2

    async def _is_fit(self, engine: Engine) -> bool:
        """Whether an engine that answers is what it should be; checked anew where it has been away."""
        if engine.facts is not None:
            return True
        problem = await self._joining.again(engine)
        if problem and problem != engine.why:
            log.warning("engine %s answers, but is not used: %s", engine.url, problem)
        if problem:
            engine.why = problem
            self._rest(engine)
        return not problem

    async def _look_up_models(self, engine: Engine) -> None:
        """What an engine serves may change while it runs."""
        watch, now = self.watches[engine.place], self._clock()
        if now - watch.models_at < MODELS_SECONDS:
            return
        watch.models_at = now
        told = await self._ask_for_models(engine)
        if told is not None:
            self._take_note(engine, told)

    async def _ask_for_models(self, engine: Engine) -> Served | None:
        """What an engine serves now; None if it does not say, or is another by then."""
        life = engine.life
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                told = await engine.adapter.look_up_models()
        except UNREADABLE:
            return None
        return told if engine.life == life else None

    def _take_note(self, engine: Engine, told: Served) -> None:
        if engine.facts is None:
            return
        if told != engine.facts.served:
            log.info("engine %s serves %s now", engine.url, ", ".join(told.models) or "no model")
            engine.facts = engine.facts.serving(told)
            self._backends.note_models()
        if not self._backends.has_model(engine):
            self.replaced(engine, f"it serves {', '.join(told.models) or 'no model'} now")

    def _come_up(self, engine: Engine, load: Load) -> None:
        now = self._clock()
        away = f" after {now - engine.since:.0f} s" if engine.life else ""
        excess = max(0, load.requests - self._held(engine)) if load.counted else 0
        beyond = f", {excess} requests of others on it" if excess else ""
        engine.answers, engine.why, engine.since = True, "", now
        engine.life += 1
        engine.health.forget()
        if self._prefixes is not None:
            self._prefixes.begin(engine.place, None if engine.facts is None else engine.facts.kv_tokens)
            self._note_counters(engine, load)
        self.watches[engine.place].excess = [excess]
        self.watches[engine.place].models_at = now
        self._backends.note_models()
        log.info("engine %s is up%s%s", engine.url, away, beyond)
        if engine.up:
            self._tell_up(engine, excess)

    def _go_down(self, engine: Engine, reason: str, why: str) -> None:
        was_up, why = engine.up, why.removeprefix(f"{engine.url}: ")
        engine.answers, engine.load, engine.why = False, None, why
        engine.since = self._clock()
        if self._prefixes is not None:
            self._prefixes.forget(engine.place)
        engine.downs[reason] = engine.downs.get(reason, 0) + 1
        log.warning("engine %s is down (%s): %s", engine.url, reason, why.replace(f"{engine.url}: ", ""))
        self._backends.note_models()
        if was_up:
            self._tell_down(engine)

    def _tell_up(self, engine: Engine, excess: int) -> None:
        self._resized(self._backends.up_count)
        missing = self._backends.missing_slots(engine)
        for dispatcher, others in self._with_others(engine):
            dispatcher.engine_up(engine.place, excess + others + missing, engine.role)

    def _tell_down(self, engine: Engine) -> None:
        for dispatcher in self.dispatchers:
            dispatcher.engine_down(engine.place)
        self._resized(self._backends.up_count)

    def _close_slots(self, engine: Engine, excess: int) -> None:
        if engine.up:
            missing = self._backends.missing_slots(engine)
            for dispatcher, others in self._with_others(engine):
                dispatcher.set_foreign(engine.place, excess + others + missing)

    def _with_others(self, engine: Engine) -> list[tuple[Dispatcher, int]]:
        """Each dispatcher, and what the others of ours hold on an engine."""
        held = self._held(engine)
        return [(dispatcher, held - dispatcher.held(engine.place)) for dispatcher in self.dispatchers]

    def _excess(self, engine: Engine) -> int:
        return min(self.watches[engine.place].excess, default=0)

    def _held(self, engine: Engine) -> int:
        return sum(dispatcher.held(engine.place) for dispatcher in self.dispatchers)

    def _taken(self, engine: Engine) -> int:
        return sum(dispatcher.taken[engine.place] for dispatcher in self.dispatchers)
