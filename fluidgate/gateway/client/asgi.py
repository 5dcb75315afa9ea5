"""The words of ASGI, in which the HTTP server speaks to the gateway, and the body of a request read by them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fluidgate.gateway.client.api_error import ApiError

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

DISCARDED = 4
"""So many times the largest body is read, and dropped, before one that is too large is refused."""


class ClientGone(Exception):
    """The client has closed its connection."""


async def read_body(headers: Sequence[tuple[bytes, bytes]], receive: Receive, most: int) -> bytes:
    """The body of a request.

    Raises:
        ApiError: it is longer than `most` bytes, by its header or in truth.
        ClientGone: the client left before its end.
    """
    lengths = [value for name, value in headers if name == b"content-length"]
    if lengths and lengths[0].isdigit() and len(lengths[0]) < 20 and int(lengths[0]) > most:
        await _discard(receive, DISCARDED * most)
        raise _too_large(most)
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            await _discard(receive, DISCARDED * most if message.get("more_body", False) else 0)
            raise _too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _discard(receive: Receive, most: int) -> None:
    """Read and drop: a client that still sends when the connection is closed never sees the answer."""
    while most > 0:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        most -= len(message.get("body", b""))


def _too_large(most: int) -> ApiError:
    return ApiError(413, "body_too_large", f"the body is larger than {most} bytes", headers={"connection": "close"})
