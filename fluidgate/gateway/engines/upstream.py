"""Calls over HTTP to one engine."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import aiohttp
import orjson

from fluidgate.gateway.engines.errors import EngineError, EngineRefused, EngineSilent, EngineUnreachable, NoConnection
from fluidgate.gateway.engines.sse import error_at_start
from fluidgate.no_answer import no_answer

CONNECT_TIMEOUT = 5.0
"""s."""

KEEP_ALIVE = 4.0
"""s for which an idle connection is kept: less than the 5 s after which engines close it."""

KEEP_ALIVE_PROBES = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A host that is gone without a word is noticed after 25 s, where the system has these."""

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "proxy-connection"}
)
NOT_PASSED_ON = HOP_BY_HOP | {"host", "content-length", "content-type", "accept-encoding", "expect"}
NOT_PASSED_BACK = HOP_BY_HOP | {"server", "date"}

OWN_LIMITS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)

LOST = (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError)


class Connections:
    """The connections of a gateway to its engines: kept ones, and for a second try fresh ones.

    Nothing is opened before the first call, so that who never calls has nothing to close.
    """

    def __init__(self, silence: float | None = None) -> None:
        """
        Args:
            silence: the longest that an engine may say nothing, s; None for ever.
        """
        self._timeout = _timeout(silence)

    @cached_property
    def kept(self) -> aiohttp.ClientSession:
        return self._session(aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, socket_factory=_socket))

    @cached_property
    def fresh(self) -> aiohttp.ClientSession:
        return self._session(aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_socket))

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        reuse = aiohttp.TraceConfig()
        reuse.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            headers={"Accept-Encoding": "identity"},
            trace_configs=[reuse],
        )

    async def close(self) -> None:
        for name in ("kept", "fresh"):
            if name in vars(self):
                await vars(self)[name].close()


def _timeout(silence: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=silence)


async def _note_reuse(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
    context.trace_request_ctx.reused = True


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEP_ALIVE_PROBES.items():
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


class Answer:
    """An open response of an engine.

    Attributes:
        status: HTTP status.
        headers: to hand to the client.
    """

    def __init__(self, upstream: Upstream, response: aiohttp.ClientResponse, first: bytes) -> None:
        self.status = response.status
        self.headers = _passed(response.headers, NOT_PASSED_BACK)
        self._upstream = upstream
        self._response = response
        self._first = first

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, in pieces as they come.

        Raises:
            EngineUnreachable: it broke off.
        """
        if self._first:
            yield self._first
        read, upstream = self._response.content.readany, self._upstream
        try:
            while chunk := await read():
                upstream.heard += 1
                yield chunk
        except LOST as error:
            raise _broken(upstream.url, error) from error

    async def read(self) -> bytes:
        """The whole body, or what is left of it."""
        return b"".join([chunk async for chunk in self.chunks()])

    def close(self) -> None:
        """Abort, unless all of it has been read."""
        self._response.close()


class Upstream:
    """One engine's HTTP server.

    Attributes:
        url: without `/v1`.
        heard: how often a request was answered here, or went on being answered; pages do not count.
    """

    def __init__(self, url: str, connections: Connections, headers: Mapping[str, str]) -> None:
        self.url = url
        self.heard = 0
        self._connections = connections
        self._headers = _passed(headers, NOT_PASSED_ON)

    async def get(self, path: str) -> bytes:
        """The body of a page.

        Raises:
            EngineError: it could not be had.
        """
        response = await self._send("GET", path, None, self._headers)
        try:
            return await response.read()
        except LOST as error:
            raise _broken(self.url, error) from error

    async def post(
        self, path: str, body: Mapping[str, Any], request_id: str = "", headers: Mapping[str, str] | None = None
    ) -> Any:
        """The JSON that comes for a JSON body.

        Raises:
            EngineError: none came.
        """
        async with self.open(path, orjson.dumps(body), request_id, headers or {}) as answer:
            content = await answer.read()
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise EngineRefused(self.url, 502, {}, content) from error

    @asynccontextmanager
    async def open(
        self,
        path: str,
        body: bytes,
        request_id: str,
        headers: Mapping[str, str],
        *,
        stream: bool = False,
        silence: float | None = None,
    ) -> AsyncIterator[Answer]:
        """The answer to a JSON body; a stream opens when its first bytes are there.

        Args:
            silence: the longest that the engine may say nothing, s; None for what its connections allow.

        Raises:
            EngineUnreachable: nothing came.
            EngineRefused: an error came.
        """
        sent = self._headers | _passed(headers, NOT_PASSED_ON) | {"content-type": "application/json"}
        if request_id:
            sent["x-request-id"] = request_id
        response = await self._send("POST", path, body, sent, silence)
        try:
            yield Answer(self, response, await self._first(response) if stream else b"")
        finally:
            response.close()

    async def _send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], silence: float | None = None
    ) -> aiohttp.ClientResponse:
        """Send, once more on a fresh connection if one that was kept had been closed."""
        context = SimpleNamespace(reused=False)
        try:
            response = await self._send_by(self._connections.kept, context, method, path, body, headers, silence)
        except LOST as error:
            if not context.reused or isinstance(error, aiohttp.SocketTimeoutError):
                raise _broken(self.url, error) from error
            response = await self._send_afresh(method, path, body, headers, silence)
        if response.status < 400:
            return response
        content = await Answer(self, response, b"").read()
        raise EngineRefused(self.url, response.status, _passed(response.headers, NOT_PASSED_BACK), content)

    async def _send_afresh(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], silence: float | None
    ) -> aiohttp.ClientResponse:
        try:
            return await self._send_by(self._connections.fresh, SimpleNamespace(), method, path, body, headers, silence)
        except LOST as error:
            raise _broken(self.url, error) from error

    async def _send_by(
        self,
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        silence: float | None,
    ) -> aiohttp.ClientResponse:
        timeout = session.timeout if silence is None else _timeout(silence)
        return await session.request(
            method,
            self.url + path,
            data=body,
            headers=headers,
            timeout=timeout,
            trace_request_ctx=context,
            allow_redirects=False,
        )

    async def _first(self, response: aiohttp.ClientResponse) -> bytes:
        """The first bytes of a stream."""
        try:
            first = await response.content.readany()
        except LOST as error:
            raise _broken(self.url, error) from error
        if not first:
            raise EngineUnreachable(self.url, "a stream without a byte", taken=True)
        if error_body := error_at_start(first):
            headers = {"content-type": "application/json"}
            raise EngineRefused(self.url, _status(error_body), headers, error_body)
        return first


def _passed(headers: Mapping[str, str], dropped: frozenset[str]) -> dict[str, str]:
    """The headers that go through a proxy, their names in lower case."""
    lower = {name.lower(): value for name, value in headers.items()}
    named = {name.strip().lower() for name in lower.get("connection", "").split(",")}
    return {name: value for name, value in lower.items() if name not in dropped and name not in named}


def _status(error_body: bytes) -> int:
    """The HTTP status that an error in a stream stands for."""
    try:
        status = int(orjson.loads(error_body)["error"]["code"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return 500
    return status if 400 <= status < 600 else 500


def _broken(url: str, error: BaseException) -> EngineError:
    if isinstance(error, aiohttp.ClientOSError) and error.errno in OWN_LIMITS:
        return NoConnection(f"no connection to {url}: {error.strerror or error}")
    if isinstance(error, aiohttp.SocketTimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
        return EngineSilent(url, "silent for too long", taken=True)
    connecting = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    return EngineUnreachable(url, no_answer(error).reason, taken=not connecting)
