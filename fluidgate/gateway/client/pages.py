"""The end points that are read: models, the plan, health, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from fluidgate.gateway.backends import Backends
from fluidgate.gateway.client.admission import Admission
from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.response import Response
from fluidgate.gateway.metrics import CONTENT_TYPE

JSON = {"content-type": "application/json"}


class Pages:
    """One method a page."""

    def __init__(
        self,
        backends: Backends,
        admission: Admission,
        *,
        scrape: Callable[[], bytes],
        snapshot: Callable[[], dict[str, Any]],
        started: float,
    ) -> None:
        """
        Args:
            scrape: gives the metrics; `snapshot`, the plan and the cluster now.
            started: epoch since which the models are there, s.
        """
        self._backends = backends
        self._admission = admission
        self._scrape = scrape
        self._snapshot = snapshot
        self._started = started

    async def models(self, response: Response) -> None:
        models = [self._about(model) for model in self._backends.models]
        await _json(response, 200, {"object": "list", "data": models})

    async def model(self, response: Response, name: str) -> None:
        """One of them.

        Raises:
            ApiError: there is none of this name.
        """
        if name not in self._backends.models:
            there = ", ".join(self._backends.models)
            raise ApiError(404, "model_not_found", f"no model '{name[:100]}'; there is {there}", param="model")
        await _json(response, 200, self._about(name))

    def _about(self, model: str) -> dict[str, Any]:
        length = self._backends.context_length
        more = {} if length is None else {"max_model_len": length}
        return {"id": model, "object": "model", "created": int(self._started), "owned_by": "fluidgate", **more}

    async def plan(self, response: Response) -> None:
        await _json(response, 200, self._snapshot())

    async def health(self, response: Response) -> None:
        await _json(response, 200, {"status": "ok"})

    async def ready(self, response: Response) -> None:
        ready, draining = self._admission.ready, self._admission.draining
        status = {"ready": ready, "draining": draining, "engines_up": self._backends.up_count}
        await _json(response, 200 if ready else 503, status)

    async def metrics(self, response: Response) -> None:
        await response.whole(200, {"content-type": CONTENT_TYPE}, self._scrape())


async def _json(response: Response, status: int, value: Any) -> None:
    await response.whole(status, JSON, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
