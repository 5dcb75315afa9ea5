"""The adapter for SGLang before emulated engines, and before servers that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port

from fluidgate.emulator import EngineServer, EngineSettings, serve_engines
from fluidgate.gateway.engines import (
    Adapter,
    Call,
    EngineRefused,
    EngineUnreachable,
    Handover,
    KvLost,
    Load,
    NotThisEngine,
    Sglang,
    VllmCoupled,
)
from tests.emulator.served import GPU
from tests.gateway.asynchronous import asynchronous, until
from tests.gateway.scripted_engine import Handler, ScriptedEngine, dies, says, scripted, streams

ANSWER = {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}
EVENT = b'data: {"choices":[{"text":"a"}]}\n\n'
STREAM_ERROR = b'data: {"error": {"object": "error", "message": "Decode transfer failed", "code": 500}}\n\n'
MODELS = '{"data": [{"id": "m", "max_model_len": 4096}]}'
LOADS = (
    '{"loads": [{"num_running_reqs": 2, "num_waiting_reqs": 1, "token_usage": 0.5}, '
    '{"num_running_reqs": 1, "num_waiting_reqs": 0, "token_usage": 0.75}]}'
)
METRICS = """# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="decode",model_name="m}}"} 3.0
sglang:num_queue_reqs{engine_type="decode"} 1.0
sglang:num_decode_prealloc_queue_reqs{engine_type="decode"} 2.0
sglang:num_decode_transfer_queue_reqs{engine_type="decode"} 4.0
sglang:num_retracted_reqs{engine_type="decode"} 9.0
sglang:token_usage{engine_type="decode"} 0.25
"""


def call(tokens: int = 5, *, stream: bool = True, **more: Any) -> Call:
    body = {"model": "m", "prompt": [1] * 100, "max_tokens": tokens, "ignore_eos": True, "stream": stream} | more
    return Call("/v1/completions", body, orjson.dumps(body), "id-1", {"traceparent": "t"})


def info(mode: str, **more: Any) -> str:
    known = {"disaggregation_mode": mode, "disaggregation_bootstrap_port": 8999, "version": "0.5.23"}
    return orjson.dumps(known | {"max_running_requests": 8, "enable_mixed_chunk": True} | more).decode()


def pages(mode: str, **more: Any) -> dict[str, str]:
    return {"/v1/models": MODELS, "/server_info": info(mode, **more), "/v1/loads": LOADS}


@asynccontextmanager
async def started(*adapters: Adapter) -> AsyncIterator[None]:
    for adapter in adapters:
        await adapter.start()
    try:
        yield
    finally:
        for adapter in adapters:
            await adapter.close()


@asynccontextmanager
async def emulated(**settings: Any) -> AsyncIterator[tuple[Sglang, Sglang, EngineServer, EngineServer]]:
    """A pair, and the servers that are its sides."""
    known = EngineSettings(GPU, model="m", kind="sglang", speed=20.0, **settings)
    async with serve_engines(known, 2, roles=("prefill", "decode")) as (reads, writes):
        reader, writer = Sglang(reads.url, pairs=True), Sglang(writes.url, pairs=True)
        async with started(reader, writer):
            yield reader, writer, reads, writes


def may_be_stopped(handler: Handler) -> Handler:
    async def does(request: web.Request) -> web.StreamResponse:
        return web.Response() if request.path == "/abort_request" else await handler(request)

    return does


@asynccontextmanager
async def scripted_pair(
    reads: Any, writes: Any
) -> AsyncIterator[tuple[Sglang, Sglang, ScriptedEngine, ScriptedEngine]]:
    """Two that do what they are told, and may be told to stop."""
    async with (
        scripted(may_be_stopped(reads), pages=pages("prefill")) as one,
        scripted(may_be_stopped(writes), pages=pages("decode")) as other,
    ):
        reader, writer = Sglang(one.url, pairs=True), Sglang(other.url, pairs=True)
        async with started(reader, writer):
            yield reader, writer, one, other


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError("nobody waits for so long")


def idle(*servers: EngineServer) -> bool:
    return all(server.state["running"] == server.state["waiting"] == 0 for server in servers)


@pytest.mark.parametrize("stream", [True, False])
@asynchronous
async def test_a_pair_answers_what_one_engine_would(stream):
    async with emulated() as (reader, writer, reads, writes):
        facts, other = await reader.check(), await writer.check()
        assert (facts.role, facts.slots, facts.moves_kv) == ("prefill", None, True)
        assert (other.role, other.slots, other.models) == ("decode", GPU.batch_size, ("m",))
        assert reader.abilities.pairs
        assert not reader.abilities.two_legs
        assert await reader.check_pair(writer) is None
        assert await writer.check_pair(reader) is None
        handover = await reader.read_prompt(call(stream=stream), writer)
        assert (handover.url, handover.prompt_tokens) == (reads.url, 100)
        async with writer.write_answer(call(stream=stream), handover) as answer:
            content = await answer.read()
        assert (content.count(b"data: {") == 5) is stream
        assert idle(reads, writes)
        assert writes.state["prefill_seconds"] == 0
        with pytest.raises(KvLost, match="before"):
            async with writer.write_answer(call(stream=stream), handover):
                pass


@asynchronous
async def test_what_each_side_is_sent():
    async with scripted_pair(says(ANSWER), streams(EVENT)) as (reader, writer, one, other):
        asked = call(stream_options={"include_usage": True}, n=2)
        handover = await reader.read_prompt(asked, writer)
        async with writer.write_answer(asked, handover) as answer:
            assert await answer.read() == EVENT
        (reads,), (writes,) = one.sent, other.sent
        room = writes.body["bootstrap_room"]
        assert 0 <= room < 2**63
        meeting = {"bootstrap_host": "127.0.0.1", "bootstrap_port": 8999, "bootstrap_room": room}
        assert writes.body == dict(asked.body) | meeting | {"rid": f"id-1-{room:x}"}
        kept = {name: value for name, value in writes.body.items() if name != "stream_options"}
        assert reads.body == kept | {"stream": False}
        assert reads.headers["x-request-id"] == writes.headers["x-request-id"] == "id-1"
        assert handover.prompt_tokens == 7
        await reader.release(handover)
        assert len(one.sent) == 1, "what has ended is not told to stop"


@pytest.mark.parametrize(
    ("reads", "writes", "error", "guilty"),
    [
        (says({"message": "too long"}, 400), hangs, EngineRefused, "reader"),
        (hangs, says({"message": "too long"}, 400), EngineRefused, "writer"),
        (says({"message": "full"}, 503), hangs, EngineRefused, "reader"),
        (hangs, says({"message": "full"}, 503), EngineRefused, "writer"),
        (dies, hangs, EngineUnreachable, "reader"),
        (hangs, dies, EngineUnreachable, "writer"),
        (says({"message": "KVTransferError"}, 500), hangs, KvLost, None),
        (hangs, streams(STREAM_ERROR), KvLost, None),
    ],
)
@asynchronous
async def test_where_one_side_fails_the_other_is_told_to_stop(reads, writes, error, guilty, monkeypatch):
    monkeypatch.setattr("fluidgate.gateway.engines.sglang_pair.ASKED_AGAIN", (0.05,))
    async with scripted_pair(reads, writes) as (reader, writer, one, other):
        with pytest.raises(error) as raised:
            await reader.read_prompt(call(), writer)
        if guilty is not None:
            assert raised.value.url == (reader if guilty == "reader" else writer).url
        waits = other if reads is not hangs else one

        async def told() -> bool:
            return any(sent.path == "/abort_request" for sent in waits.sent)

        await until(told)
        assert len({sent.body["rid"] for sent in waits.sent}) == 1, "and it is this request that it is told to stop"


@asynchronous
async def test_one_that_is_not_there_leaves_nobody_waiting():
    async with emulated() as (reader, writer, reads, writes):
        nobody = Sglang(f"http://127.0.0.1:{unused_port()}", pairs=True)
        async with started(nobody):
            with pytest.raises(EngineUnreachable) as raised:
                await reader.read_prompt(call(), nobody)
            assert (raised.value.url, raised.value.taken) == (nobody.url, False)
            with pytest.raises(EngineUnreachable):
                await nobody.read_prompt(call(), writer)

        async def all_idle() -> bool:
            return idle(reads, writes)

        await until(all_idle)


@pytest.mark.parametrize("side", [0, 1])
@asynchronous
async def test_one_side_dies_while_the_prompt_is_read(side):
    async with emulated() as (reader, writer, *servers):
        servers[0].fault("slow", 1e4)
        reading = asyncio.create_task(reader.read_prompt(call(), writer))

        async def reads() -> bool:
            return servers[0].state["running"] == 1

        await until(reads)
        servers[side].kill()
        with pytest.raises((EngineUnreachable, KvLost)) as raised:
            await reading
        if isinstance(raised.value, EngineUnreachable):
            assert raised.value.url == servers[side].url


@asynchronous
async def test_the_writer_dies_after_the_prompt_was_read():
    async with emulated() as (reader, writer, reads, writes):
        writes.fault("slow", 1e4)
        handover = await reader.read_prompt(call(), writer)
        writes.kill()
        with pytest.raises(EngineUnreachable) as raised:
            async with writer.write_answer(call(), handover):
                pass
        assert raised.value.url == writes.url
        assert idle(reads)


@asynchronous
async def test_the_reader_may_die_after_the_prompt_was_read():
    async with emulated() as (reader, writer, reads, _):
        handover = await reader.read_prompt(call(), writer)
        reads.kill()
        async with writer.write_answer(call(), handover) as answer:
            assert (await answer.read()).endswith(b"data: [DONE]\n\n")


@asynchronous
async def test_kv_that_is_lost_between_them():
    async with emulated() as (reader, writer, reads, writes):
        reads.fault("lose-kv", requests=1)
        with pytest.raises(KvLost):
            await reader.read_prompt(call(), writer)
        async with writer.write_answer(call(), await reader.read_prompt(call(), writer)) as answer:
            await answer.read()
        assert idle(reads, writes)


@pytest.mark.parametrize("when", ["reading", "read", "writing"])
@asynchronous
async def test_a_request_that_is_broken_off_leaves_nothing_behind(when):
    async with emulated() as (reader, writer, reads, writes):
        if when == "reading":
            reads.fault("slow", 1e4, 1)
            task = asyncio.create_task(reader.read_prompt(call(1000), writer))

            async def under_way() -> bool:
                return reads.state["running"] == 1

            await until(under_way)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            reads.clear_faults()
        elif when == "read":
            await reader.release(await reader.read_prompt(call(1000), writer))
        else:
            async with writer.write_answer(call(1000), await reader.read_prompt(call(1000), writer)) as answer:
                await anext(answer.chunks())

        async def all_idle() -> bool:
            return idle(writes)

        await until(all_idle)


@asynchronous
async def test_an_answer_waits_on_the_engine_that_was_called():
    async with scripted_pair(says(ANSWER), streams(EVENT)) as (reader, writer, _, _):
        handover = await reader.read_prompt(call(), writer)
        with pytest.raises(KvLost, match="waits on"):
            async with reader.write_answer(call(), handover):
                pass
        with pytest.raises(KvLost, match="none was named"):
            await reader.read_prompt(call())
        await reader.release(handover)


@asynchronous
async def test_an_engine_that_takes_whole_requests_does_as_any():
    async with (
        scripted(says(ANSWER), streams(EVENT), pages=pages("null")) as engine,
        scripted(says(ANSWER), pages=pages("null", disable_radix_cache=True, enable_mixed_chunk=False)) as poor,
    ):
        one, two = Sglang(engine.url), Sglang(poor.url)
        async with started(one, two):
            facts, others = await one.check(), await two.check()
            assert (facts.role, facts.slots, facts.version, facts.remarks) == ("both", 8, "0.5.23", ())
            assert one.abilities.two_legs
            assert not two.abilities.two_legs
            assert [word in " ".join(others.remarks) for word in ("prefix", "mixed-chunk")] == [True, True]
            assert await one.load() == Load(running=3, waiting=1, kv_usage=0.75)
            handover = await one.read_prompt(call())
            async with one.write_answer(call(), handover) as answer:
                assert await answer.read() == EVENT
            assert engine.sent[0].body["max_tokens"] == 1
            assert engine.sent[1].raw == call().raw
            with pytest.raises(KvLost):
                async with two.write_answer(call(), handover):
                    pass
            assert await one.check_pair(two) is not None
            assert await one.check_pair(VllmCoupled(poor.url)) is not None


@asynchronous
async def test_where_the_load_is_told():
    older = pages("decode") | {"/metrics": METRICS, "/get_server_info": info("decode")}
    del older["/v1/loads"], older["/server_info"]
    mute = {"/v1/models": MODELS, "/server_info": info("null")}
    async with scripted(pages=older) as engine, scripted(pages=mute) as silent:
        one, two = Sglang(engine.url, pairs=True), Sglang(silent.url)
        async with started(one, two):
            assert (await one.check()).role == "decode"
            assert await one.load() == Load(running=3, waiting=7, kv_usage=0.25)
            remarks = (await two.check()).remarks
            assert "--enable-metrics" in " ".join(remarks)
            assert await two.load() == Load(None, None, None)


@pytest.mark.parametrize(
    ("mode", "pairs", "mend"),
    [
        ("null", True, "--disaggregation-mode"),
        ("prefill", False, "engines.binding = 'early'"),
        ("decode", False, "engines.binding = 'early'"),
        ("sideways", False, "not as SGLang does"),
    ],
)
@asynchronous
async def test_an_engine_that_is_not_what_the_file_says(mode, pairs, mend):
    async with scripted(pages=pages(mode)) as engine:
        one = Sglang(engine.url, pairs=pairs)
        async with started(one):
            with pytest.raises(NotThisEngine, match=mend):
                await one.check()


@pytest.mark.parametrize("page", ["<html>", "{}", "[]", '{"loads": []}', '{"loads": [{}]}'])
@asynchronous
async def test_what_is_no_sglang_is_found_out(page):
    known = {"/v1/models": MODELS, "/server_info": page, "/v1/loads": page}
    async with scripted(pages=known) as engine, scripted(pages={"/v1/models": MODELS}) as other:
        one, two = Sglang(engine.url), Sglang(other.url)
        async with started(one, two):
            for failing in (one.check(), one.load(), two.check()):
                with pytest.raises(NotThisEngine):
                    await failing


def test_a_handover_of_another_kind_is_let_go():
    async def run() -> None:
        one = Sglang("http://127.0.0.1:1")
        async with started(one):
            await one.release(Handover(one.url, 0.0))

    asyncio.run(run())
