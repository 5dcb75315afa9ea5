"""Engines whose decodes stay where their prompts were read: one call a request, or two to the same engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fluidgate.gateway.engines.adapter import Adapter, Call, Handover
from fluidgate.gateway.engines.errors import KvLost
from fluidgate.gateway.engines.prompts import counted_prompt, prompt_only
from fluidgate.gateway.engines.upstream import Answer


class Coupled(Adapter):
    """The second of two calls finds its prompt in the engine's prefix cache, if it has one."""

    async def read_prompt(self, call: Call, to: Adapter | None = None) -> Handover:
        answer = await self.upstream.post(call.path, prompt_only(call.body), call.id, call.headers)
        return Handover(self.url, time.monotonic(), None, *counted_prompt(answer))

    @asynccontextmanager
    async def write_answer(self, call: Call, handover: Handover | None) -> AsyncIterator[Answer]:
        if handover is not None and handover.url != self.url:
            raise KvLost(f"{self.url} fetches no KV from {handover.url}")
        async with self.upstream.open(
            call.path, call.raw, call.id, call.headers, stream=call.stream, silence=call.silence
        ) as answer:
            yield answer
