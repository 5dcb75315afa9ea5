"""One client's bad request does not take a cluster down, nor does a failing engine harm clients."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.asynchronous import asynchronous
from tests.gateway.moody_engine import MoodyEngine, before_moody_engines
from tests.gateway.served import Live, Reply

CHAT = "/v1/chat/completions"
KINDS = pytest.mark.parametrize("kind", ["vllm", "vllm-coupled"])
STREAMS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


async def ask(live: Live, user: str = "", **body: Any) -> Reply:
    return await live.post(**({"prompt": "hi", "max_tokens": 3, "user": user} | body))


def up(live: Live) -> int:
    return live.gateway.backends.up_count


@STREAMS
@KINDS
@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408, 507])
@asynchronous
async def test_what_every_engine_refuses_harms_nobody_else(
    tmp_path: Path, kind: str, stream: bool, status: int
) -> None:
    async with before_moody_engines(tmp_path, 3, kind=kind) as (live, engines):
        for _ in range(8):
            bad, good = await asyncio.gather(ask(live, str(status), stream=stream), ask(live, stream=stream))
            assert (bad.status, bad.json["error"]["message"]) == (status, f"scripted {status}"), "as the engine says it"
            assert (good.status, up(live)) == (200, 3)
        tried = [len(engine.of(str(status))) for engine in engines]
        assert sum(tried) <= 8 * 3, "a leg, the whole of it, and one more engine"
        await live.until(live.idle)


@KINDS
@asynchronous
async def test_an_engine_that_fails_what_others_serve_goes_down(tmp_path: Path, kind: str) -> None:
    async with before_moody_engines(tmp_path, 3, kind=kind) as (live, engines):
        engines[0].mood = "500"
        replies = [await ask(live) for _ in range(20)]
        assert [reply.status for reply in replies] == [200] * 20
        assert live.gateway.backends[0].downs["failures"] >= 1
        why = live.gateway.snapshot()["engines"][0]["why"]
        assert why is None or "scripted 500" in why
        page = (await live.get("/metrics")).content.decode()
        assert "fluidgate_engine_downs_total{" in page
        assert 'reason="failures"' in page
        engines[0].mood = ""
        await live.until(lambda: up(live) == 3)


@KINDS
@asynchronous
async def test_what_kills_two_engines_is_not_tried_on_a_third(tmp_path: Path, kind: str) -> None:
    async with before_moody_engines(tmp_path, 4, kind=kind) as (live, engines):
        reply = await ask(live, "dies")
        assert (reply.status, reply.json["error"]["code"]) == (502, "engine_failed")
        assert [bool(engine.of("dies")) for engine in engines].count(True) == 2
        assert (await ask(live)).status == 200


@asynchronous
async def test_a_leg_that_is_refused_is_asked_again_whole(tmp_path: Path) -> None:
    """The engine alone would have served it, so no one has failed."""
    async with before_moody_engines(tmp_path, 2) as (live, _):
        for mood in ("leg-500", "kv-500"):
            for stream in (True, False):
                for _ in range(4):
                    assert (await ask(live, mood, stream=stream)).status == 200
        assert up(live) == 2
        assert all(engine.downs == {} for engine in live.gateway.backends)


@asynchronous
async def test_what_is_beyond_the_context_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 2) as (live, engines):
        for engine in engines:
            engine.asked.clear()
        reply = await ask(live, "long", max_tokens=5000)
        assert (reply.status, reply.json["error"]["message"]) == (400, "beyond the context")
        bodies = [body for engine in engines for body in engine.asked]
        assert [body["max_tokens"] for body in bodies] == [5000]


@asynchronous
async def test_an_engine_replaced_by_one_of_another_model_draws_no_requests(tmp_path: Path) -> None:
    """It answers every look, and 404 to every request: that is news about the engine."""
    async with before_moody_engines(tmp_path, 3) as (live, engines):
        engines[0].models = ["another"]
        replies = [await ask(live) for _ in range(30)]
        assert [reply.status for reply in replies] == [200] * 30
        assert len(engines[0].of("")) <= 3
        assert live.gateway.backends[0].downs == {"replaced": 1}
        await live.until(lambda: "serves another" in live.gateway.backends[0].why)
        engines[0].models = ["emulated"]
        await live.until(lambda: up(live) == 3)


@asynchronous
async def test_a_404_of_the_request_is_handed_on(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 2) as (live, _):
        reply = await ask(live, "404")
        assert (reply.status, reply.json["error"]["message"]) == (404, "scripted 404")
        assert up(live) == 2


@asynchronous
async def test_an_adapter_that_one_engine_loads_is_served_there(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 3) as (live, engines):
        assert (await ask(live, model="lora")).status == 404
        engines[1].models.append("lora")
        engines[1].parents["lora"] = "emulated"
        for watch in live.gateway.monitor.watches.values():
            watch.models_at = -1e9
        await live.until(lambda: "lora" in live.gateway.backends.models)
        replies = await asyncio.gather(*(ask(live, "lora", model="lora", stream=k % 2 == 0) for k in range(9)))
        assert [reply.status for reply in replies] == [200] * 9
        assert [len(engine.of("lora")) for engine in engines] == [0, 9, 0]
        await live.until(live.idle)
        engines[1].models.remove("lora")
        reply = await ask(live, model="lora")
        assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")
        assert up(live) == 3


@asynchronous
async def test_an_engine_that_does_not_know_the_gateways_key_is_passed_over(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 2, kind="vllm-coupled") as (live, engines):
        engines[0].key = "changed"
        assert [(await ask(live)).status for _ in range(8)] == [200] * 8
        engines[1].key = "changed"
        reply = await ask(live)
        assert (reply.status, reply.json["error"]["code"]) == (502, "engine_refused_gateway")


@asynchronous
async def test_a_slow_prompt_is_read_once(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 3, more="[limits]\ntoken_seconds = 0.3\n") as (live, engines):
        reply = await ask(live, "hangs", stream=True)
        assert (reply.status, reply.json["error"]["code"]) == (504, "engine_silent")
        assert sum(len(engine.of("hangs")) for engine in engines) == 1
        assert up(live) == 3


def fetches(engine: MoodyEngine) -> bool:
    """Whether it has been asked to fetch the KV of a slow request."""
    return any((body.get("kv_transfer_params") or {}).get("do_remote_prefill") for body in engine.of("slow"))


@asynchronous
async def test_a_decode_whose_prompt_was_read_in_another_life_is_not_believed(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 2) as (live, engines):
        backends = live.gateway.backends
        task = asyncio.create_task(ask(live, "slow"))
        await live.until(lambda: any(fetches(engine) for engine in engines))
        decode = next(k for k, engine in enumerate(engines) if fetches(engine))
        backends[1 - decode].life += 1
        assert (await task).status == 200
        assert live.records()[-1]["attempts"] == 2, "read again"


@asynchronous
async def test_the_log_knows_what_a_client_got_that_left(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 1, kind="vllm-coupled") as (live, _):
        async with live.session.post(
            f"{live.url}/v1/completions",
            json={"model": "emulated", "prompt": "hi", "stream": True, "max_tokens": 9, "user": "slow"},
        ) as answer:
            await answer.content.readany()
            answer.close()
        await live.until(lambda: bool(live.records()))
        record = live.records()[0]
        assert (record["outcome"], record["output_tokens"]) == ("client_gone", 1)
        assert record["last_token"] >= record["first_token"]
