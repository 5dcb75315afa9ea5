"""vLLM with its NixlConnector in pull mode: the engine that decodes fetches the KV from the one that read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, final

import orjson

from fluidgate.gateway.engines import model_list, vllm_wire
from fluidgate.gateway.engines.adapter import NO_HEADERS, Abilities, Adapter, Call, Facts, Handover, Load, Served
from fluidgate.gateway.engines.errors import EngineError, EngineRefused, EngineUnreachable, KvLost
from fluidgate.gateway.engines.prompts import counted_prompt, probe, prompt_only
from fluidgate.gateway.engines.upstream import Answer, Connections

LEASE = 30.0
"""vLLM's own `kv_lease_duration`, s."""

IN_TIME = 5 / 6
"""Share of the lease within which a decode must be sent: its engine renews the lease once every sixth of it."""

HAND_OVER = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}

NO_MODEL = "fluidgate-release"


@final
class Vllm(Adapter):
    """One engine of a cluster whose engines exchange KV.

    The engine pins the KV of a prompt until another has fetched it or the lease ends. One that refuses a decode tells
    the engine that pins its KV to let go; so a refused decode is a lost one, and so can KV be released.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: Connections | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        lease: float = LEASE,
    ) -> None:
        """
        Args:
            url, connections, headers: see `Adapter`.
            lease: the engine's `kv_lease_duration`, s.
        """
        super().__init__(url, connections=connections, headers=headers)
        self._lease = lease
        self.abilities = Abilities(late=True, two_legs=True, lease=IN_TIME * lease)
        self._probed: tuple[Call, Handover] | None = None
        self._fetches_from_here: Vllm | None = None
        self._releases: set[asyncio.Task[None]] = set()

    async def check(self) -> Facts:
        served, max_model_len = await model_list.served(self.upstream, "vLLM")
        await vllm_wire.load(self.upstream)
        caches, kv_tokens = await vllm_wire.memory(self.upstream)
        self.abilities = Abilities(late=True, two_legs=caches, lease=self.abilities.lease)
        remarks: tuple[str, ...] = () if caches else ("no prefix caching: a decode that stays reads its prompt again",)
        call = probe(served.models[0])
        probed = await self.read_prompt(call)
        self._probed = call, probed
        if probed.data is None:
            remarks += ("hands no KV over: start it with a --kv-transfer-config",)
        version = await vllm_wire.version(self.upstream)
        moves = probed.data is not None
        return Facts(served.models, max_model_len, None, moves, version, remarks, served.adapters, kv_tokens=kv_tokens)

    async def check_pair(self, other: Adapter) -> str | None:
        if not isinstance(other, Vllm):
            return await super().check_pair(other)
        try:
            call, handover = await self._probe()
            before = await vllm_wire.fetched(other.upstream)
            async with other.write_answer(call, handover) as answer:
                await answer.read()
            if await vllm_wire.fetched(other.upstream, beyond=before) <= before:
                return f"{other.url} read the prompt again instead of fetching its KV from {self.url}"
        except EngineError as error:
            return str(error)
        self._fetches_from_here = other
        return None

    async def _probe(self) -> tuple[Call, Handover]:
        """A prompt that was read here: that of the last check, whose KV still waits, or a new one."""
        probed, self._probed = self._probed, None
        if probed is not None and self._age(probed[1]) < self.abilities.lease / 2:
            return probed
        call = probe((await self.look_up_models()).models[0])
        return call, await self.read_prompt(call)

    async def look_up_models(self) -> Served:
        served, _ = await model_list.served(self.upstream, "vLLM")
        return served

    async def load(self) -> Load:
        return await vllm_wire.load(self.upstream)

    async def read_prompt(self, call: Call, to: Adapter | None = None) -> Handover:
        body = prompt_only(call.body, kv_transfer_params=HAND_OVER)
        answer = await self.upstream.post(call.path, body, call.id, call.headers)
        return Handover(self.url, time.monotonic(), answer.get("kv_transfer_params"), *counted_prompt(answer))

    @asynccontextmanager
    async def write_answer(self, call: Call, handover: Handover | None) -> AsyncIterator[Answer]:
        if handover is None:
            async with self._open(call, call.raw) as answer:
                yield answer
        elif handover.url == self.url:
            try:
                async with self._open(call, call.raw) as answer:
                    yield answer
            finally:
                self._later(self.release(handover))
        else:
            body = orjson.dumps(dict(call.body) | {"kv_transfer_params": self._still_there(handover)})
            async with AsyncExitStack() as stack:
                with _kv_lost(handover):
                    answer = await stack.enter_async_context(self._open(call, body))
                self._refuse_late(call, handover)
                yield answer

    async def release(self, handover: Handover) -> None:
        """Have an engine that fetches from here refuse the decode; without one, the lease ends by itself."""
        fetcher = self._fetches_from_here
        if fetcher is None or handover.data is None or self._age(handover) > self.abilities.lease:
            return
        refused = {"model": NO_MODEL, "prompt": "-", "max_tokens": 1, "kv_transfer_params": handover.data}
        with suppress(EngineError):
            await fetcher.upstream.post("/v1/completions", refused)

    async def close(self) -> None:
        await asyncio.gather(*self._releases)
        await super().close()

    def _later(self, release: Coroutine[None, None, None]) -> None:
        """In a task of its own, as that of the answer may be cancelled."""
        task = asyncio.create_task(release)
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    def _open(self, call: Call, body: bytes) -> AbstractAsyncContextManager[Answer]:
        return self.upstream.open(call.path, body, call.id, call.headers, stream=call.stream, silence=call.silence)

    def _still_there(self, handover: Handover) -> Any:
        """The transfer parameters of KV whose lease runs: later, a decoder may fetch what others wrote there."""
        if handover.data is None:
            raise KvLost(f"{handover.url} has handed no KV over")
        if (age := self._age(handover)) > self.abilities.lease:
            raise KvLost(f"{handover.url}: KV read {age:.1f} s ago, kept for {self.abilities.lease:.1f} s")
        return handover.data

    def _refuse_late(self, call: Call, handover: Handover) -> None:
        """A stream that begins after the lease: nobody can say if the KV was fetched in time, so it is not believed.

        An engine short of CPU time has been seen to fetch, unrenewed, just after the lease, and to answer all the same.
        """
        if call.stream and (age := self._age(handover)) > self._lease:
            raise KvLost(f"{handover.url}: KV read {age:.1f} s before the first token, pinned for {self._lease:.1f} s")

    def _age(self, handover: Handover) -> float:
        return time.monotonic() - handover.epoch


@contextmanager
def _kv_lost(handover: Handover) -> Iterator[None]:
    """What an engine that was to fetch KV has done to it: if it may have begun, it may have had the KV let go."""
    try:
        yield
    except EngineUnreachable as error:
        if error.taken:
            raise KvLost(f"KV of {handover.url}: {error}") from error
        raise
    except EngineRefused as error:
        if error.elsewhere or error.status >= 500:
            raise KvLost(f"KV of {handover.url}: {error}") from error
        raise
