"""What an engine must be to serve: asked on start-up, and again of each that comes late or comes back."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping

from fluidgate.errors import FluidgateError, one_line
from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.cluster.engine import Engine
from fluidgate.gateway.engines import Adapter, EngineError, EngineRefused, EngineUnreachable, Facts
from fluidgate.no_answer import no_answer, refusal

log = logging.getLogger("fluidgate.gateway")

CHECK_SECONDS = 60.0
TRANSFER_SECONDS = 60.0
"""The first transfer of a pair takes some seconds even where nothing is wrong."""

FIRST_SECONDS = 5.0
"""s for which the start waits for the slower engines, once one has answered."""

UNREADABLE = (EngineError, TimeoutError, LookupError, TypeError, ValueError)
"""What a look at an engine may come to that is none, or is none any more."""


class Joining:
    """The checks of a group's engines."""

    def __init__(self, backends: Backends, source: str, *, transfer: bool) -> None:
        """
        Args:
            backends: whose engines get their facts here.
            source: the gateway file, for errors.
            transfer: whether KV is to move between the engines too.
        """
        self._backends = backends
        self._source = source
        self._transfer = transfer

    async def first(self, *, patient: bool, required: bool = True) -> None:
        """Ask every engine what it is: those that answer in time have their facts then, the others join later.

        Args:
            patient: whether to wait for each until it has answered or failed to.
            required: whether one at least must be fit.

        Raises:
            FluidgateError: none is fit where one must be, one serves another model, or KV does not move.
        """
        engines = list(self._backends)
        if not engines:
            log.info("no engine is named so far")
            return
        log.info("asking %d engine%s: %s", len(engines), "s"[: len(engines) > 1], _listed(engines))
        asking = {asyncio.create_task(ask(engine.adapter)): engine for engine in engines}
        found = await self._answers(asking, patient)
        _tell_remarks(found)
        for engine, fact in found.items():
            if isinstance(fact, Facts):
                engine.facts = fact
            else:
                engine.why = fact
        there = [engine for engine in engines if engine.facts is not None]
        if not there and not required:
            return
        if not there:
            raise FluidgateError(f"{self._source}: engines.urls: no engine is fit: {causes(found)}")
        self._agree_on_models(there)
        if len(roles := {engine.role for engine in there}) == 1 and "both" not in roles:
            log.warning("all engines are the %s side of pairs: nothing is served until another joins", *roles)
        if self._transfer and len(there) > 1:
            log.info("moving the KV of a prompt around %d engines, as a check", len(there))
            pairs = pairs_of(there)
            problems = await asyncio.gather(*(see_pair(one.adapter, other.adapter) for one, other in pairs))
            if problem := next(filter(None, problems), ""):
                raise FluidgateError(f"{self._source}: {problem}; mend it, or give kind 'vllm-coupled'")

    async def again(self, engine: Engine) -> str:
        """What is wrong with an engine that was away or was never there; "", and its facts are known, if nothing."""
        fact = await ask(engine.adapter)
        if isinstance(fact, str):
            return fact
        base = self._backends.base
        if base and not set(base) & set(fact.models):
            return f"it serves {', '.join(fact.models) or 'no model'}, not {', '.join(base)}"
        if self._transfer and (problem := await self._with_another(engine, fact)):
            return problem
        for remark in fact.remarks:
            log.warning("engine %s: %s", engine.url, remark)
        engine.facts = fact
        self._backends.note_models()
        return ""

    async def _answers(
        self, asking: dict[asyncio.Task[Facts | str], Engine], patient: bool
    ) -> dict[Engine, Facts | str]:
        """What the engines say, by the time that they all have, or for a while after the first that is fit."""
        waiting, found = set(asking), dict[Engine, Facts | str]()
        now = asyncio.get_running_loop().time
        until = math.inf
        while waiting and now() < until:
            left = None if until == math.inf else until - now()
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                found[asking[task]] = task.result()
                _tell(asking[task], task.result())
            if not patient and any(isinstance(fact, Facts) for fact in found.values()):
                until = min(until, now() + FIRST_SECONDS)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for task in waiting:
            log.warning("engine %s: no answer so far; looking for it goes on", asking[task].url)
        return found

    def _agree_on_models(self, there: list[Engine]) -> None:
        backends = self._backends
        backends.note_models()
        for engine in there:
            if not set(backends.base) & set(engine.models):
                own, wanted = ", ".join(engine.models) or "no model", ", ".join(backends.base) or "what the others do"
                raise FluidgateError(
                    f"{self._source}: engine {engine.url} serves {own}, not {wanted}; let all engines of a group "
                    "serve one model"
                )

    async def _with_another(self, engine: Engine, fact: Facts) -> str:
        """What is wrong with the KV that moves between an engine and one that is up, both ways; "" if nothing is."""
        up = [each for each in self._backends if each.answers and each is not engine]
        other = next((each for each in up if fact.role == "both" or each.role != fact.role), None)
        if other is None:
            return ""
        if not fact.moves_kv:
            return "it hands no KV over, as the others do; start it with a --kv-transfer-config"
        log.info("moving the KV of a prompt between %s and %s, as a check", engine.url, other.url)
        pairs = ((engine.adapter, other.adapter), (other.adapter, engine.adapter))
        return next(filter(None, [await see_pair(*pair) for pair in pairs]), "")


