"""The whole gateway before emulated engines of SGLang, in pairs and alone, and before any other server."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import openai
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.running import running_gateway
from tests.gateway.asynchronous import asynchronous
from tests.gateway.conftest import LlamaServers
from tests.gateway.served import MODEL, Live, live_gateway, scenario, settings_of

PAIRS = 'sglang"\nbinding = "early'
ROLES = ("prefill", "decode")


def pairs(folder: Path, engines: int = 4, **options: Any) -> AbstractAsyncContextManager[Live]:
    """Engines that read and engines that write, by turns."""
    return live_gateway(folder, engines=engines, engine={"kind": "sglang"}, roles=ROLES, kind=PAIRS, **options)


def alone(folder: Path, kind: str, **options: Any) -> AbstractAsyncContextManager[Live]:
    return live_gateway(folder, engine={"kind": kind}, kind=kind, **options)


def roles(live: Live) -> list[str]:
    return [engine["role"] for engine in live.gateway.snapshot()["engines"]]


@asynchronous
async def test_the_openai_client_before_pairs(tmp_path: Path) -> None:
    async with pairs(tmp_path) as live:
        client = openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
        assert roles(live) == ["prefill", "decode"] * 2
        assert live.gateway.snapshot()["binding"] == "pairs"
        usual: dict[str, Any] = {"model": MODEL, "max_tokens": 6, "extra_body": {"ignore_eos": True}}
        whole = await client.completions.create(prompt="Once upon a time", **usual)
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 6
        stream = await client.chat.completions.create(
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
            **usual,
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 6
        twice = await client.completions.create(prompt="Once upon a time", n=2, **usual)
        assert len(twice.choices) == 2
        with pytest.raises(openai.BadRequestError, match="maximum context length"):
            await client.completions.create(prompt=[1] * 100, model=MODEL, max_tokens=200_000)
        await live.until(live.at_rest)
        done = [record for record in live.records() if record["outcome"] == "completed"]
        urls = [engine.url for engine in live.engines]
        assert len(done) == 3
        for record in done:
            assert record["prefill_engine"] in urls[::2]
            assert record["decode_engine"] in urls[1::2]
            assert record["prompt_read"] <= record["decode_start"] <= record["last_token"]
        writers = [engine for engine in live.engines[1::2] if engine.state["solo_decode_seconds"]]
        assert all(engine.state["prefill_seconds"] == 0 for engine in writers)


@asynchronous
async def test_many_at_once_are_answered_once_each(tmp_path: Path) -> None:
    async with pairs(tmp_path) as live:
        replies = await asyncio.gather(*(live.complete(1 + k % 9, stream=k % 3 > 0) for k in range(40)))
        assert [reply.status for reply in replies] == [200] * 40
        assert all(reply.tokens == 1 + k % 9 for k, reply in enumerate(replies) if k % 3)
        await live.until(live.at_rest)
        read = [served.id for engine in live.engines[::2] for served in engine.engine.served]
        written = [served.id for engine in live.engines[1::2] for served in engine.engine.served]
        attempts = {f"cmpl-{record['id']}": record["attempts"] for record in live.records()}
        for side in (written, read):
            assert all(times <= attempts.get(name, 1) for name, times in Counter(side).items())
            assert len(set(side)) == 40 + 2, "and a probe for each pair"


@pytest.mark.parametrize("side", [0, 1])
@asynchronous
async def test_one_side_dies_under_load(tmp_path: Path, side: int) -> None:
    async with pairs(tmp_path) as live:
        live.engines[side].fault("slow", 30.0)
        asking = [asyncio.create_task(live.complete(30)) for _ in range(16)]
        await live.until(lambda: live.engines[side].state["running"] > 0)
        live.engines[side].kill()
        replies = await asyncio.gather(*asking)
        for reply in replies:
            cut_off = reply.status == 200 and not reply.done and b'"engine_failed"' in reply.content
            assert cut_off or (reply.status, reply.tokens, reply.done) == (200, 30, True)
        if side == 0:
            assert all(reply.done for reply in replies), "who has begun to answer needs the reader no more"
        assert live.gateway.backends[1 - side].answers, "nor is the other blamed"
        assert not live.gateway.backends[side].answers
        await live.engines[side].revive()
        await live.until(lambda: live.gateway.backends.up_count == 4)
        assert (await live.complete(3)).status == 200
        await live.until(live.at_rest)


@asynchronous
async def test_kv_that_is_lost_on_the_way_is_read_again(tmp_path: Path) -> None:
    async with pairs(tmp_path) as live:
        for engine in live.engines[::2]:
            engine.fault("lose-kv", requests=1)
        replies = await asyncio.gather(*(live.complete(5) for _ in range(4)))
        assert all((reply.status, reply.tokens) == (200, 5) for reply in replies)
        await live.until(live.at_rest)
        assert sum(record["attempts"] > 1 for record in live.records()) >= 1


@asynchronous
async def test_the_side_that_never_hands_over_is_found_out(tmp_path: Path) -> None:
    async with pairs(tmp_path) as live:
        live.engines[0].fault("lose-kv")
        for _ in range(60):
            reply = await live.complete(2)
            assert reply.status in (200, 503)
            if live.gateway.backends[0].downs:
                break
        assert live.gateway.backends[0].downs.get("failures") == 1
        assert all(not live.gateway.backends[k].downs for k in (1, 2, 3)), "and only that"


@asynchronous
async def test_clients_that_go_away_leave_nothing_behind(tmp_path: Path) -> None:
    async with pairs(tmp_path, engines=2) as live:
        live.engines[0].fault("slow", 30.0)
        asking = [asyncio.create_task(live.complete(500)) for _ in range(6)]
        await live.until(lambda: live.engines[0].state["running"] > 0)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        live.engines[0].clear_faults()
        await live.until(live.at_rest)
        assert (await live.complete(3)).status == 200


@asynchronous
async def test_nobody_reads_what_nobody_can_write(tmp_path: Path) -> None:
    async with pairs(tmp_path, engines=2) as live:
        live.engines[1].kill()
        await live.until(lambda: not live.gateway.backends[1].answers)
        waiting = asyncio.create_task(live.complete(3))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert live.engines[0].state["running"] == live.engines[0].state["waiting"] == 0
        await live.engines[1].revive()
        assert (await waiting).tokens == 3
        await live.until(live.at_rest)


@pytest.mark.parametrize("kind", ["sglang", "openai"])
@pytest.mark.parametrize("policy", ["gate-and-route", "vllm-least-loaded"])
@asynchronous
async def test_engines_that_take_whole_requests(tmp_path: Path, kind: str, policy: str) -> None:
    async with alone(tmp_path, kind, policy=policy) as live:
        client = openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
        whole = await client.completions.create(
            model=MODEL, prompt="Once", max_tokens=4, extra_body={"ignore_eos": True}
        )
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 4
        replies = await asyncio.gather(*(live.complete(5, stream=k % 2 > 0) for k in range(12)))
        assert [reply.status for reply in replies] == [200] * 12
        assert live.gateway.snapshot()["binding"] == "stay"
        await live.until(live.at_rest)
        live.engines[0].kill()
        replies = await asyncio.gather(*(live.complete(5) for _ in range(6)))
        assert [reply.status for reply in replies] == [200] * 6
        await live.engines[0].revive()
        await live.until(lambda: live.gateway.backends.up_count == 2)


@asynchronous
async def test_a_server_of_llamacpp_as_any_other(llama_servers: LlamaServers, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, llama_servers.urls, scenario(rate=0.05), kind="openai")
    async with running_gateway(settings) as (_, url):
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        assert [model.id for model in (await client.models.list()).data] == ["tiny"]

        async def answer(k: int) -> str:
            whole = await client.completions.create(model="tiny", prompt=f"{k} and", max_tokens=6, temperature=0)
            return whole.choices[0].text

        texts = await asyncio.gather(*(answer(k % 2) for k in range(4)))
        assert texts[:2] == texts[2:]


@asynchronous
async def test_engines_that_are_not_what_the_file_says(tmp_path: Path) -> None:
    with pytest.raises(FluidgateError, match=r"side of pairs .* give engines.binding = 'early'"):
        async with live_gateway(tmp_path, engine={"kind": "sglang"}, roles=ROLES, kind="sglang"):
            pass
    with pytest.raises(FluidgateError, match="without --disaggregation-mode"):
        async with live_gateway(tmp_path, engine={"kind": "sglang"}, kind=PAIRS):
            pass


@pytest.mark.parametrize(
    ("kind", "policy", "message"),
    [
        (PAIRS, "vllm-least-loaded", "policy: 'vllm-least-loaded' places a request on one engine, pairs need two"),
        ('openai"\nbinding = "early', "gate-and-route", "engines.binding: decodes of openai are not bound early"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, kind: str, policy: str, message: str) -> None:
    with pytest.raises(FluidgateError, match=message):
        settings_of(tmp_path, ["http://127.0.0.1:1"], scenario(), kind=kind, policy=policy)
