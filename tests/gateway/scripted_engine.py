"""An HTTP server that does what a test says, and keeps what it was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Sent:
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict:
        return orjson.loads(self.raw)


@dataclass
class ScriptedEngine:
    """Answers the n-th POST by the n-th handler, and every later one by the last; pages by `pages`."""

    handlers: list[Handler]
    pages: dict[str, str] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            page = self.pages.get(request.path)
            return web.Response(text=page) if page is not None else web.Response(status=404)
        raw = await request.read()
        self.sent.append(Sent(request.path_qs, {k.lower(): v for k, v in request.headers.items()}, raw))
        return await self.handlers[min(len(self.sent), len(self.handlers)) - 1](request)


@asynccontextmanager
async def scripted(*handlers: Handler, pages: dict[str, str] | None = None) -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine(list(handlers), pages or {})
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    server = TestServer(app)
    await server.start_server()
    engine.url = str(server.make_url("")).rstrip("/")
    try:
        yield engine
    finally:
        await server.close()


def says(body: bytes | dict, status: int = 200, headers: dict[str, str] | None = None) -> Handler:
    """A whole answer."""

    async def handler(_: web.Request) -> web.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return web.Response(body=content, status=status, headers=headers, content_type="application/json")

    return handler


def streams(*chunks: bytes, then: Callable[[web.Request], Awaitable[None]] | None = None) -> Handler:
    """Chunks, each in a packet of its own, and then perhaps something else."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if then is not None:
            await then(request)
        return response

    return handler


async def dies(request: web.Request) -> web.StreamResponse:
    """The connection ends without a byte, or in the middle of an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()
