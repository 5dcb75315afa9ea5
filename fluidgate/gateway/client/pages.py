"""The end points that are read: models, the plan, health, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import orjson

from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.dashboard import HEADERS, PAGE
from fluidgate.gateway.client.response import Response
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.metrics import CONTENT_TYPE

JSON = {"content-type": "application/json"}


class Pages:
    """One method a page."""

    def __init__(self, gateway: Gateway, *, scrape: Callable[[], bytes]) -> None:
        """
        Args:
            scrape: gives the metrics.
        """
        self._gateway = gateway
        self._scrape = scrape

    async def page(self, response: Response, query: bytes) -> None:
        """What a browser shows."""
        await response.whole(200, HEADERS, PAGE)

    async def models(self, response: Response, query: bytes) -> None:
        await _json(response, 200, {"object": "list", "data": list(self._catalog().values())})

    async def model(self, response: Response, name: str) -> None:
        """One of them.

        Raises:
            ApiError: there is none of this name.
        """
        catalog = self._catalog()
        if name not in catalog:
            there = ", ".join(catalog)
            raise ApiError(404, "model_not_found", f"no model '{name[:100]}'; there is {there}", param="model")
        await _json(response, 200, catalog[name])

    async def plan(self, response: Response, query: bytes) -> None:
        """Of the group that `model` names, of the first if it names none."""
        snapshots = self._gateway.snapshots()
        names = [each["model"] for each in snapshots]
        wanted = parse_qs(query.decode("latin-1")).get("model", names[:1])[0]
        if wanted not in names:
            there = ", ".join(names)
            raise ApiError(404, "model_not_found", f"no group '{wanted[:100]}'; there is {there}", param="model")
        await _json(response, 200, snapshots[names.index(wanted)] | {"groups": names})

    async def health(self, response: Response, query: bytes) -> None:
        await _json(response, 200, {"status": "ok"})

    async def ready(self, response: Response, query: bytes) -> None:
        up, draining = self._gateway.up_count, self._gateway.draining
        ready = up > 0 and not draining
        await _json(response, 200 if ready else 503, {"ready": ready, "draining": draining, "engines_up": up})

    async def metrics(self, response: Response, query: bytes) -> None:
        await response.whole(200, {"content-type": CONTENT_TYPE}, self._scrape())

    def _catalog(self) -> dict[str, dict[str, Any]]:
        """What clients may ask for, by name."""
        found: dict[str, dict[str, Any]] = {}
        for group in self._gateway.groups:
            length = group.backends.context_length
            more = {} if length is None else {"max_model_len": length}
            for name in (*group.backends.models, *group.settings.aliases):
                known = {"id": name, "object": "model", "created": int(self._gateway.started), "owned_by": "fluidgate"}
                found.setdefault(name, known | more)
        return found


async def _json(response: Response, status: int, value: Any) -> None:
    await response.whole(status, JSON, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
