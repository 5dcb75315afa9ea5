"""Emulated engines as SGLang: whole requests, pairs whose sides meet, and the pages; and as any other server."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fluidgate.errors import FluidgateError
from tests.emulator.served import FAST, GPU, Client, Reply, cluster, until

PAIR = ("prefill", "decode")
PROMPT = list(range(100))


def pair(**settings: Any) -> Any:
    return cluster(2, roles=PAIR, kind="sglang", **settings)


def body(client: Client, room: int, **more: Any) -> dict[str, Any]:
    """A request as both sides get it."""
    reader = client.servers[0]
    meeting = {"bootstrap_host": reader.host, "bootstrap_port": reader.port, "bootstrap_room": room}
    return {"prompt": PROMPT, "max_tokens": 6, "ignore_eos": True, "rid": f"r{room}"} | meeting | more


async def both(client: Client, room: int, **more: Any) -> tuple[Reply, Reply]:
    asked = body(client, room, **more)
    return await asyncio.gather(*(client.post("/v1/completions", asked, engine) for engine in (0, 1)))


def waiting(client: Client) -> list[int]:
    return [server.state["waiting"] for server in client.servers]


@pytest.mark.parametrize("stream", [False, True])
def test_one_side_reads_and_the_other_writes(stream: bool) -> None:
    async def run() -> None:
        async with pair() as client, cluster() as alone:
            read, written = await both(client, 7, stream=stream)
            whole = await alone.complete(prompt=PROMPT, max_tokens=6, stream=stream)
            assert (read.status, written.status) == (200, 200)
            assert written.text == whole.text
            assert len(read.text.split()) == 1
            reader, writer = client.servers
            assert (reader.state["solo_decode_seconds"], reader.state["pinned"]) == (0, 0)
            assert writer.state["prefill_seconds"] == 0
            (r,), (w,) = reader.engine.served, writer.engine.served
            assert w.started >= r.prompt_read, "nothing is written before all has been read"

    asyncio.run(run())


@pytest.mark.parametrize("first", [0, 1])
def test_either_side_waits_for_the_other(first: int) -> None:
    async def run() -> None:
        async with pair() as client:
            early = asyncio.create_task(client.post("/v1/completions", body(client, 9), first))
            await until(lambda: waiting(client)[first] == 1)
            await asyncio.sleep(0.05)
            assert not early.done()
            late = await client.post("/v1/completions", body(client, 9), 1 - first)
            assert [(await early).status, late.status] == [200, 200]
            assert waiting(client) == [0, 0]

    asyncio.run(run())


@pytest.mark.parametrize("side", [0, 1])
def test_a_side_that_waits_in_vain_fails_in_the_end_or_when_it_is_told_to(side: int) -> None:
    async def run() -> None:
        async with pair(pair_timeout=0.3 * FAST) as client:
            reply = await client.post("/v1/completions", body(client, 1), side)
            assert reply.status == 500
            assert waiting(client) == [0, 0]
        async with pair() as client:
            task = asyncio.create_task(client.post("/v1/completions", body(client, 2), side))
            await until(lambda: waiting(client)[side] == 1)
            reply = await client.session.post(client.servers[side].url + "/abort_request", json={"rid": "r2"})
            assert reply.status == 200
            assert (await task).status == 500

    asyncio.run(run())


def test_a_side_whose_client_has_gone_waits_on_until_it_is_told_to_stop() -> None:
    """As SGLang's own does."""

    async def run() -> None:
        async with pair() as client:
            task = asyncio.create_task(client.post("/v1/completions", body(client, 3), 1))
            await until(lambda: waiting(client)[1] == 1)
            task.cancel()
            await asyncio.sleep(0.1)
            assert waiting(client)[1] == 1
            await client.session.post(client.servers[1].url + "/abort_request", json={"rid": "r3"})
            await until(lambda: waiting(client) == [0, 0])

    asyncio.run(run())


@pytest.mark.parametrize("side", [0, 1])
def test_one_side_dies_while_the_prompt_is_read(side: int) -> None:
    async def run() -> None:
        async with pair() as client:
            client.servers[0].fault("slow", 1e4)
            asked = body(client, 4, stream=False)
            tasks = [asyncio.create_task(client.post("/v1/completions", asked, engine)) for engine in (0, 1)]
            await until(lambda: client.servers[0].state["running"] == 1)
            client.servers[side].kill()
            assert (await tasks[1 - side]).status == 500, "the other says so"
            with pytest.raises(aiohttp.ClientError):
                await tasks[side]

    asyncio.run(run())


def test_kv_that_is_lost_fails_both_sides() -> None:
    async def run() -> None:
        async with pair() as client:
            client.servers[0].fault("lose-kv", requests=1)
            read, written = await both(client, 5)
            assert (read.status, written.status) == (500, 500)
            read, written = await both(client, 6)
            assert (read.status, written.status) == (200, 200)

    asyncio.run(run())


def test_a_side_asks_for_its_room() -> None:
    async def run() -> None:
        async with pair() as client:
            for side in (0, 1):
                reply = await client.complete(side)
                assert reply.status == 400
                assert "bootstrap room" in reply.body["error"]["message"]
                reply = await client.post("/v1/completions", body(client, 8, prompt=["a", "b"]), side)
                assert reply.status == 400

    asyncio.run(run())


def test_the_pages_of_sglang() -> None:
    async def run() -> None:
        async with pair(model="m") as client:
            for side, role in enumerate(PAIR):
                async with client.session.get(client.servers[side].url + "/server_info") as answer:
                    info = await answer.json()
                assert info["disaggregation_mode"] == role
                assert info["disaggregation_bootstrap_port"] == client.servers[side].port
                assert info["max_running_requests"] == GPU.batch_size
            task = asyncio.create_task(client.post("/v1/completions", body(client, 1), 1))
            await until(lambda: waiting(client)[1] == 1)
            async with client.session.get(client.servers[1].url + "/v1/loads?include=core") as answer:
                (load,) = (await answer.json())["loads"]
            assert (load["num_running_reqs"], load["num_waiting_reqs"]) == (0, 1)
            page = await client.text("/metrics", 1)
            families = {family.name: family for family in text_string_to_metric_families(page)}
            assert all(name.startswith("sglang:") for name in families)
            assert families["sglang:num_decode_transfer_queue_reqs"].samples[0].value == 1
            assert families["sglang:num_queue_reqs"].samples[0].value == 0
            assert families["sglang:num_running_reqs"].samples[0].labels["engine_type"] == "decode"
            await client.post("/v1/completions", body(client, 1), 0)
            await task
            page = await client.text("/metrics", 1)
            assert 'sglang:generation_tokens_total{engine_type="decode",model_name="m",tp_rank="0"} 6' in page

    asyncio.run(run())


def test_what_an_engine_of_another_kind_has_not() -> None:
    async def run() -> None:
        async with cluster(kind="openai") as client:
            reply = await client.complete(kv_transfer_params={"do_remote_decode": True}, max_tokens=3)
            assert (reply.status, reply.body["usage"]["completion_tokens"]) == (200, 3)
            assert reply.body["kv_transfer_params"] is None
            for path, status in (("/metrics", 404), ("/server_info", 404), ("/health", 200), ("/v1/models", 200)):
                async with client.session.get(client.servers[0].url + path) as answer:
                    assert answer.status == status

    asyncio.run(run())


def test_a_role_goes_with_sglang() -> None:
    async def run() -> None:
        with pytest.raises(FluidgateError, match=r"role.prefill.*: goes with kind"):
            async with cluster(2, roles=PAIR):
                pass

    asyncio.run(run())
