"""The HTTP interface: which end point answers a request, and what is said where none does."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from fluidgate.gateway.client.admin import PREFIX, Admin
from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.asgi import ClientGone, Receive, Scope, Send, read_body
from fluidgate.gateway.client.completions import Completions
from fluidgate.gateway.client.cors import Cors
from fluidgate.gateway.client.dashboard import LiveStream
from fluidgate.gateway.client.dialect import Dialect
from fluidgate.gateway.client.end_points import END_POINTS
from fluidgate.gateway.client.keyring import Keyring
from fluidgate.gateway.client.pages import Pages
from fluidgate.gateway.client.protocol import client_of
from fluidgate.gateway.client.response import Response
from fluidgate.gateway.ended import RefusedRequest

log = logging.getLogger("fluidgate.gateway")

IDS = re.compile(r"[\x21-\x7e]{1,128}")

MOST_ADMIN_BYTES = 1 << 16

Page = Callable[[Pages, Response, bytes], Awaitable[None]]
GETS: dict[str, Page] = {
    "/": Pages.page,
    "/v1/models": Pages.models,
    "/v1/plan": Pages.plan,
    "/health": Pages.health,
    "/ready": Pages.ready,
    "/metrics": Pages.metrics,
}

PLAN_EVENTS = "/v1/plan/events"

MODEL = "/v1/models/"
"""What the page of one model begins with; the rest, slashes and all, is its name."""

WHOLE_SERVER = "/*"
"""How the path of `OPTIONS *` reads."""

POST, GET = ("POST", "OPTIONS"), ("GET", "HEAD", "OPTIONS")

Headers = defaultdict[str, list[str]]


class App:
    """An ASGI application. It is written without a framework: the path of a token is the gateway's whole cost.

    Attributes:
        keyring: the keys that clients may come with; `cors`, the origins of pages that may read answers.
    """

    def __init__(
        self,
        keyring: Keyring,
        admin: Admin,
        completions: Completions,
        pages: Pages,
        live: LiveStream,
        cors: Cors,
        refused: Callable[[RefusedRequest], None],
    ) -> None:
        """
        Args:
            refused: called with each request that is refused on arrival.
        """
        self.keyring = keyring
        self._admin = admin
        self._completions = completions
        self._pages = pages
        self._live = live
        self.cors = cors
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        headers = _headers(scope["headers"])
        client_id = _client_id(headers["x-request-id"])
        point = END_POINTS.get(path)
        dialect = Dialect.OPENAI if point is None else point.dialect
        cors = self.cors.headers(scope["method"], headers.__getitem__)
        response = Response(send, client_id, dialect=dialect, headers=cors)
        key: str | None = None
        try:
            if path.startswith(PREFIX):
                self._admin.let_in(headers["authorization"])
                raw = await read_body(scope["headers"], receive, MOST_ADMIN_BYTES)
                await self._admin.serve(scope["method"], path, raw, response)
                return
            allowed = _checked(path, scope["method"])
            if scope["method"] == "OPTIONS":
                await response.begin(204, {"allow": ", ".join(allowed)})
                await response.end()
                return
            key = self.keyring.holder(_given_key(headers)) if point or path.startswith("/v1/") else None
            if point:
                await self._completions.serve(scope, headers.__getitem__, key, client_id, receive, response)
            elif path in GETS:
                await GETS[path](self._pages, response, scope["query_string"])
            elif path == PLAN_EVENTS:
                await self._live.serve(scope["method"], receive, response)
            else:
                await self._pages.model(response, path.removeprefix(MODEL))
        except ApiError as error:
            whose = error.class_name, key, client_of(scope.get("client"))
            self._refused(RefusedRequest(error.status, error.reason, path, client_id, *whose, error.message))
            await response.fail(error)
        except ClientGone:
            return
        except Exception:
            log.exception("%s %s failed", scope["method"], path[:100])
            await response.fail(ApiError(500, "internal_error", "the gateway has failed; its log says why"))


def _checked(path: str, method: str) -> tuple[str, ...]:
    """The methods of the end point that is called.

    Raises:
        ApiError: there is none, or it is called by another method.
    """
    allowed: tuple[str, ...]
    if path in END_POINTS:
        allowed = POST
    elif path in GETS or path == PLAN_EVENTS or (path.startswith(MODEL) and path != MODEL):
        allowed = GET
    elif (path, method) == (WHOLE_SERVER, "OPTIONS"):
        return (*GET, "POST")
    else:
        raise ApiError(404, "not_found", f"no such end point: {path[:100]}")
    if method not in allowed:
        takes = ", ".join(allowed)
        raise ApiError(405, "method_not_allowed", f"{path[:100]} takes {takes}", headers={"allow": takes})
    return allowed


def _given_key(headers: Headers) -> Sequence[str]:
    """The `Authorization` of a request, in whose place Anthropic's clients send `x-api-key`."""
    return headers["authorization"] or [f"Bearer {key}" for key in headers["x-api-key"]]


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> Headers:
    """The values of each header; names are in lower case already."""
    headers: Headers = defaultdict(list)
    for name, value in pairs:
        headers[name.decode("latin-1")].append(value.decode("latin-1"))
    return headers


def _client_id(values: Sequence[str]) -> str:
    """The client's own name of its request, if it is fit to be sent back."""
    return values[0] if len(values) == 1 and IDS.fullmatch(values[0]) else ""


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
