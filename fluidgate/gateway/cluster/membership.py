"""Engines that come and go: the sources that name them, and what operators want."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.cluster.engine import Engine
from fluidgate.gateway.cluster.monitor import Monitor
from fluidgate.gateway.cluster.sources import Listed, Source, SourceError
from fluidgate.gateway.dispatch.dispatcher import Dispatcher
from fluidgate.gateway.engines import Adapter
from fluidgate.shown import several

log = logging.getLogger("fluidgate.gateway")

BY_ADMIN = "admin"
"""Origin of the engines that an operator has added."""

EMPTY_SECONDS = 0.05
"""Time between two looks at whether a draining engine holds nothing."""


class Membership:
    """Who belongs to a group.

    An engine that is named no more, or that an operator removes, is drained: it takes nothing new, finishes what it
    has, and is forgotten. One that an operator has removed stays away until its source has ceased to name it.
    """

    def __init__(
        self,
        backends: Backends,
        monitor: Monitor,
        sources: Sequence[Source],
        *,
        adapter_of: Callable[[str], Adapter],
        seconds: float,
    ) -> None:
        """
        Args:
            adapter_of: makes the adapter of an engine from its URL.
            seconds: between two readings of the sources.
        """
        self._backends = backends
        self._monitor = monitor
        self._sources = list(sources)
        self._adapter_of = adapter_of
        self._seconds = seconds
        self._named: dict[Source, tuple[str, ...]] = {}
        self._problems: dict[Source, str] = {}
        self._removed: set[str] = set()
        self._leaving: dict[Engine, asyncio.Task[None]] = {}
        self._emptying: dict[Engine, asyncio.Task[None]] = {}
        self._following: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    async def first(self) -> None:
        """Read all sources once; the engines that they name are there, and not looked at yet."""
        await self._read()
        for url, origin in self._wanted().items():
            self._backends.add(self._adapter_of(url), origin)

    @property
    def changes(self) -> bool:
        """Whether engines may come and go by themselves."""
        return any(not isinstance(source, Listed) for source in self._sources)

    def start(self) -> None:
        """Follow the sources from now on; the monitor runs."""
        if self.changes:
            self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        tasks = [
            task for task in (self._following, *self._leaving.values(), *self._emptying.values()) if task is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for source in self._sources:
            await source.close()

    async def replace(self, old: type[Source], new: Source) -> None:
        """Another source in the place of that of a kind."""
        async with self._changing:
            for k, source in enumerate(self._sources):
                if isinstance(source, old):
                    self._named.pop(source, None)
                    self._sources[k] = new
        await self.reread()

    async def reread(self) -> None:
        """Read the sources now, and let the engines follow."""
        async with self._changing:
            await self._read()
            wanted = self._wanted()
            self._removed &= set(wanted)
            for url, origin in wanted.items():
                engine = self._backends.find(url)
                if url in self._removed:
                    continue
                if engine is None:
                    await self._add(url, origin)
                elif engine in self._leaving:
                    self._stay(engine)
            for engine in self._backends:
                if engine.origin != BY_ADMIN and engine.url not in wanted and engine not in self._leaving:
                    self._leave(engine, "it is named no more")

    async def add(self, url: str) -> Engine:
        """An engine by an operator's will; one that is there already stays, and takes requests again.

        Raises:
            OverflowError: the group is full.
        """
        async with self._changing:
            self._removed.discard(url.rstrip("/"))
            engine = self._backends.find(url)
            if engine is None:
                return await self._add(url, BY_ADMIN)
            if engine in self._leaving:
                self._stay(engine)
            self._monitor.cordon(engine, False)
            return engine

    def cordon(self, engine: Engine, cordoned: bool) -> None:
        """Let an engine take nothing new, or let it again."""
        if not cordoned and engine in self._leaving:
            self._removed.discard(engine.url)
            self._stay(engine)
        if cordoned != engine.cordoned:
            self._tell(engine, cordoned)
        self._monitor.cordon(engine, cordoned)

    def _tell(self, engine: Engine, cordoned: bool) -> None:
        """Log that an engine is cordoned, and then that it may be stopped; or that it is so no longer."""
        if (emptying := self._emptying.pop(engine, None)) is not None:
            emptying.cancel()
        if not cordoned:
            log.info("engine %s is no longer cordoned", engine.url)
            return
        log.info("engine %s is cordoned: it holds %s", engine.url, several(self._held(engine), "request"))
        self._emptying[engine] = asyncio.create_task(self._tell_empty(engine))

    async def _tell_empty(self, engine: Engine) -> None:
        await self.empty(engine)
        log.info("engine %s is cordoned and holds nothing: it may be stopped", engine.url)

    def remove(self, engine: Engine) -> None:
        """Drain an engine and forget it, by an operator's will."""
        self._removed.add(engine.url)
        if engine not in self._leaving:
            self._leave(engine, "an operator removes it")

    async def empty(self, engine: Engine) -> None:
        """Until an engine holds nothing of ours."""
        while engine.handovers or self._held(engine):
            await asyncio.sleep(EMPTY_SECONDS)

    def _held(self, engine: Engine) -> int:
        dispatchers: list[Dispatcher] = self._monitor.dispatchers
        return sum(dispatcher.held(engine.place) for dispatcher in dispatchers)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.reread()
            except Exception:
                log.exception("the engines could not be read anew; those that are there stay")

    async def _read(self) -> None:
        for source in self._sources:
            try:
                urls = tuple(url.rstrip("/") for url in await source.urls())
            except SourceError as error:
                if str(error) != self._problems.get(source):
                    log.warning("engines: %s; those that it named stay", error)
                self._problems[source] = str(error)
                continue
            if self._problems.pop(source, None):
                log.info("engines: %s is read again", source.origin)
            self._named[source] = urls

    def _wanted(self) -> dict[str, str]:
        """The origin of each engine that is named, by URL."""
        wanted: dict[str, str] = {}
        for source in self._sources:
            for url in self._named.get(source, ()):
                wanted.setdefault(url, source.origin)
        return wanted

    async def _add(self, url: str, origin: str) -> Engine:
        engine = self._backends.add(self._adapter_of(url), origin)
        await engine.adapter.start()
        self._monitor.watch(engine)
        log.info("engine %s has come (%s)", engine.url, origin)
        return engine

    def _leave(self, engine: Engine, why: str) -> None:
        log.info("engine %s drains: %s", engine.url, why)
        engine.leaving = True
        self._monitor.cordon(engine, True)
        self._leaving[engine] = asyncio.create_task(self._forget(engine))

    def _stay(self, engine: Engine) -> None:
        """It was about to leave, and is wanted after all."""
        self._leaving.pop(engine).cancel()
        engine.leaving = False
        self._monitor.cordon(engine, False)
        log.info("engine %s stays", engine.url)

    async def _forget(self, engine: Engine) -> None:
        await self.empty(engine)
        self._leaving.pop(engine, None)
        await self._monitor.forget(engine)
        self._backends.remove(engine)
        log.info("engine %s has left", engine.url)
        await engine.adapter.close()
