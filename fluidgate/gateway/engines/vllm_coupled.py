"""vLLM without KV transfer: a decode stays where its prompt was read."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import final

from fluidgate.gateway.engines import vllm_wire
from fluidgate.gateway.engines.adapter import Abilities, Adapter, Call, Facts, Handover, Load, Served
from fluidgate.gateway.engines.errors import KvLost
from fluidgate.gateway.engines.prompts import counted_prompt, prompt_only
from fluidgate.gateway.engines.upstream import Answer


@final
class VllmCoupled(Adapter):
    """One call a request, or two if the engine caches prefixes: the second finds the prompt read."""

    abilities = Abilities(late=False, two_legs=False, lease=math.inf)

    async def check(self) -> Facts:
        served, max_model_len = await vllm_wire.served(self.upstream)
        await vllm_wire.load(self.upstream)
        caches = await vllm_wire.caches_prefixes(self.upstream)
        self.abilities = Abilities(late=False, two_legs=caches, lease=math.inf)
        remarks = () if caches else ("no prefix caching: a prefill cannot be told from its decode unless streamed",)
        version = await vllm_wire.version(self.upstream)
        return Facts(served.models, max_model_len, None, False, version, remarks, served.adapters)

    async def look_up_models(self) -> Served:
        served, _ = await vllm_wire.served(self.upstream)
        return served

    async def load(self) -> Load:
        return await vllm_wire.load(self.upstream)

    async def read_prompt(self, call: Call) -> Handover:
        answer = await self.upstream.post(call.path, prompt_only(call.body), call.id, call.headers)
        return Handover(self.url, time.monotonic(), prompt_tokens=counted_prompt(answer))

    @asynccontextmanager
    async def write_answer(self, call: Call, handover: Handover | None) -> AsyncIterator[Answer]:
        if handover is not None and handover.url != self.url:
            raise KvLost(f"{self.url} fetches no KV from {handover.url}")
        async with self.upstream.open(
            call.path, call.raw, call.id, call.headers, stream=call.stream, silence=call.silence
        ) as answer:
            yield answer
