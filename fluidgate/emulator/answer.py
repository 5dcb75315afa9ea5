"""The answer to one request: it goes through the engine and out, as a stream or whole."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fluidgate.emulator.engine import Engine
from fluidgate.emulator.faults import Faults
from fluidgate.emulator.request import EngineRequest
from fluidgate.emulator.transfer import Remote, fetch
from fluidgate.emulator.wire import StreamText, whole_answer

Session = Callable[[], aiohttp.ClientSession]


@dataclass(frozen=True)
class Wish:
    """How a request is to be answered.

    Attributes:
        chat: in the form of `/v1/chat/completions`.
        stream: chunk by chunk.
        usage_at_end, usage_always: `stream_options`.
        load: value of the request header `endpoint-load-metrics-format`.
        remote: where the KV of the prompt is; None if it is to be read here.
        faults: what goes wrong.
    """

    chat: bool
    stream: bool
    usage_at_end: bool
    usage_always: bool
    load: str | None
    remote: Remote | None
    faults: Faults


class Answer(Response):
    """The ASGI answer to a request; the request is aborted when its client goes.

    Args:
        place: host and port that other engines fetch KV from.
        session: for KV that is elsewhere.
    """

    def __init__(
        self, engine: Engine, request: EngineRequest, wish: Wish, place: tuple[str, int], session: Session
    ) -> None:
        self.status_code = 200
        self.background = None
        self._engine = engine
        self._request = request
        self._wish = wish
        self._place = place
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.ensure_future(self._watch(receive))
        try:
            await self._enter()
            await self._stall()
            await (self._stream if self._wish.stream else self._whole)(scope, send)
        finally:
            watcher.cancel()
            self._engine.abort(self._request)
            self._engine.record(self._request)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._request.gone.set()
        self._engine.abort(self._request)

    async def _enter(self) -> None:
        """Into the engine; first the KV comes, if it is elsewhere."""
        request, remote, faults = self._request, self._wish.remote, self._wish.faults
        request.lost = faults.lose_kv
        request.slow = faults.slow
        if remote is None:
            self._engine.submit(request)
            return
        tokens = await fetch(self._session(), remote)
        request.fetched = True
        request.lost = faults.lose_kv or tokens != request.prompt
        if not request.gone.is_set():
            self._engine.submit_fetched(request, tokens)

    async def _stall(self) -> None:
        seconds = self._wish.faults.stall / self._engine.settings.speed
        if seconds > 0.0:
            timeout = None if math.isinf(seconds) else seconds
            await asyncio.wait([asyncio.ensure_future(self._request.gone.wait())], timeout=timeout)

    async def _stream(self, scope: Scope, send: Send) -> None:
        request, wish = self._request, self._wish
        text = StreamText(
            request,
            self._engine.settings.model,
            chat=wish.chat,
            usage_at_end=wish.usage_at_end,
            usage_always=wish.usage_always,
        )
        await send(self._start("text/event-stream; charset=utf-8"))
        most = self._most_tokens
        sent, body = 0, b""
        while request.finish is None or sent < request.written:
            await request.more(sent)
            if request.aborted:
                return
            if request.written >= most:
                await self._die(scope, send, text.tokens(sent, int(most)))
                return
            body = text.tokens(sent, request.written)
            if sent == 0:
                body = text.opening() + body
            sent = request.written
            if request.finish is not None:
                break
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if not request.aborted:
            await send({"type": "http.response.body", "body": body + text.closing()})

    async def _whole(self, scope: Scope, send: Send) -> None:
        request = self._request
        request.every_token = self._most_tokens < math.inf
        most = self._most_tokens
        while request.finish is None and request.written < most:
            await request.more(request.written)
        if request.aborted:
            return
        if request.written >= most:
            await self._die(scope, send, b"")
            return
        transfer = self._engine.transfer_params(request, *self._place) if request.remote_decode else None
        body = whole_answer(request, self._engine.settings.model, chat=self._wish.chat, transfer=transfer)
        await send(self._start("application/json", len(body)))
        await send({"type": "http.response.body", "body": body})

    @property
    def _most_tokens(self) -> float:
        die = self._wish.faults.die
        return math.inf if die is None else die

    async def _die(self, scope: Scope, send: Send, last: bytes) -> None:
        """Send these last chunks and cut the connection."""
        if last:
            await send({"type": "http.response.body", "body": last, "more_body": True})
        scope["transport"].abort()
        await self._request.gone.wait()

    def _start(self, content_type: str, length: int | None = None) -> dict[str, object]:
        headers = [(b"content-type", content_type.encode())]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        load = load_header(self._engine, self._wish.load)
        if load is not None:
            headers.append((b"endpoint-load-metrics", load.encode()))
        return {"type": "http.response.start", "status": 200, "headers": headers}


def load_header(engine: Engine, form: str | None) -> str | None:
    """The engine's load in the form that a request asks for, JSON or TEXT; None for another form or none."""
    if form is None or form.lower() not in ("json", "text"):
        return None
    gauges = engine.gauges()
    named = {name: gauges[name] for name in ("kv_cache_usage_perc", "num_requests_waiting")}
    if form.lower() == "json":
        return "JSON " + json.dumps({"named_metrics": named})
    return "TEXT " + ", ".join(f"named_metrics.{name}={value}" for name, value in named.items())
