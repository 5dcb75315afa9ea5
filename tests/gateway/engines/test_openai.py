"""The adapter for any OpenAI-compatible server."""

from __future__ import annotations

import orjson
import pytest

from fluidgate.gateway.engines import Call, EngineRefused, EngineUnreachable, Load, NotThisEngine, OpenAiCompatible
from tests.gateway.asynchronous import asynchronous
from tests.gateway.conftest import LlamaServers
from tests.gateway.engines.test_sglang import started
from tests.gateway.scripted_engine import dies, says, scripted, streams

RAW = b'{"model": "m",  "prompt": "hello", "max_tokens": 4, "stream": true}'
CALL = Call("/v1/completions", orjson.loads(RAW), RAW, "id-1", {"authorization": "Bearer x"})
EVENT = b'data: {"choices":[{"text":"a"}]}\n\n'
MODELS = '{"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "me"}]}'
UNKNOWN = Load(None, None, None)


@asynchronous
async def test_one_call_a_request_as_it_came():
    async with scripted(streams(EVENT), pages={"/v1/models": MODELS}) as engine:
        one = OpenAiCompatible(engine.url)
        async with started(one):
            facts = await one.check()
            assert (facts.models, facts.max_model_len, facts.slots, facts.moves_kv) == (("m",), None, None, False)
            assert not one.abilities.two_legs
            assert not one.abilities.late
            async with one.write_answer(CALL, None) as answer:
                assert await answer.read() == EVENT
    (sent,) = engine.sent
    assert (sent.raw, sent.headers["authorization"]) == (RAW, "Bearer x")


@asynchronous
async def test_that_it_answers_is_all_that_is_known_of_its_load():
    async with scripted(says(b"{}"), pages={"/v1/models": MODELS}) as plain:
        one = OpenAiCompatible(plain.url)
        async with started(one):
            assert await one.load() == UNKNOWN, "it has no /health"
            assert not (await one.load()).counted
            plain.pages["/health"] = "ok"
            plain.pages.pop("/v1/models")
            with pytest.raises(EngineRefused):
                await one.load()
    async with scripted(says(b"{}"), pages={"/health": ""}) as healthy:
        two = OpenAiCompatible(healthy.url)
        async with started(two):
            assert await two.load() == UNKNOWN
    with pytest.raises(EngineUnreachable):
        async with started(two):
            await two.load()


@pytest.mark.parametrize("page", ["<html>", "{}", '{"data": []}', '{"data": [{"name": "m"}]}'])
@asynchronous
async def test_what_is_no_such_server_is_found_out(page):
    async with scripted(dies, pages={"/v1/models": page}) as engine:
        one = OpenAiCompatible(engine.url)
        async with started(one):
            with pytest.raises(NotThisEngine):
                await one.check()
            with pytest.raises(NotThisEngine):
                await one.look_up_models()


@asynchronous
async def test_before_a_server_of_llamacpp(llama_servers: LlamaServers):
    one = OpenAiCompatible(llama_servers.urls[0])
    async with started(one):
        facts = await one.check()
        assert facts.models == ("tiny",)
        assert await one.load() == UNKNOWN
        body = {"model": "tiny", "prompt": "once upon", "max_tokens": 5, "temperature": 0, "stream": True}
        call = Call("/v1/completions", body, orjson.dumps(body), "id-2")
        async with one.write_answer(call, None) as answer:
            content = await answer.read()
        assert content.endswith(b"data: [DONE]\n\n")
        assert b'"finish_reason"' in content
