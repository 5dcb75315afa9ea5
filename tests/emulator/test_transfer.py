"""KV between engines: the prefill leg, the decode leg, leases, loss."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.emulator.served import FAST, Client, cluster, until

PREFILL = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
PROMPT = list(range(100))


async def prefill(client: Client, **more: Any) -> dict[str, Any]:
    reply = await client.complete(0, prompt=PROMPT, max_tokens=1, kv_transfer_params=PREFILL, **more)
    assert reply.status == 200
    assert reply.body["usage"]["completion_tokens"] == 1
    params: dict[str, Any] = reply.body["kv_transfer_params"]
    return params


async def source(client: Client, engine: int, name: str) -> float:
    page = await client.text("/metrics", engine)
    line = next(line for line in page.splitlines() if f'source="{name}"' in line)
    return float(line.rpartition(" ")[2])


def test_the_decoder_fetches_what_the_prefiller_has_read() -> None:
    async def run() -> None:
        async with cluster(2) as client:
            params = await prefill(client)
            assert params["do_remote_prefill"] is True
            assert len(params["remote_block_ids"]) == 7
            assert client.servers[0].state["pinned"] == 1
            assert client.servers[0].state["kv_cache_usage"] > 0
            assert client.servers[0].state["running"] == 0
            reply = await client.complete(1, prompt=PROMPT, kv_transfer_params=params, stream=True)
            local = await client.complete(0, prompt=PROMPT)
            assert reply.text == local.text
            assert client.servers[0].state["pinned"] == 0
            assert await source(client, 1, "external_kv_transfer") == 100
            assert await source(client, 1, "local_compute") == 0
            assert client.servers[1].state["prefill_seconds"] == 0
            (decoded,) = client.servers[1].engine.served
            assert decoded.first_token - decoded.started == pytest.approx(0.02)  # one iteration without a chunk

    asyncio.run(run())


ERROR = {"error": {"message": "Internal server error", "type": "InternalServerError", "param": None, "code": 500}}


def test_kv_is_fetched_once_and_lost_afterwards() -> None:
    async def run() -> None:
        async with cluster(2) as client:
            params = await prefill(client)
            first = await client.complete(1, prompt=PROMPT, kv_transfer_params=params)
            second = await client.complete(1, prompt=PROMPT, kv_transfer_params=params)
            assert (first.status, second.status) == (200, 500)
            assert second.body == ERROR
            assert await client.metric("nixl_num_failed_transfers_total", 1) == 1
            assert client.servers[1].engine.metrics.ends == {"stop": 0, "length": 1, "abort": 0, "error": 1}
            assert [each.finish for each in client.servers[1].engine.served] == ["length", "error"]
            assert client.servers[1].state["kv_cache_usage"] == 0.0

    asyncio.run(run())


def test_a_stream_whose_lease_has_ended_fails_before_its_first_token() -> None:
    async def run() -> None:
        async with cluster(2, kv_lease=2.0) as client:
            params = await prefill(client)
            await asyncio.sleep(3.0 / FAST)
            assert client.servers[0].state["pinned"] == 0
            assert await client.metric("nixl_num_kv_expired_reqs_total", 0) == 1
            reply = await client.complete(1, prompt=PROMPT, kv_transfer_params=params, stream=True)
            assert reply.status == 200
            assert reply.chunks == [ERROR]
            assert reply.done

    asyncio.run(run())


LOST = ["prefill", "decode", "between", "death", "restart"]


async def decoded_without_kv(client: Client, leg: str) -> Any:
    """The answer of a decode whose KV was lost on that leg."""
    fault = {"x-fluidgate-fault": "lose-kv"}
    params = await prefill(client, headers=fault if leg == "prefill" else None)
    if leg == "between":
        client.servers[0].fault("lose-kv", requests=1)
    if leg in ("death", "restart"):
        client.servers[0].kill()
    if leg == "restart":
        await client.servers[0].revive()
    headers = fault if leg == "decode" else None
    return await client.complete(1, prompt=PROMPT, kv_transfer_params=params, headers=headers)


@pytest.mark.parametrize("leg", LOST)
def test_lost_kv_fails_the_decode(leg: str) -> None:
    async def run() -> None:
        async with cluster(2) as client:
            reply = await decoded_without_kv(client, leg)
            assert (reply.status, reply.body) == (500, ERROR)
            assert (await client.complete(1, prompt=PROMPT)).status == 200

    asyncio.run(run())


@pytest.mark.parametrize("leg", LOST)
def test_lost_kv_is_read_again_where_the_policy_says_so(leg: str) -> None:
    async def run() -> None:
        async with cluster(2, kv_load_failure_policy="recompute") as client:
            reply = await decoded_without_kv(client, leg)
            assert reply.text == (await client.complete(1, prompt=PROMPT)).text
            assert await source(client, 1, "external_kv_transfer") == 0
            assert await source(client, 1, "local_compute") == 104  # again, and the last block of the second request
            assert await client.metric("nixl_num_failed_transfers_total", 1) == 1

    asyncio.run(run())


@pytest.mark.parametrize("leg", LOST)
def test_lost_kv_leaves_garbage_where_the_policy_says_so(leg: str) -> None:
    async def run() -> None:
        async with cluster(2, kv_load_failure_policy="garbage") as client:
            reply = await decoded_without_kv(client, leg)
            assert reply.status == 200
            assert reply.text.split() == ["garbage"] * 4

    asyncio.run(run())


@pytest.mark.parametrize(
    "refused",
    [{"model": "nope"}, {"max_tokens": 10**6}, {"prompt": []}, {"headers": {"x-fluidgate-fault": "refuse"}}],
    ids=["model", "length", "empty", "fault"],
)
def test_a_refused_decode_lets_go_of_its_kv(refused: dict[str, Any]) -> None:
    async def run() -> None:
        async with cluster(2) as client:
            params = await prefill(client)
            assert client.servers[0].state["pinned"] == 1
            reply = await client.complete(1, **({"prompt": PROMPT, "kv_transfer_params": params} | refused))
            assert reply.status >= 400
            await until(lambda: client.servers[0].state["pinned"] == 0)

    asyncio.run(run())


def test_all_choices_of_a_decode_find_the_kv() -> None:
    async def run() -> None:
        async with cluster(2) as client:
            params = await prefill(client)
            reply = await client.complete(1, prompt=PROMPT, n=3, kv_transfer_params=params)
            assert reply.body["usage"]["completion_tokens"] == 12
            assert client.servers[1].state["prefill_seconds"] == 0
            assert client.servers[0].state["pinned"] == 0

    asyncio.run(run())


def test_the_transfer_takes_its_time() -> None:
    async def run() -> None:
        async with cluster(2, transfer_latency=0.5, transfer_bandwidth=1000.0) as client:
            params = await prefill(client)
            await client.complete(1, prompt=PROMPT, kv_transfer_params=params)
            (decoded,) = client.servers[1].engine.served
            assert decoded.started - decoded.arrival >= 0.6
            page = await client.text("/metrics", 1)
            assert f'vllm:nixl_xfer_time_seconds_sum{{engine="0",model_name="emulated"}} {0.6 / FAST}' in page

    asyncio.run(run())


def test_two_requests_of_one_id_keep_two_prompts() -> None:
    async def run() -> None:
        async with cluster(2) as client:
            headers = {"X-Request-Id": "twice"}
            both = await asyncio.gather(prefill(client, headers=headers), prefill(client, headers=headers))
            assert client.servers[0].state["pinned"] == 2
            for params in both:
                reply = await client.complete(1, prompt=PROMPT, kv_transfer_params=params)
                assert "garbage" not in reply.text
            assert client.servers[0].state["pinned"] == 0

    asyncio.run(run())


def test_params_that_say_too_little_are_computed_locally() -> None:
    async def run() -> None:
        async with cluster(1) as client:
            reply = await client.complete(prompt=PROMPT, kv_transfer_params={"do_remote_prefill": True})
            assert "garbage" not in reply.text
            assert await source(client, 0, "local_compute") == 100

    asyncio.run(run())


def test_staying_on_the_prefill_engine_reads_the_last_block_only() -> None:
    async def run() -> None:
        async with cluster(1) as client:
            await prefill(client)
            await client.complete(prompt=PROMPT)
            assert await source(client, 0, "local_cache_hit") == 96
            assert await source(client, 0, "local_compute") == 104
            assert await client.metric("prefix_cache_hits_total") == 96

    asyncio.run(run())


def test_a_prefill_leg_of_more_than_a_token_is_refused() -> None:
    async def run() -> None:
        async with cluster(1) as client:
            reply = await client.complete(prompt=PROMPT, max_tokens=2, kv_transfer_params=PREFILL)
            assert reply.status == 400
            assert "max_tokens = 1" in reply.body["error"]["message"]

    asyncio.run(run())


def test_a_client_that_leaves_before_the_kv_has_come_leaves_nothing() -> None:
    async def run() -> None:
        async with cluster(2, transfer_latency=1e6) as client:
            params = await prefill(client)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.complete(1, prompt=PROMPT, kv_transfer_params=params), 0.3)
            await until(lambda: client.servers[1].state["waiting"] == 0)

    asyncio.run(run())
