"""Emulated engines in the test's own event loop, and a client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from fluidgate.emulator import EngineServer, EngineSettings, serve_engines
from fluidgate.model import Gpu, IterationTime

GPU = Gpu(batch_size=4, chunk_size=64, iteration=IterationTime(alpha=0.02, beta=1e-4, gamma=50.0))
FAST = 20.0


@dataclass
class Reply:
    """A whole answer, or what came of a stream."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    chunks: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False
    cut: bool = False

    @property
    def text(self) -> str:
        if self.chunks:
            return "".join(choice["text"] for chunk in self.chunks for choice in chunk["choices"])
        return str(self.body["choices"][0]["text"])


class Client:
    """Talks to engines."""

    def __init__(self, session: aiohttp.ClientSession, servers: list[EngineServer]) -> None:
        self.session = session
        self.servers = servers

    async def complete(
        self, engine: int = 0, *, path: str = "/v1/completions", headers: dict[str, str] | None = None, **body: Any
    ) -> Reply:
        if path == "/v1/completions":
            body = {"prompt": [1] * 100, "max_tokens": 4, "ignore_eos": True} | body
        return await self.post(path, body, engine, headers)

    async def post(self, path: str, body: Any, engine: int = 0, headers: dict[str, str] | None = None) -> Reply:
        url = self.servers[engine].url + path
        async with self.session.post(url, data=json.dumps(body), headers=headers) as answer:
            reply = Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, {})
            if answer.content_type != "text/event-stream":
                reply.body = await answer.json()
                return reply
            try:
                async for line in answer.content:
                    if line.startswith(b"data: [DONE]"):
                        reply.done = True
                    elif line.startswith(b"data: "):
                        reply.chunks.append(json.loads(line[6:]))
            except aiohttp.ClientError:
                reply.cut = True
            return reply

    async def text(self, path: str, engine: int = 0) -> str:
        async with self.session.get(self.servers[engine].url + path) as answer:
            assert answer.status == 200
            return await answer.text()

    async def metric(self, name: str, engine: int = 0) -> float:
        """The sum of the samples that begin so."""
        page = await self.text("/metrics", engine)
        found = [float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(f"vllm:{name}")]
        assert found, f"no metric {name}"
        return sum(found)


@asynccontextmanager
async def cluster(
    count: int = 1, gpu: Gpu = GPU, *, speed: float = FAST, roles: tuple[Any, ...] = (), **settings: Any
) -> AsyncIterator[Client]:
    """Engines on free ports, and a client of theirs."""
    known = EngineSettings(gpu, speed=speed, **({"kv_lease": 1e4} | settings))
    async with (
        serve_engines(known, count, roles=roles) as servers,
        aiohttp.ClientSession() as session,
    ):
        yield Client(session, servers)


async def until(condition: Callable[[], bool]) -> None:
    """Return when it holds; fail after a minute."""
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")
