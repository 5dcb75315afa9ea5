"""An engine in the words of vLLM whose mood is what a request's `user` says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from fluidgate.gateway.client.running import running_gateway
from tests.gateway.served import Live, scenario, settings_of


@dataclass
class MoodyEngine:
    """Serves whatever it is asked, but for what `user` names.

    Attributes:
        models: what it serves; `parents`, the model that each adapter is made for.
        moods: what it does whatever `user` says, such as "500".
        looks_take: s.
        connector: whether it hands KV over.
        asked: the bodies it was sent, those of probes among them.
    """

    models: list[str] = field(default_factory=lambda: ["emulated"])
    parents: dict[str, str] = field(default_factory=dict)
    mood: str = ""
    looks_take: float = 0.0
    connector: bool = True
    context: int = 1000
    key: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    traceparents: list[str] = field(default_factory=list)
    fetched: int = 0
    running: int = 0
    url: str = ""
    server: TestServer | None = None

    def of(self, user: str) -> list[dict[str, Any]]:
        """The bodies that came with a `user`."""
        return [body for body in self.asked if body.get("user") == user]

    async def models_page(self, request: web.Request) -> web.Response:
        self.let_in(request)
        known = [{"id": m, "max_model_len": self.context, "parent": self.parents.get(m)} for m in self.models]
        return web.json_response({"data": known})

    async def metrics(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.looks_take)
        return web.Response(
            text='vllm:cache_config_info{enable_prefix_caching="True"} 1\n'
            f"vllm:num_requests_running {self.running}\nvllm:num_requests_waiting 0\n"
            f'vllm:prompt_tokens_by_source_total{{source="external_kv_transfer"}} {self.fetched}\n'
        )

    def let_in(self, request: web.Request) -> None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            raise error(401, "no valid key")

    async def post(self, request: web.Request) -> web.StreamResponse:
        self.let_in(request)
        body = await request.json()
        self.asked.append(body)
        if "traceparent" in request.headers:
            self.traceparents.append(request.headers["traceparent"])
        if body.get("model", self.models[0]) not in self.models:
            raise error(404, f"The model `{body['model']}` does not exist.")
        self.running += 1
        try:
            return await self.answer(request, body)
        finally:
            self.running -= 1

    async def answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        mood = self.mood or body.get("user") or ""
        kv = body.get("kv_transfer_params") or {}
        only_reads = bool(kv.get("do_remote_decode"))
        if mood.isdigit():
            raise error(int(mood), f"scripted {mood}")
        if mood == "leg-500" and only_reads:
            raise error(500, "no single token for me")
        if mood == "kv-500" and kv.get("do_remote_prefill"):
            raise error(500, "KV load failed")
        if mood == "dies":
            assert request.transport is not None
            request.transport.abort()
        if mood == "hangs":
            await asyncio.sleep(3600.0)
        if body.get("max_tokens", 1) > self.context:
            raise error(400, "beyond the context")
        if kv.get("do_remote_prefill"):
            self.fetched += 64
        usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
        choice = {"index": 0, "text": "a", "finish_reason": "stop"}
        if body.get("stream"):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
            if mood == "slow":
                await asyncio.sleep(0.5)
            await response.write(b"data: [DONE]\n\n")
            return response
        if mood == "slow":
            await asyncio.sleep(0.5)
        handed = {"do_remote_prefill": True, "remote_block_ids": [1]} if only_reads and self.connector else None
        return web.json_response({"choices": [choice], "usage": usage, "kv_transfer_params": handed})

    async def start(self, port: int | None = None) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self.models_page)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/{path:.*}", self.post)
        self.server = TestServer(app, port=port)
        await self.server.start_server(shutdown_timeout=0.1)
        self.url = str(self.server.make_url("")).rstrip("/")

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.close()


def error(status: int, message: str) -> web.HTTPException:
    text = json.dumps({"error": {"message": message, "type": "Scripted", "param": None, "code": status}})
    made = web.HTTPException(text=text, content_type="application/json")
    made.set_status(status)
    return made


@asynccontextmanager
async def before_moody_engines(
    folder: Path, engines: int = 2, more: str = "", *, make: Callable[[], MoodyEngine] = MoodyEngine, **options: Any
) -> AsyncIterator[tuple[Live, list[MoodyEngine]]]:
    """A gateway before moody engines."""
    async with AsyncExitStack() as stack:
        there = [make() for _ in range(engines)]
        for engine in there:
            await engine.start()
            stack.push_async_callback(engine.stop)
        settings = settings_of(folder, [engine.url for engine in there], scenario(), more=more, **options)
        gateway, url = await stack.enter_async_context(running_gateway(settings))
        live = await stack.enter_async_context(Live.before(gateway, url, folder))
        yield live, there
