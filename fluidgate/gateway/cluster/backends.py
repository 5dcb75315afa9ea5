"""The engines of a group as a whole: the places they stand at, the models they serve, and who is up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from fluidgate.gateway.cluster.engine import FROM_FILE, Engine
from fluidgate.gateway.engines import Adapter, Handover

PLACES = 1024
"""Engines of a group, at least: those that are there, and room for those that come."""


class Backends:
    """All engines, each at a place, whose index the dispatcher knows.

    Attributes:
        base: the model of the group, which every engine must serve; () until an engine has said what it serves.
        models: that clients may ask for: those of `base`, and what else the engines serve now, such as LoRA adapters.
        lease: s for which the KV of a prompt waits to be fetched, on whichever engine.
    """

    def __init__(self, adapters: Sequence[Adapter], batch_size: int, model: str | None = None) -> None:
        """
        Args:
            batch_size: the slots that the scenario gives each engine.
            model: the one of the gateway file; None for those that the engines have in common.
        """
        self.capacity = max(PLACES, 2 * len(adapters))
        self._by_place: dict[int, Engine] = {}
        self._next = 0
        self._model = model
        self.base: tuple[str, ...] = (model,) if model else ()
        self.models: tuple[str, ...] = self.base
        self.lease = 0.0
        self._batch_size = batch_size
        self._releases: set[asyncio.Task[None]] = set()
        for adapter in adapters:
            self.add(adapter)

    def __iter__(self) -> Iterator[Engine]:
        return iter(list(self._by_place.values()))

    def __len__(self) -> int:
        return len(self._by_place)

    def __getitem__(self, place: int) -> Engine:
        return self._by_place[place]

    def add(self, adapter: Adapter, origin: str = FROM_FILE) -> Engine:
        """A further engine, at the place that has been free for longest.

        Raises:
            OverflowError: all places are taken.
        """
        if len(self._by_place) == self.capacity:
            raise OverflowError(f"{self.capacity} engines are the most that a group takes")
        while self._next in self._by_place:
            self._next = (self._next + 1) % self.capacity
        engine = Engine(self._next, adapter, origin)
        self._by_place[self._next] = engine
        self._next = (self._next + 1) % self.capacity
        self.lease = min(each.adapter.abilities.lease for each in self)
        return engine

    def remove(self, engine: Engine) -> None:
        del self._by_place[engine.place]
        self.note_models()

    def find(self, url: str) -> Engine | None:
        """The engine of a URL."""
        wanted = url.rstrip("/")
        return next((engine for engine in self if engine.url == wanted), None)

    def lower_on_host(self, url: str) -> int:
        """How many engines on the host of a URL have a lower port."""
        own = urlsplit(url)
        others = [urlsplit(engine.url) for engine in self]
        return sum(each.hostname == own.hostname and (each.port or 0) < (own.port or 0) for each in others)

    async def start(self) -> None:
        for engine in self:
            await engine.adapter.start()

    async def close(self) -> None:
        await asyncio.gather(*self._releases, return_exceptions=True)
        for engine in self:
            await engine.adapter.close()

    @property
    def up_count(self) -> int:
        return sum(engine.up for engine in self)

    @property
    def any_up(self) -> bool:
        return any(engine.up for engine in self)

    @property
    def take_two_legs(self) -> bool:
        """Whether every engine can read a prompt in one call and answer it in another."""
        return all(engine.adapter.abilities.two_legs for engine in self)

    @property
    def context_length(self) -> int | None:
        """The least `max_model_len` of the engines, tokens, where they say it."""
        lengths = (engine.facts.max_model_len for engine in self if engine.facts is not None)
        return min((length for length in lengths if length), default=None)

    def missing_slots(self, engine: Engine) -> int:
        """Slots that the scenario gives an engine and that it does not have."""
        facts = engine.facts
        return 0 if facts is None or facts.slots is None else max(0, self._batch_size - facts.slots)

    def note_models(self) -> None:
        """What the engines serve may have changed."""
        told = [engine for engine in self if engine.facts is not None]
        if not self.base and told:
            common = [m for m in told[0].models if all(m in engine.models for engine in told)]
            self.base = tuple(common)
        more: dict[str, None] = {}
        for engine in told:
            if engine.answers and engine.facts is not None:
                more |= dict.fromkeys(self._offered(engine))
        self.models = (*self.base, *(model for model in more if model not in self.base))

    def has_model(self, engine: Engine) -> bool:
        """Whether an engine serves what its group does."""
        return not self.base or bool(set(self.base) & set(engine.models))

    def only(self, model: str) -> list[Engine] | None:
        """The engines that are up and serve `model`, if not all that are up do; None if they do."""
        up = [engine for engine in self if engine.up]
        having = [engine for engine in up if model in engine.models]
        return None if len(having) == len(up) else having

    def _offered(self, engine: Engine) -> tuple[str, ...]:
        """What clients may ask an engine for: with a model in the file, that and the adapters made for it."""
        assert engine.facts is not None
        if self._model is None:
            return engine.facts.models
        return (self._model, *engine.facts.adapters)

    def release_later(self, engine: Engine, handover: Handover) -> None:
        """Let an engine drop KV that nobody will fetch, in a task of its own."""
        task = asyncio.create_task(engine.adapter.release(handover))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
