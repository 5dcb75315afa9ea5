"""The HTTP interface: OpenAI's end points, and the gateway's own."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.ask import CHAT, COMPLETIONS, Ask, ClientGone, Receive, Scope, Send, read_body
from fluidgate.gateway.client.classifier import Traits
from fluidgate.gateway.client.response import Outlet
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.metrics import CONTENT_TYPE

log = logging.getLogger("fluidgate.gateway")

JSON = {"content-type": "application/json"}
IDS = re.compile(r"[\x21-\x7e]{1,128}")


class App:
    """An ASGI application. It is written without a framework: the path of a token is the gateway's whole cost."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope["headers"])
        client_id = _one(headers["x-request-id"])
        outlet = Outlet(send, client_id)
        try:
            path = _checked_path(scope)
            key = self.gateway.keyring.holder(headers["authorization"]) if path.startswith("/v1/") else None
            if path in POSTS:
                await self._complete(scope, receive, send, Traits(headers.__getitem__, key, "", "", 0), client_id)
            else:
                await GETS[path](self, outlet)
        except ApiError as error:
            self.gateway.note_refusal(error, scope["path"], client_id)
            await outlet.fail(error)
        except ClientGone:
            return
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"][:100])
            await outlet.fail(ApiError(500, "internal_error", "the gateway has failed; its log says why"))

    async def _complete(self, scope: Scope, receive: Receive, send: Send, who: Traits, client_id: str) -> None:
        gateway, path = self.gateway, scope["path"]
        raw = await read_body(scope["headers"], receive, gateway.settings.limits.max_body_bytes)
        ask = Ask.of(path, raw, gateway.meter)
        gateway.check_ask(ask)
        kind = "chat" if path == CHAT else "completions"
        traits = Traits(who.header, who.key, ask.model, kind, ask.prompt_tokens)
        await gateway.serve(ask, traits, client_id, receive, send)

    async def _models(self, outlet: Outlet) -> None:
        length = self.gateway.roll_call.context_length
        more = {} if length is None else {"max_model_len": length}
        created = int(self.gateway.started)
        models = [
            {"id": model, "object": "model", "created": created, "owned_by": "fluidgate", **more}
            for model in self.gateway.roll_call.models
        ]
        await _json(outlet, 200, {"object": "list", "data": models})

    async def _health(self, outlet: Outlet) -> None:
        await _json(outlet, 200, {"status": "ok"})

    async def _ready(self, outlet: Outlet) -> None:
        up = sum(self.gateway.monitor.up)
        status = {"ready": self.gateway.ready, "draining": self.gateway.draining, "engines_up": up}
        await _json(outlet, 200 if self.gateway.ready else 503, status)

    async def _metrics(self, outlet: Outlet) -> None:
        await outlet.whole(200, {"content-type": CONTENT_TYPE}, self.gateway.metrics.scrape())

    async def _plan(self, outlet: Outlet) -> None:
        await _json(outlet, 200, self.gateway.snapshot())


POSTS = (COMPLETIONS, CHAT)
GETS: dict[str, Callable[[App, Outlet], Awaitable[None]]] = {
    "/v1/models": App._models,
    "/v1/plan": App._plan,
    "/health": App._health,
    "/ready": App._ready,
    "/metrics": App._metrics,
}


def _checked_path(scope: Scope) -> str:
    """The end point that is called.

    Raises:
        ApiError: there is none, or it is called by another method.
    """
    path: str = scope["path"]
    if path not in POSTS and path not in GETS:
        raise ApiError(404, "not_found", f"no such end point: {path[:100]}")
    allowed = "POST" if path in POSTS else "GET"
    if scope["method"] != allowed:
        raise ApiError(405, "method_not_allowed", f"{path} takes {allowed}", headers={"allow": allowed})
    return path


async def _json(outlet: Outlet, status: int, value: Any) -> None:
    await outlet.whole(status, JSON, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> defaultdict[str, list[str]]:
    """The values of each header; names are in lower case already."""
    headers: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in pairs:
        headers[name.decode("latin-1")].append(value.decode("latin-1"))
    return headers


def _one(values: Sequence[str]) -> str:
    """The client's own name of its request, if it is fit to be sent back."""
    return values[0] if len(values) == 1 and IDS.fullmatch(values[0]) else ""


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
