"""The words of ASGI, in which the HTTP server speaks to the gateway, and the body of a request read by them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.content_encoding import decompressed, encoding_of

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

DISCARDED = 4
"""So many times the largest body is read, and dropped, before one that is too large is refused."""

BODY_SECONDS = 60.0
"""The time for a body, s; each byte of it adds 1 / LEAST_RATE."""

LEAST_RATE = 1000.0
"""The slowest that a body may come, bytes/s."""


class ClientGone(Exception):
    """The client has closed its connection."""


async def read_body(headers: Sequence[tuple[bytes, bytes]], receive: Receive, most: int) -> bytes:
    """The body of a request, decompressed if need be.

    Raises:
        ApiError: it is longer than `most` bytes, by its header or in truth; it stalls; or it is compressed as cannot be
            read here.
        ClientGone: the client left before its end.
    """
    lengths = [value for name, value in headers if name == b"content-length"]
    encoding = encoding_of(headers)
    if lengths and lengths[0].isdigit() and len(lengths[0]) < 20 and int(lengths[0]) > most:
        await _discard(receive, DISCARDED * most)
        raise _too_large(most)
    body = await _received(receive, most)
    if not encoding:
        return body
    content = await asyncio.to_thread(decompressed, body, encoding, most)
    if content is None:
        raise _too_large(most)
    return content


async def _received(receive: Receive, most: int) -> bytes:
    parts, size = [], 0
    loop = asyncio.get_running_loop()
    started = loop.time()
    while True:
        try:
            async with asyncio.timeout_at(started + BODY_SECONDS + size / LEAST_RATE):
                message = await receive()
        except TimeoutError:
            seconds = loop.time() - started
            raise ApiError(
                408,
                "request_timeout",
                f"only {size} bytes of the body came within {seconds:.0f} s",
                headers={"connection": "close"},
            ) from None
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
    with suppress(TimeoutError):
        async with asyncio.timeout(BODY_SECONDS):
            while most > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                most -= len(message.get("body", b""))


def _too_large(most: int) -> ApiError:
    return ApiError(413, "body_too_large", f"the body is larger than {most} bytes", headers={"connection": "close"})
