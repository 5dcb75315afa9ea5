"""The HTTP interface: which end point answers a request, and what is said where none does."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.asgi import ClientGone, Receive, Scope, Send
from fluidgate.gateway.client.completion_request import CHAT, COMPLETIONS
from fluidgate.gateway.client.completions import Completions
from fluidgate.gateway.client.keyring import Keyring
from fluidgate.gateway.client.pages import Pages
from fluidgate.gateway.client.response import Response
from fluidgate.gateway.ended import RefusedRequest

log = logging.getLogger("fluidgate.gateway")

IDS = re.compile(r"[\x21-\x7e]{1,128}")

POSTS = (COMPLETIONS, CHAT)
GETS: dict[str, Callable[[Pages, Response], Awaitable[None]]] = {
    "/v1/models": Pages.models,
    "/v1/plan": Pages.plan,
    "/health": Pages.health,
    "/ready": Pages.ready,
    "/metrics": Pages.metrics,
}


class App:
    """An ASGI application. It is written without a framework: the path of a token is the gateway's whole cost."""

    def __init__(
        self, keyring: Keyring, completions: Completions, pages: Pages, refused: Callable[[RefusedRequest], None]
    ) -> None:
        """
        Args:
            refused: called with each request that is refused on arrival.
        """
        self._keyring = keyring
        self._completions = completions
        self._pages = pages
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope["headers"])
        client_id = _client_id(headers["x-request-id"])
        response = Response(send, client_id)
        key: str | None = None
        try:
            path = _checked_path(scope)
            key = self._keyring.holder(headers["authorization"]) if path.startswith("/v1/") else None
            if path in POSTS:
                await self._completions.serve(scope, headers.__getitem__, key, client_id, receive, send)
            else:
                await GETS[path](self._pages, response)
        except ApiError as error:
            refused = RefusedRequest(error.status, error.reason, scope["path"], client_id, error.class_name, key)
            self._refused(refused)
            await response.fail(error)
        except ClientGone:
            return
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"][:100])
            await response.fail(ApiError(500, "internal_error", "the gateway has failed; its log says why"))


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


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> defaultdict[str, list[str]]:
    """The values of each header; names are in lower case already."""
    headers: defaultdict[str, list[str]] = defaultdict(list)
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
