"""The way back to a client: one answer, begun once, ended once."""

from __future__ import annotations

from collections.abc import Mapping

from fluidgate.gateway.client.api_error import REASON_HEADER, ApiError
from fluidgate.gateway.client.asgi import Send

Headers = Mapping[str, str]


class Response:
    """Sends an answer.

    Attributes:
        status: of HTTP, 0 before the answer has begun.
        ended: whether its last byte has been handed over.
    """

    def __init__(self, send: Send, request_id: str, headers: Headers | None = None) -> None:
        """
        Args:
            headers: the gateway's own, which go before an engine's.
        """
        self._send = send
        self._id = [(b"x-request-id", request_id.encode("latin-1"))] if request_id else []
        self._headers = headers or {}
        self.status = 0
        self.ended = False

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """An answer in one piece."""
        await self.begin(status, {**headers, "content-length": str(len(body))})
        await self.end(body)

    async def begin(self, status: int, headers: Headers) -> None:
        self.status = status
        encoded = [*_encoded({**headers, **self._headers}), *self._id]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def more(self, chunk: bytes) -> None:
        """A further piece; waits while the client's buffer is full."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, last: bytes = b"") -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": last, "more_body": False})

    async def fail(self, error: ApiError) -> None:
        """End with an error: as the answer, or as the last event of a stream that has begun."""
        if self.ended:
            return
        if self.status:
            await self.end(error.event())
        else:
            own = {"content-type": "application/json", REASON_HEADER: error.reason}
            await self.whole(error.status, own | error.headers, error.body())


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    dropped = ("x-request-id",)
    return [
        (name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items() if name not in dropped
    ]
