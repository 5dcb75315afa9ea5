"""Any server of OpenAI's API: one call a request, and nothing is known of its load."""

from __future__ import annotations

import math
from typing import final

from fluidgate.gateway.engines import model_list
from fluidgate.gateway.engines.adapter import Abilities, Facts, Load, Served
from fluidgate.gateway.engines.coupled import Coupled
from fluidgate.gateway.engines.errors import EngineRefused

NO_LOAD = Load(running=None, waiting=None, kv_usage=None)
NO_SUCH_PAGE = (401, 403, 404, 405, 501)


@final
class OpenAiCompatible(Coupled):
    """`/v1/models` says what it serves; `/health`, where there is one, whether it can serve now."""

    abilities = Abilities(late=False, two_legs=False, lease=math.inf)
    _page = "/health"

    async def check(self) -> Facts:
        served, max_model_len = await model_list.served(self.upstream, "an OpenAI-compatible server")
        return Facts(served.models, max_model_len, None, False, None, (), served.adapters)

    async def look_up_models(self) -> Served:
        served, _ = await model_list.served(self.upstream, "an OpenAI-compatible server")
        return served

    async def load(self) -> Load:
        """That it answers is all that is known."""
        try:
            await self.upstream.get(self._page)
        except EngineRefused as refused:
            if refused.status not in NO_SUCH_PAGE or self._page != "/health":
                raise
            self._page = "/v1/models"
            await self.upstream.get(self._page)
        return NO_LOAD
