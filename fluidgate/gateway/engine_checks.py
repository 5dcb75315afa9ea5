"""What the engines are: asked on start-up, and again of each that comes back."""

from __future__ import annotations

import asyncio
import logging

from fluidgate.errors import FluidgateError
from fluidgate.gateway.backends import Backends
from fluidgate.gateway.engines import Adapter, EngineError, Facts

log = logging.getLogger("fluidgate.gateway")

CHECK_SECONDS = 60.0
TRANSFER_SECONDS = 60.0
"""The first transfer of a pair takes some seconds even where nothing is wrong."""

UNREADABLE = (EngineError, TimeoutError, LookupError, TypeError, ValueError)
"""What a look at an engine may come to that is none, or is none any more."""


async def check_all(backends: Backends, source: str, *, transfer: bool) -> None:
    """Ask every engine what it is.

    Args:
        backends: their facts and models are brought up to date.
        source: the gateway file, for errors.
        transfer: whether KV is to move between them too.

    Raises:
        FluidgateError: none answers, one serves another model, or KV does not move.
    """
    found = await asyncio.gather(*map(_ask, backends.adapters))
    for g, fact in enumerate(found):
        if isinstance(fact, Facts):
            backends.facts[g] = fact
        for remark in fact.remarks if isinstance(fact, Facts) else (fact,):
            log.warning("engine %s: %s", backends.url(g), remark)
    if not any(backends.facts):
        raise FluidgateError(f"{source}: engines.urls: no engine answers ({found[0]}); start them first")
    _agree_on_models(backends, source)
    if transfer:
        await _see_kv_move(backends, source)


async def check_again(backends: Backends, g: int) -> str:
    """What is wrong with an engine that was away or was never there; "", and its facts are known, if nothing."""
    fact = await _ask(backends.adapters[g])
    if isinstance(fact, str):
        return fact
    if not set(backends.models) & set(fact.models):
        return f"it serves {', '.join(fact.models) or 'no model'}, not {', '.join(backends.models)}"
    backends.facts[g] = fact
    return ""


async def _ask(adapter: Adapter) -> Facts | str:
    """What an engine is, or what is wrong with it."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await adapter.check()
    except UNREADABLE as error:
        return str(error) or "no answer in time"


def _agree_on_models(backends: Backends, source: str) -> None:
    facts = [fact for fact in backends.facts if fact is not None]
    if not backends.models:
        backends.models = tuple(model for model in facts[0].models if all(model in f.models for f in facts))
    for g, fact in enumerate(backends.facts):
        if fact is not None and not set(backends.models) & set(fact.models):
            own, wanted = ", ".join(fact.models) or "no model", ", ".join(backends.models) or "what the others do"
            raise FluidgateError(
                f"{source}: engine {backends.url(g)} serves {own}, not {wanted}; let all engines serve one model"
            )


async def _see_kv_move(backends: Backends, source: str) -> None:
    """Move KV around the ring of engines once: it must really move, and the pairs are warm afterwards."""
    there = [adapter for adapter, fact in zip(backends.adapters, backends.facts, strict=True) if fact is not None]
    if len(there) > 1:
        pairs = zip(there, [*there[1:], there[0]], strict=True)
        await asyncio.gather(*(_see_pair(one, other, source) for one, other in pairs))


async def _see_pair(one: Adapter, other: Adapter, source: str) -> None:
    try:
        async with asyncio.timeout(TRANSFER_SECONDS):
            problem = await one.check_pair(other)
    except UNREADABLE as error:
        problem = str(error) or "it takes too long"
    if problem is not None:
        raise FluidgateError(
            f"{source}: KV does not move from {one.url} to {other.url}: {problem}; mend it, or give kind 'vllm-coupled'"
        )
