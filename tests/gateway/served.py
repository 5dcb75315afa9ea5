"""A gateway before emulated engines, all in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from fluidgate.emulator import EngineServer, EngineSettings, serve_engines
from fluidgate.gateway.client.running import running_gateway
from fluidgate.gateway.dispatch.dispatcher import EngineState
from fluidgate.gateway.dispatch.fleet import problems
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.gateway_file import GatewaySettings
from fluidgate.gateway.group import ModelGroup
from fluidgate.model import Gpu, IterationTime, Pricing, RequestClass, Scenario

MODEL = "emulated"
GPU = Gpu(batch_size=4, chunk_size=64, iteration=IterationTime(alpha=0.02, beta=1e-4, gamma=50.0))


def scenario(*, gpu: Gpu = GPU, scheme: str = "bundled", rate: float = 0.2) -> Scenario:
    """Two classes, one of long prompts, one of long answers."""
    return Scenario(
        name="live",
        gpu=gpu,
        pricing=Pricing(scheme=scheme, prompt=0.1, output=0.2),  # type: ignore[arg-type]
        classes=(
            RequestClass(name="chat", prompt_tokens=100, output_tokens=60, arrival_rate=rate, patience_rate=0.1),
            RequestClass(name="code", prompt_tokens=600, output_tokens=12, arrival_rate=rate, patience_rate=0.1),
        ),
    )


@dataclass
class Live:
    """A gateway under test, with one group of engines, which is called `gateway` here; `whole` is all of it."""

    url: str
    whole: Gateway
    engines: list[EngineServer]
    session: aiohttp.ClientSession
    log: Path

    @property
    def gateway(self) -> ModelGroup:
        return self.whole.groups[0]

    def records(self) -> list[dict[str, Any]]:
        """The log of requests so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    async def post(self, path: str = "/v1/completions", *, headers: dict[str, str] | None = None, **body: Any) -> Reply:
        return await self.send(path, json.dumps({"model": MODEL, **body}).encode(), headers)

    async def complete(self, tokens: int = 4, *, headers: dict[str, str] | None = None, **body: Any) -> Reply:
        """A completion of a prompt of 100 tokens."""
        asked = {"prompt": [7] * 100, "max_tokens": tokens, "ignore_eos": True, "stream": True} | body
        return await self.post(headers=headers, **asked)

    async def send(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Reply:
        async with self.session.post(self.url + path, data=body, headers=headers) as answer:
            content = b""
            try:
                async for chunk in answer.content.iter_any():
                    content += chunk
            except aiohttp.ClientError:
                return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, content, cut=True)
            return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, content)

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Reply:
        async with self.session.get(self.url + path, headers=headers) as answer:
            return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read())

    async def until(self, condition: Any, seconds: float = 20.0) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    def states(self) -> list[EngineState]:
        """The engines as the dispatcher sees them."""
        return [self.gateway.dispatcher.state(engine.place) for engine in self.gateway.backends]

    def idle(self) -> bool:
        """Nothing of ours is anywhere, and the books agree with it."""
        counts = self.gateway.dispatcher.counts()
        held = sum(int(getattr(counts, name).sum()) for name in counts.__dataclass_fields__)
        return held == 0 and all(state.prefills == state.decodes == 0 for state in self.states())

    def at_rest(self) -> bool:
        """Idle, the books in order, and the engines idle too."""
        dispatcher = self.gateway.dispatcher
        sound = not isinstance(dispatcher, Gated) or problems(dispatcher.fleet) == []
        assert sound, problems(dispatcher.fleet)
        return self.idle() and all(e.state["running"] == e.state["waiting"] == 0 for e in self.engines)

    @staticmethod
    @asynccontextmanager
    async def before(gateway: Gateway, url: str, folder: Path) -> AsyncIterator[Live]:
        """A gateway before engines that are none of ours."""
        async with aiohttp.ClientSession() as session:
            yield Live(url, gateway, [], session, folder / "requests.log")


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes
    cut: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a stream but for the last, `[DONE]`."""
        lines = [line[6:] for line in self.content.split(b"\n\n") if line.startswith(b"data: ")]
        return [json.loads(line) for line in lines if line != b"[DONE]"]

    @property
    def done(self) -> bool:
        return self.content.endswith(b"data: [DONE]\n\n")

    @property
    def tokens(self) -> int:
        return sum(bool(event.get("choices")) for event in self.events)


def settings_of(
    folder: Path,
    urls: list[str],
    of: Scenario,
    *,
    policy: str = "gate-and-route",
    more: str = "",
    kind: str = "vllm",
    drain_seconds: float = 5.0,
    client_seconds: float = 60.0,
    server: str = "",
) -> GatewaySettings:
    """A gateway file in `folder`; `server` are further lines of [server], `more` of tables but it and [engines]."""
    from fluidgate.scenario_file import write_scenario

    write_scenario(of, folder / "scenario.toml")
    path = folder / "gateway.toml"
    top, tables = [*more.split("\n\n", 1), ""][:2] if not more.startswith("[") else ("", more)
    path.write_text(
        f"""schema = 1
scenario = "scenario.toml"
policy = "{policy}"
{top}
[server]
port = 0
log = "{folder / "requests.log"}"
grace_seconds = 0.0
drain_seconds = {drain_seconds}
client_seconds = {client_seconds}
{server}
[engines]
kind = "{kind}"
urls = {json.dumps(urls)}
check_seconds = 0.1
{tables}
"""
    )
    return GatewaySettings.load(path)


@asynccontextmanager
async def live_gateway(
    folder: Path,
    *,
    engines: int = 2,
    speed: float = 20.0,
    of: Scenario | None = None,
    engine: dict[str, Any] | None = None,
    roles: tuple[Any, ...] = (),
    **options: Any,
) -> AsyncIterator[Live]:
    """Emulated engines and a gateway before them."""
    of = of or scenario()
    known = EngineSettings(of.gpu, model=MODEL, speed=speed, **(engine or {}))
    async with serve_engines(known, engines, roles=roles) as servers:
        settings = settings_of(folder, [server.url for server in servers], of, **options)
        async with running_gateway(settings) as (gateway, url), aiohttp.ClientSession() as session:
            yield Live(url, gateway, servers, session, folder / "requests.log")
