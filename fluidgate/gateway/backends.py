"""The engines that stand behind the gateway: how they are called, what they are, and who is up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fluidgate.gateway.engines import Adapter, Facts, Handover, Load


class Backends:
    """All engines, each known by its place in the gateway file.

    Attributes:
        adapters: one an engine.
        facts: what each has said of itself; None for one that has not answered since it was last away.
        models: that clients may ask for; all engines serve them.
        up: whether each takes requests. The monitor keeps it, and `loads`: what each said of its load, None while down.
        lease: s for which the KV of a prompt waits to be fetched, on whichever engine.
    """

    def __init__(self, adapters: Sequence[Adapter], batch_size: int, model: str | None = None) -> None:
        """
        Args:
            batch_size: the slots that the scenario gives each engine.
            model: the one of the gateway file; None for those that the engines have in common.
        """
        self.adapters = adapters
        self.facts: list[Facts | None] = [None] * len(adapters)
        self.models: tuple[str, ...] = (model,) if model else ()
        self.up = [False] * len(adapters)
        self.loads: list[Load | None] = [None] * len(adapters)
        self.lease = min(adapter.abilities.lease for adapter in adapters)
        self._batch_size = batch_size
        self._releases: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        for adapter in self.adapters:
            await adapter.start()

    async def close(self) -> None:
        await asyncio.gather(*self._releases, return_exceptions=True)
        for adapter in self.adapters:
            await adapter.close()

    @property
    def up_count(self) -> int:
        return sum(self.up)

    @property
    def any_up(self) -> bool:
        return any(self.up)

    @property
    def move_kv(self) -> bool:
        """Whether a decode's engine may be chosen after the prefill, on every engine."""
        return all(adapter.abilities.late for adapter in self.adapters)

    @property
    def take_two_legs(self) -> bool:
        """Whether every engine can read a prompt in one call and answer it in another."""
        return all(adapter.abilities.two_legs for adapter in self.adapters)

    @property
    def context_length(self) -> int | None:
        """The least `max_model_len` of the engines, tokens, where they say it."""
        return min((f.max_model_len for f in self.facts if f is not None and f.max_model_len), default=None)

    def missing_slots(self, g: int) -> int:
        """Slots that the scenario gives an engine and that it does not have."""
        fact = self.facts[g]
        return 0 if fact is None or fact.slots is None else max(0, self._batch_size - fact.slots)

    def url(self, g: int) -> str | None:
        """Of an engine; None for -1, which is none."""
        return self.adapters[g].url if g >= 0 else None

    def release_later(self, g: int, handover: Handover) -> None:
        """Let an engine drop KV that nobody will fetch, in a task of its own."""
        task = asyncio.create_task(self.adapters[g].release(handover))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
