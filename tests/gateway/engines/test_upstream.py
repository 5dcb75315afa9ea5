import asyncio
import socket

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port

from fluidgate.gateway.engines import Connections, EngineRefused, EngineUnreachable
from fluidgate.gateway.engines.upstream import Upstream
from tests.gateway.asynchronous import asynchronous
from tests.gateway.scripted_engine import dies, says, scripted, streams

BODY = b'{ "prompt" :"caf\\u00e9", "max_tokens": 1.0}'
EVENT = b'data: {"choices":[{"text":"a"}]}\n\n'


async def read(url: str, *, stream: bool = False, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connections = Connections()
    try:
        async with Upstream(url, connections, {}).open("/v1/x", BODY, "id-1", headers or {}, stream=stream) as answer:
            return answer.status, await answer.read()
    finally:
        await connections.close()


@asynchronous
async def test_nobody_listens():
    with pytest.raises(EngineUnreachable) as caught:
        await read(f"http://127.0.0.1:{unused_port()}")
    assert not caught.value.taken


@asynchronous
async def test_nobody_accepts(monkeypatch):
    monkeypatch.setattr("fluidgate.gateway.engines.upstream.CONNECT_TIMEOUT", 0.2)
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        port = server.getsockname()[1]
        with pytest.raises(EngineUnreachable) as caught:
            await read(f"http://127.0.0.1:{port}")
    assert not caught.value.taken


@asynchronous
async def test_a_silent_host_is_probed():
    async with scripted(streams(EVENT, then=lambda _: asyncio.sleep(60))) as engine:
        connections = Connections()
        async with Upstream(engine.url, connections, {}).open("/v1/x", BODY, "", {}, stream=True) as answer:
            transport = answer._response.connection.transport
            assert transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await connections.close()


@asynchronous
async def test_a_body_goes_up_as_it_came_and_headers_that_concern_one_hop_do_not():
    async with scripted(says({"ok": 1}, headers={"Keep-Alive": "timeout=5", "X-Load": "3"})) as engine:
        sent = {
            "authorization": "Bearer secret",
            "connection": "keep-alive, x-hop",
            "x-hop": "1",
            "host": "gateway",
            "content-length": "7",
            "accept-encoding": "gzip",
            "traceparent": "00-1-2-03",
        }
        connections = Connections()
        upstream = Upstream(engine.url, connections, {"Authorization": "Bearer own", "X-Own": "1"})
        async with upstream.open("/v1/x", BODY, "id-1", sent) as answer:
            assert answer.headers["x-load"] == "3"
            assert not {"keep-alive", "date", "server"} & set(answer.headers)
        await connections.close()
    (request,) = engine.sent
    assert request.raw == BODY
    kept = {name: request.headers.get(name) for name in ("authorization", "x-own", "traceparent", "x-request-id")}
    assert list(kept.values()) == ["Bearer secret", "1", "00-1-2-03", "id-1"]
    assert request.headers["content-length"] == str(len(BODY))
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] in engine.url
    assert "x-hop" not in request.headers


@asynchronous
async def test_chunks_come_as_they_are_written():
    second = asyncio.Event()

    async def more(_: web.Request) -> None:
        await second.wait()

    async with scripted(streams(EVENT, then=more)) as engine:
        connections = Connections()
        async with Upstream(engine.url, connections, {}).open("/v1/x", BODY, "", {}, stream=True) as answer:
            chunks = answer.chunks()
            assert await anext(chunks) == EVENT
            second.set()
            assert [chunk async for chunk in chunks] == []
        await connections.close()


@asynchronous
async def test_leaving_early_aborts_at_once():
    aborted = asyncio.Event()

    async def until_aborted(_: web.Request) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            aborted.set()
            raise

    async with scripted(streams(EVENT, then=until_aborted)) as engine:
        connections = Connections()
        async with Upstream(engine.url, connections, {}).open("/v1/x", BODY, "", {}, stream=True) as answer:
            assert answer.status == 200
        await asyncio.wait_for(aborted.wait(), 5)
        await connections.close()


@asynchronous
async def test_an_engine_that_dies_without_a_byte_is_asked_once():
    async with scripted(dies, says({})) as engine:
        with pytest.raises(EngineUnreachable) as caught:
            await read(engine.url)
        assert caught.value.taken
        assert len(engine.sent) == 1


@asynchronous
async def test_a_kept_connection_that_was_closed_is_replaced_by_a_fresh_one():
    async with scripted(says({}), dies, says(b"second")) as engine:
        connections = Connections()
        upstream = Upstream(engine.url, connections, {})
        await upstream.post("/v1/x", {})
        async with upstream.open("/v1/x", BODY, "", {}) as answer:
            assert await answer.read() == b"second"
        assert len(engine.sent) == 3
        await connections.close()


@asynchronous
async def test_an_engine_that_dies_on_both_connections_is_unreachable():
    async with scripted(says({}), dies) as engine:
        connections = Connections()
        upstream = Upstream(engine.url, connections, {})
        await upstream.post("/v1/x", {})
        with pytest.raises(EngineUnreachable):
            await upstream.post("/v1/x", {})
        assert len(engine.sent) == 3
        await connections.close()


@asynchronous
async def test_an_engine_that_dies_in_the_middle():
    async def die(request: web.Request) -> None:
        assert request.transport is not None
        request.transport.abort()

    async with scripted(streams(EVENT, then=die)) as engine:
        connections = Connections()
        async with Upstream(engine.url, connections, {}).open("/v1/x", BODY, "", {}, stream=True) as answer:
            chunks = answer.chunks()
            assert await anext(chunks) == EVENT
            with pytest.raises(EngineUnreachable) as caught:
                await anext(chunks)
        assert caught.value.taken
        await connections.close()


@pytest.mark.parametrize(("status", "elsewhere"), [(400, False), (404, False), (429, True), (500, False), (503, True)])
@asynchronous
async def test_a_refusal_is_handed_on_whole(status, elsewhere):
    async with scripted(says({"error": "no"}, status, {"Retry-After": "7"})) as engine:
        with pytest.raises(EngineRefused) as caught:
            await read(engine.url)
    refused = caught.value
    assert (refused.status, refused.elsewhere, refused.body) == (status, elsewhere, b'{"error":"no"}')
    assert refused.headers["retry-after"] == "7"


@pytest.mark.parametrize(("code", "status"), [("503", 503), ('"invalid"', 500), ("200", 500)])
@asynchronous
async def test_a_stream_that_begins_with_an_error_is_a_refusal(code, status):
    error = b'data: {"error": {"message": "no", "code": ' + code.encode() + b"}}\n\n"
    async with scripted(streams(error + b"data: [DONE]\n\n")) as engine:
        with pytest.raises(EngineRefused) as caught:
            await read(engine.url, stream=True)
    assert caught.value.status == status
    assert caught.value.body.startswith(b'{"error"')


@asynchronous
async def test_a_stream_without_a_byte():
    async with scripted(streams()) as engine:
        with pytest.raises(EngineUnreachable):
            await read(engine.url, stream=True)
