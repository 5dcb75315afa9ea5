"""What is read of a gateway, and what is said where there is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from fluidgate.errors import FluidgateError
from fluidgate.gateway.rates import Reading
from fluidgate.reports.watch_reading import Away, GatewayReader
from tests.reports.gateway import metrics, state

Handler = Callable[[web.Request], Awaitable[web.Response]]


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "http://u@host", "http://host/?x", "http://host:99999"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(FluidgateError, match="is no URL of a gateway; give one such as"):
        GatewayReader(url)


def test_the_path_of_the_api_is_left_out() -> None:
    assert GatewayReader("http://host:1/v1/").url == "http://host:1"


def test_a_key_that_no_header_takes_is_refused() -> None:
    with pytest.raises(FluidgateError, match="characters that no header takes"):
        GatewayReader("http://host:1", "ключ")


def read(handler: Handler, key: str | None = None) -> Reading:
    """Read a server that answers every request so."""

    async def run() -> Reading:
        app = web.Application()
        app.router.add_get("/{path:.*}", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            async with GatewayReader(f"http://{host}:{port}", key) as reader:
                return await reader.read()
        finally:
            await runner.cleanup()

    return asyncio.run(run())


async def gateway(request: web.Request) -> web.Response:
    return web.Response(text=json.dumps(state()) if request.path == "/v1/plan" else metrics(chat={"completed": 5.0}))


def answering(status: int, text: str = "") -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    return answer


def test_a_reading_is_the_state_and_the_metrics() -> None:
    found = read(gateway)
    assert found.state == state()
    assert found.samples.by("class", "fluidgate_requests_total") == {"chat": 5.0}


def test_the_key_is_sent() -> None:
    async def guarded(request: web.Request) -> web.Response:
        known = request.headers.get("authorization") == "Bearer a-secret"
        return await gateway(request) if known else web.Response(status=401)

    assert read(guarded, "a-secret").state["scenario"] == "live"
    with pytest.raises(FluidgateError, match="asks for a key; name the variable that holds one: key_env=NAME"):
        read(guarded)


@pytest.mark.parametrize("handler", [answering(404), answering(200, "hello"), answering(200, "{}"), answering(302)])
def test_another_server_is_no_gateway(handler: Handler) -> None:
    with pytest.raises(FluidgateError, match="is no fluidgate gateway; give the URL that `fluidgate serve` prints"):
        read(handler)


def test_a_gateway_in_trouble_is_away() -> None:
    with pytest.raises(Away, match="it answers 503"):
        read(answering(503))


def test_nobody_there_is_away() -> None:
    async def run() -> None:
        async with GatewayReader("http://127.0.0.1:9") as reader:
            await reader.read()

    with pytest.raises(Away, match="connection refused"):
        asyncio.run(run())


def test_an_answer_that_takes_too_long_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluidgate.reports.watch_reading.ANSWER_SECONDS", 0.05)

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(0.5)
        return await gateway(request)

    with pytest.raises(Away, match=r"no answer in time"):
        read(slow)