def pairs_of(engines: list[Engine]) -> list[tuple[Engine, Engine]]:
    """Pairs that KV is moved between, so that each engine is in one: a ring, or of those that read and those that write
    each with another of the other side."""
    reads = [engine for engine in engines if engine.role == "prefill"]
    writes = [engine for engine in engines if engine.role == "decode"]
    if not reads and not writes:
        return list(zip(engines, [*engines[1:], engines[0]], strict=True))
    most = max(len(reads), len(writes)) if reads and writes else 0
    return [(reads[k % len(reads)], writes[k % len(writes)]) for k in range(most)]


async def ask(adapter: Adapter) -> Facts | str:
    """What an engine is, or what is wrong with it."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await adapter.check()
    except UNREADABLE as error:
        return _told(error, adapter.url)


def _told(error: BaseException, url: str) -> str:
    """What is wrong with an engine, and what mends it; without its URL, which stands before."""
    if isinstance(error, EngineRefused):
        said = one_line(error.body[:120].decode(errors="replace"))
        found = refusal(error.status, "engines.api_key_env")
        return f"{found.reason}{f', {said}' if error.status >= 500 and said else ''}; {found.mend}"
    if isinstance(error, EngineUnreachable) and error.__cause__ is not None:
        return str(no_answer(error.__cause__))
    if isinstance(error, TimeoutError):
        return str(no_answer(error))
    return str(error).removeprefix(url).lstrip(": ") or type(error).__name__


async def see_pair(one: Adapter, other: Adapter) -> str:
    """What is wrong with the KV that moves from one engine to another; "" if nothing is."""
    try:
        async with asyncio.timeout(TRANSFER_SECONDS):
            problem = await one.check_pair(other)
    except UNREADABLE as error:
        problem = str(error) or "it takes too long"
    return f"KV does not move from {one.url} to {other.url}: {problem}" if problem else ""


def _tell(engine: Engine, fact: Facts | str) -> None:
    """What an engine has answered, at once: the next may keep one waiting for a minute."""
    if isinstance(fact, Facts):
        log.info("engine %s answers and serves %s", engine.url, ", ".join(fact.models))
    else:
        log.warning("engine %s: %s", engine.url, fact)


def _tell_remarks(found: Mapping[Engine, Facts | str]) -> None:
    """What is to be known of engines that are fit, once for all of which it is true."""
    true_of: dict[str, list[Engine]] = {}
    for engine, fact in found.items():
        for remark in fact.remarks if isinstance(fact, Facts) else ():
            true_of.setdefault(remark, []).append(engine)
    for remark, engines in true_of.items():
        log.warning("engine%s %s: %s", "s"[: len(engines) > 1], _listed(engines), remark)


def causes(found: Mapping[Engine, Facts | str]) -> str:
    """What is wrong with the first engine, and how many more there are of it, or with other troubles."""
    if not found:
        return "no answer in time; see whether they are up"
    first, why = next(iter(found.items()))
    others = len(found) - 1
    same = sum(each == why for each in found.values()) - 1
    alike = "" if same == 0 else ", for the same reason" if same == others else f", {same} for the same reason"
    return f"{first.url}: {why}" + (f" (and {others} more{alike})" if others else "")


def _listed(engines: list[Engine], most: int = 4) -> str:
    named = [engine.url for engine in engines[:most]]
    return ", ".join([*named, *(["..."] if len(engines) > most else [])])
