"""Faults on demand, deaths and revivals, and clients that leave."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from fluidgate.emulator.faults import BadFault, Faults, parse_faults
from tests.emulator.served import Client, until
from tests.emulator.test_api import served


def asked(fault: str) -> dict[str, str]:
    return {"x-fluidgate-fault": fault}


def test_refuse() -> None:
    async def test(client: Client) -> None:
        assert (await client.complete(headers=asked("refuse"))).status == 503
        assert (await client.complete(headers=asked("refuse=429"))).status == 429
        assert (await client.complete()).status == 200

    served(test)


@pytest.mark.parametrize("tokens", [0, 1, 3])
def test_die_in_a_stream(tokens: int) -> None:
    async def test(client: Client) -> None:
        reply = await client.complete(max_tokens=100_000, stream=True, headers=asked(f"die={tokens}"))
        assert reply.cut
        assert not reply.done
        assert len(reply.chunks) == tokens
        await until(lambda: client.servers[0].state["running"] == 0)
        assert client.servers[0].engine.metrics.ends["abort"] == 1

    served(test, speed=2.0)


def test_die_before_a_whole_answer() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(aiohttp.ClientError):
            await client.complete(max_tokens=9, headers=asked("die"))

    served(test)


def test_stall() -> None:
    async def test(client: Client) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        reply = await client.complete(stream=True, headers=asked("stall=4"))
        assert loop.time() - began >= 0.2
        assert reply.done
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.complete(headers=asked("stall")), 0.5)

    served(test)


def test_slow() -> None:
    async def test(client: Client) -> None:
        await client.complete(max_tokens=3, headers=asked("slow=3"))
        await client.complete(max_tokens=3)
        slow, usual = client.servers[0].engine.served
        assert slow.last_token - slow.first_token == pytest.approx(2 * 0.06)
        assert usual.last_token - usual.first_token == pytest.approx(2 * 0.02)

    served(test)


def test_standing_faults() -> None:
    async def test(client: Client) -> None:
        await client.post("/admin/fault", {"kind": "refuse", "count": 2})
        assert [(await client.complete()).status for _ in range(3)] == [503, 503, 200]
        await client.post("/admin/fault", {"kind": "refuse", "value": 500})
        assert [(await client.complete()).status for _ in range(3)] == [500] * 3
        async with client.session.delete(client.servers[0].url + "/admin/fault") as answer:
            assert answer.status == 200
        assert (await client.complete()).status == 200
        await client.post("/admin/fault", {"kind": "slow", "value": 5})
        await client.complete(max_tokens=2)
        last = client.servers[0].engine.served[-1]
        assert last.last_token - last.first_token == pytest.approx(0.1)

    served(test)


def test_a_share_of_the_requests_fails() -> None:
    async def test(client: Client) -> None:
        await client.post("/admin/fault", {"kind": "fail", "value": 0.5})
        failed = [(await client.complete(prompt=[1], max_tokens=1)).status == 500 for _ in range(60)]
        assert 15 < sum(failed) < 45  # four standard deviations
        async with client.session.delete(client.servers[0].url + "/admin/fault"):
            pass
        assert (await client.complete(headers=asked("fail=0"))).status == 200
        assert (await client.complete(headers=asked("fail"))).status == 500

    served(test)


def test_slow_metrics() -> None:
    async def test(client: Client) -> None:
        loop = asyncio.get_running_loop()
        await client.post("/admin/fault", {"kind": "slow-metrics", "value": 4, "count": 1})
        began = loop.time()
        assert (await client.complete()).status == 200
        await client.text("/metrics")
        assert loop.time() - began >= 0.2
        await client.post("/admin/fault", {"kind": "slow-metrics", "value": 1e6})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.text("/metrics"), 0.3)
        assert client.servers[0].engine.faults.metrics_delay() == 1e6  # and the server closes all the same

    served(test)


def test_another_model_at_the_same_address() -> None:
    async def test(client: Client) -> None:
        assert (await client.complete(model="emulated")).body["model"] == "emulated"
        assert (await client.post("/admin/model", {"model": "other"})).status == 200
        assert (await client.complete(model="emulated")).status == 404
        client.servers[0].kill()
        await client.servers[0].revive()
        assert (await client.complete(model="other")).body["model"] == "other"
        assert '"id":"other"' in await client.text("/v1/models")
        assert 'model_name="other"' in await client.text("/metrics")
        assert (await client.post("/admin/model", {})).status == 400

    served(test)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kind": "explode"}, "unknown fault 'explode' (known: refuse, fail, stall, die, lose-kv, slow, slow-metrics)"),
        ({"kind": "dye"}, "did you mean 'die'?"),
        ({"kind": "slow", "value": 0}, "slow=0 is out of range"),
        ({"kind": "refuse", "value": 200}, "refuse=200 is out of range"),
        ({"kind": "fail", "value": 1.5}, "fail=1.5 is out of range"),
        ({"kind": "slow-metrics", "value": -1}, "slow-metrics=-1 is out of range"),
        ({"kind": "die", "count": 0}, "count must be at least 1"),
        ({}, "kind: Field required"),
    ],
)
def test_bad_standing_faults(body: dict[str, Any], said: str) -> None:
    async def test(client: Client) -> None:
        reply = await client.post("/admin/fault", body)
        assert reply.status == 400
        assert said in reply.body["error"]["message"]

    served(test)


def test_headers() -> None:
    assert parse_faults("die=5, slow=3,lose-kv") == Faults(die=5, slow=3.0, lose_kv=True)
    for bad in ("die=x", "dye", "", "slow=-1", "stall=nan", "die=nan", "refuse=12", "slow-metrics"):
        with pytest.raises(BadFault):
            parse_faults(bad)

    async def test(client: Client) -> None:
        reply = await client.complete(headers=asked("dye"))
        assert reply.status == 400
        assert "did you mean 'die'?" in reply.body["error"]["message"]

    served(test)


def test_a_dead_engine_refuses_connections_and_comes_back_empty() -> None:
    async def test(client: Client) -> None:
        server = client.servers[0]
        before = server.engine.id
        await client.complete()
        running = asyncio.ensure_future(client.complete(max_tokens=10_000, stream=True))
        await until(lambda: server.state["running"] == 1)
        server.kill()
        assert (await running).cut
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.complete()
        await server.revive()
        assert server.engine.id != before
        assert await client.metric("generation_tokens_total") == 0
        assert (await client.complete()).status == 200

    served(test)


def test_death_and_revival_over_the_api() -> None:
    async def test(client: Client) -> None:
        assert (await client.post("/admin/kill", {}, engine=0)).status == 200
        await until(lambda: not client.servers[0].alive)
        reply = await client.post("/admin/revive", {}, engine=1)
        assert reply.body["ports"] == [client.servers[0].port]
        assert (await client.complete(0)).status == 200
        before = client.servers[0].engine.id
        await client.post("/admin/kill", {"seconds": 1.0}, engine=0)
        await until(lambda: client.servers[0].engine.id != before and client.servers[0].alive)
        assert (await client.complete(0)).status == 200

    served(test, count=2)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(stream: bool) -> None:
    async def test(client: Client) -> None:
        state = client.servers[0]
        tasks = [
            asyncio.ensure_future(client.complete(prompt=[k], max_tokens=100_000, stream=stream)) for k in range(6)
        ]
        await until(lambda: (state.state["running"], state.state["waiting"]) == (4, 2))
        for task in tasks:
            task.cancel()
        await until(lambda: (state.state["running"], state.state["waiting"]) == (0, 0))
        assert state.engine.metrics.ends["abort"] == 6
        assert state.state["kv_cache_usage"] == 0.0
        assert [each.finish for each in state.engine.served] == ["abort"] * 6
        assert (await client.complete()).status == 200

    served(test)
