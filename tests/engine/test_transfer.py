"""KV between engines: the prefill leg, the decode leg, leases, loss."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.engine.served import Client, cluster

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
