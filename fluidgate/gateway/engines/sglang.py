"""SGLang: engines that take whole requests, or pairs of them, one to read the prompt and one to write the answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import final
from urllib.parse import urlsplit

import orjson

from fluidgate.gateway.engines import model_list, sglang_wire
from fluidgate.gateway.engines.adapter import NO_HEADERS, Abilities, Adapter, Call, Facts, Handover, Load, Served
from fluidgate.gateway.engines.coupled import Coupled
from fluidgate.gateway.engines.errors import EngineError, KvLost, NotThisEngine, speaking
from fluidgate.gateway.engines.prompts import counted_prompt, probe
from fluidgate.gateway.engines.sglang_pair import Pair
from fluidgate.gateway.engines.upstream import Answer, Connections


@final
class Sglang(Coupled):
    """One engine. Without disaggregation a decode stays where its prompt was read.

    With it an engine was started as one side of pairs, and the decode's engine is called with the prefill's.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: Connections | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        pairs: bool = False,
    ) -> None:
        """
        Args:
            url, connections, headers: see `Adapter`.
            pairs: whether it is one side of pairs; a check sees to it that it is, or is not.
        """
        super().__init__(url, connections=connections, headers=headers)
        self._pairs = pairs
        self.abilities = Abilities(late=False, two_legs=False, lease=math.inf, pairs=pairs)
        self._info: sglang_wire.ServerInfo | None = None
        self._stops: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await super().start()
        self._load = sglang_wire.LoadReader(self.upstream)

    async def close(self) -> None:
        await asyncio.gather(*self._stops)
        await super().close()

    async def check(self) -> Facts:
        served, max_model_len = await model_list.served(self.upstream, "SGLang")
        info = self._info = await sglang_wire.server_info(self.upstream)
        if self._pairs and info.role == "both":
            raise NotThisEngine(
                f"{self.url} was started without --disaggregation-mode, and takes part in no pairs; start it with "
                "prefill or decode, or give no engines.binding"
            )
        if not self._pairs and info.role != "both":
            raise NotThisEngine(
                f"{self.url} is the {info.role} side of pairs (--disaggregation-mode); give engines.binding = 'early'"
            )
        load = await self.load()
        self.abilities = Abilities(
            late=False, two_legs=info.role == "both" and info.caches_prefixes, lease=math.inf, pairs=self._pairs
        )
        return Facts(
            served.models,
            max_model_len,
            None if info.role == "prefill" else info.slots,
            self._pairs,
            info.version,
            tuple(_remarks(info, load)),
            served.adapters,
            info.role,
        )

    async def check_pair(self, other: Adapter) -> str | None:
        if not isinstance(other, Sglang) or not self._pairs or not other._pairs:
            return await super().check_pair(other)
        mine, theirs = await self._told(), await other._told()
        if mine.role == theirs.role:
            return None
        if mine.role == "decode":
            return await other.check_pair(self)
        try:
            call = probe((await self.look_up_models()).models[0])
            async with other.write_answer(call, await self.read_prompt(call, other)) as answer:
                content = await answer.read()
            with speaking(other.url, "SGLang"):
                tokens = orjson.loads(content)["usage"]["completion_tokens"]
        except EngineError as error:
            return str(error)
        return None if tokens > 0 else f"{other.url} wrote no answer to a prompt that {self.url} had read"

    async def look_up_models(self) -> Served:
        served, _ = await model_list.served(self.upstream, "SGLang")
        return served

    async def load(self) -> Load:
        return await self._load.read()

    async def read_prompt(self, call: Call, to: Adapter | None = None) -> Handover:
        if not self._pairs:
            return await super().read_prompt(call)
        if not isinstance(to, Sglang):
            raise KvLost(f"{self.url} reads prompts for an engine that is called with it; none was named")
        port = (await self._told()).bootstrap_port
        pair = Pair(self.upstream, to.upstream, call, (_host(self.url), port))
        try:
            read = await pair.prompt_read()
        except BaseException:
            self._later(pair)
            raise
        return Handover(self.url, time.monotonic(), pair, *counted_prompt(read))

    @asynccontextmanager
    async def write_answer(self, call: Call, handover: Handover | None) -> AsyncIterator[Answer]:
        pair = handover.data if handover else None
        if not isinstance(pair, Pair):
            async with super().write_answer(call, handover) as answer:
                yield answer
            return
        if pair.writer is not self.upstream:
            raise KvLost(f"the answer waits on {pair.writer.url}, not on {self.url}")
        try:
            yield await pair.answer()
        except BaseException:
            self._later(pair)
            raise
        await pair.end()

    async def release(self, handover: Handover) -> None:
        if isinstance(handover.data, Pair):
            await handover.data.stop()

    async def _told(self) -> sglang_wire.ServerInfo:
        if self._info is None:
            self._info = await sglang_wire.server_info(self.upstream)
        return self._info

    def _later(self, pair: Pair) -> None:
        """In a task of its own, as that of the request may be cancelled."""
        task = asyncio.create_task(pair.stop())
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)


def _host(url: str) -> str:
    """Of a server, as another one is told it."""
    host = urlsplit(url).hostname or ""
    return f"[{host}]" if ":" in host else host


def _remarks(info: sglang_wire.ServerInfo, load: Load) -> list[str]:
    remarks = []
    if info.role == "both" and not info.caches_prefixes:
        remarks.append("no prefix caching: a prefill cannot be told from its decode unless streamed")
    if info.role == "both" and not info.mixes:
        remarks.append("decodes stand while a prompt is read; start it with --enable-mixed-chunk")
    if not load.counted:
        remarks.append("does not say how many requests are on it; start it with --enable-metrics")
    return remarks
