"""What the engines are: asked on start-up, and again of each that comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from fluidgate.errors import FluidgateError
from fluidgate.gateway.engines import Adapter, EngineError, Facts

log = logging.getLogger("fluidgate.gateway")

CHECK_SECONDS = 60.0
TRANSFER_SECONDS = 60.0
"""The first transfer of a pair takes some seconds even where nothing is wrong."""

UNREADABLE = (EngineError, TimeoutError, LookupError, TypeError, ValueError)
"""What a look at an engine may come to that is none, or is none any more."""


class RollCall:
    """Knows the engines by what they say of themselves.

    Attributes:
        facts: one an engine, None for one that has not answered since it was last away.
        models: that clients may ask for; all engines serve them.
    """

    def __init__(self, adapters: Sequence[Adapter], model: str | None, source: str) -> None:
        """
        Args:
            model: the one of the gateway file; None for those that the engines have in common.
            source: the gateway file, for errors.
        """
        self._adapters = adapters
        self._source = source
        self.facts: list[Facts | None] = [None] * len(adapters)
        self.models: tuple[str, ...] = (model,) if model else ()

    @property
    def context_length(self) -> int | None:
        """The least `max_model_len` of the engines, where they say it."""
        return min((f.max_model_len for f in self.facts if f is not None and f.max_model_len), default=None)

    def missing_slots(self, g: int, batch_size: int) -> int:
        """Slots that the scenario gives an engine and that it does not have."""
        fact = self.facts[g]
        return 0 if fact is None or fact.slots is None else max(0, batch_size - fact.slots)

    async def take(self, *, transfer: bool) -> None:
        """Ask all; `transfer` to see KV move too.

        Raises:
            FluidgateError: none answers, one serves another model, or KV does not move.
        """
        found = await asyncio.gather(*(self._ask(g) for g in range(len(self._adapters))))
        for g, fact in enumerate(found):
            if isinstance(fact, Facts):
                self.facts[g] = fact
            for remark in fact.remarks if isinstance(fact, Facts) else (fact,):
                log.warning("engine %s: %s", self._adapters[g].url, remark)
        if not any(self.facts):
            raise FluidgateError(f"{self._source}: engines.urls: no engine answers ({found[0]}); start them first")
        self._agree_on_models()
        if transfer:
            await self._see_kv_move()

    async def again(self, g: int) -> str:
        """What is wrong with an engine that was away or was never there, "" if nothing."""
        fact = await self._ask(g)
        if isinstance(fact, str):
            return fact
        if not set(self.models) & set(fact.models):
            return f"it serves {', '.join(fact.models) or 'no model'}, not {', '.join(self.models)}"
        self.facts[g] = fact
        return ""

    async def _ask(self, g: int) -> Facts | str:
        """What an engine is, or what is wrong with it."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                return await self._adapters[g].check()
        except UNREADABLE as error:
            return str(error) or "no answer in time"

    def _agree_on_models(self) -> None:
        facts = [fact for fact in self.facts if fact is not None]
        if not self.models:
            self.models = tuple(model for model in facts[0].models if all(model in f.models for f in facts))
        for g, fact in enumerate(self.facts):
            if fact is not None and not set(self.models) & set(fact.models):
                own, wanted = ", ".join(fact.models) or "no model", ", ".join(self.models) or "what the others do"
                raise FluidgateError(
                    f"{self._source}: engine {self._adapters[g].url} serves {own}, not {wanted}; "
                    "let all engines serve one model"
                )

    async def _see_kv_move(self) -> None:
        """Move KV around the ring of engines once: it must really move, and the pairs are warm afterwards."""
        there = [adapter for adapter, fact in zip(self._adapters, self.facts, strict=True) if fact is not None]
        if len(there) > 1:
            await asyncio.gather(*map(self._see_pair, there, [*there[1:], there[0]]))

    async def _see_pair(self, one: Adapter, other: Adapter) -> None:
        try:
            async with asyncio.timeout(TRANSFER_SECONDS):
                problem = await one.check_pair(other)
        except UNREADABLE as error:
            problem = str(error) or "it takes too long"
        if problem is not None:
            raise FluidgateError(
                f"{self._source}: KV does not move from {one.url} to {other.url}: {problem}; mend it, "
                "or give kind 'vllm-coupled'"
            )
