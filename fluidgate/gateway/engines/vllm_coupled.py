"""vLLM without KV transfer: a decode stays where its prompt was read."""

from __future__ import annotations

import math
from typing import final

from fluidgate.gateway.engines import model_list, vllm_wire
from fluidgate.gateway.engines.adapter import Abilities, Facts, Load, Served
from fluidgate.gateway.engines.coupled import Coupled


@final
class VllmCoupled(Coupled):
    """One call a request, or two if the engine caches prefixes: the second finds the prompt read."""

    abilities = Abilities(late=False, two_legs=False, lease=math.inf)

    async def check(self) -> Facts:
        served, max_model_len = await model_list.served(self.upstream, "vLLM")
        await vllm_wire.load(self.upstream)
        caches, kv_tokens = await vllm_wire.memory(self.upstream)
        self.abilities = Abilities(late=False, two_legs=caches, lease=math.inf)
        remarks = () if caches else ("no prefix caching: a prefill cannot be told from its decode unless streamed",)
        version = await vllm_wire.version(self.upstream)
        return Facts(served.models, max_model_len, None, False, version, remarks, served.adapters, kv_tokens=kv_tokens)

    async def look_up_models(self) -> Served:
        served, _ = await model_list.served(self.upstream, "vLLM")
        return served

    async def load(self) -> Load:
        return await vllm_wire.load(self.upstream)
