"""`/v1/models`, which every OpenAI-compatible server has."""

from __future__ import annotations

import orjson

from fluidgate.gateway.engines.adapter import Served
from fluidgate.gateway.engines.errors import speaking
from fluidgate.gateway.engines.upstream import Upstream


async def served(upstream: Upstream, engine: str) -> tuple[Served, int | None]:
    """The models, and their longest context, tokens, where they say it.

    Raises:
        NotThisEngine: it lists no model, or not as `engine` does.
        EngineError: nothing was answered.
    """
    page = await upstream.get("/v1/models")
    with speaking(upstream.url, engine):
        models = orjson.loads(page)["data"]
        names = tuple(model["id"] for model in models)
        lengths = [model["max_model_len"] for model in models if model.get("max_model_len")]
        if not names:
            raise LookupError("no model")
        return Served(names, tuple(model["id"] for model in models if model.get("parent"))), min(lengths, default=None)
