"""An emulated engine and its client in one event loop whose clock jumps: exact to the nanosecond, and done at once."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Awaitable, Callable
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from fluidgate.calibration.live_probe import Probed, Settings, client, pace, probe
from fluidgate.calibration.live_probe.client import Client, Refused, Stream
from fluidgate.calibration.live_probe.facts import look
from fluidgate.calibration.live_probe.pace import Pace
from fluidgate.calibration.live_probe.probe import LiveProbe
from fluidgate.emulator import EngineSettings
from fluidgate.emulator import engine as engine_module
from fluidgate.emulator.bodies import ApiError, CompletionBody, parse
from fluidgate.emulator.engine import Clock, Engine
from fluidgate.emulator.request import EngineRequest
from fluidgate.emulator.sequences import sequences
from fluidgate.model import Gpu, IterationTime

Result = TypeVar("Result")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Never waits: its clock jumps to the next thing to do."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.now = 0.0
        really = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None = None) -> Any:
            self.now += timeout or 0.0
            return really(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now


class VirtualClient(Client):
    """Hands requests to an engine without a network, whose delays are drawn.

    Attributes:
        engine: that answers.
        jitter: s by which a token is seen late at most.
        first_late: s by which the first of an answer is seen later still.
        under_way, most: requests that are answered now, and at once at most.
    """

    def __init__(self, engine: Engine, jitter: float, most_tokens: float) -> None:
        super().__init__("http://virtual", "", most_tokens)
        self.engine = engine
        self.jitter = jitter
        self.first_late = 0.0
        self.most = self.under_way = 0
        self._random = Random(1)
        self._names = itertools.count()

    async def page(self, path: str) -> bytes | None:
        return self.engine.metrics_page().encode() if path == "/metrics" else None

    async def models(self) -> list[dict[str, Any]]:
        settings = self.engine.settings
        return [{"id": settings.model, "max_model_len": settings.max_model_len}]

    async def read(self, stream: Stream, body: bytes) -> None:
        request = self._admitted(body)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(1e-4)
            self.engine.submit(request)
            await self._tokens(stream, request)
        finally:
            self.under_way -= 1
            self.engine.abort(request)

    def _admitted(self, body: bytes) -> EngineRequest:
        arrival = self.engine.clock.now()
        try:
            return sequences(self.engine, parse(CompletionBody, body), f"r{next(self._names)}", arrival)[0]
        except ApiError as error:
            raise Refused(str(error), error.status, str(error)) from None

    async def _tokens(self, stream: Stream, request: EngineRequest) -> None:
        seen = 0
        while True:
            while request.written == seen and request.finish is None:
                await request.bell.wait()
            written = request.written
            await asyncio.sleep(self.jitter * self._random.random() + (self.first_late if seen == 0 else 0.0))
            if written > seen:
                self.output_tokens += written - seen
                stream.events.tokens = seen = written
                stream.moved(asyncio.get_running_loop().time())
            elif request.finish is not None:
                return


class Bench:
    """Runs coroutines on virtual time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.loop = VirtualLoop()
        clock = SimpleNamespace(perf_counter=self.loop.time, monotonic=self.loop.time)
        for module in (client, pace, probe, engine_module):
            patch.setattr(module, "time", clock)

    def run(self, work: Awaitable[Result]) -> Result:
        return self.loop.run_until_complete(_of(work))

    def probe(
        self,
        law: IterationTime,
        settings: Settings,
        *,
        batch_size: int = 16,
        chunk_size: int = 256,
        jitter: float = 0.0,
        first_late: float = 0.0,
        beside: Callable[[Engine], Awaitable[None]] | None = None,
        said: list[str] | None = None,
        **engine: Any,
    ) -> tuple[Probed, VirtualClient]:
        """Probe an engine of this law; `beside` runs at the same time."""
        gpu = Gpu(batch_size=batch_size, chunk_size=chunk_size, iteration=law)
        known = EngineSettings(gpu, **{"max_model_len": 4096, **engine})

        async def work() -> tuple[Probed, VirtualClient]:
            made = VirtualClient(Engine(known, Clock(1.0)), jitter, settings.max_tokens)
            made.first_late = first_late
            facts = await look(made, settings.model)
            made.model = facts.model
            lines = said if said is not None else []
            other = asyncio.ensure_future(beside(made.engine)) if beside else None
            async with Pace() as kept:
                live = LiveProbe(settings, made, facts, kept, lines.append, lambda done, total: None)
                probed = await live.run()
            if other is not None:
                other.cancel()
            return probed, made

        return self.run(work())


async def _of(work: Awaitable[Result]) -> Result:
    return await work


def settings_of(**given: Any) -> Settings:
    """Few sizes, that tell a law."""
    few = {"batch_sizes": (1, 4, 8), "chunk_sizes": (32, 128, 224), "contexts": (192, 1024), "repeats": 2}
    return Settings(**{"url": "http://virtual", **few, "read_before": 600, "max_seconds": 1e5, **given})
