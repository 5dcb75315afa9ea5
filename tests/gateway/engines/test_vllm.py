"""The adapters for vLLM before servers that do what a test says; test_real_vllm.py has real ones."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp.test_utils import unused_port

from fluidgate.gateway.engines import (
    Adapter,
    Call,
    Connections,
    EngineRefused,
    EngineUnreachable,
    KvLost,
    LlamaCpp,
    Load,
    NotThisEngine,
    Vllm,
    VllmCoupled,
)
from tests.gateway.asynchronous import asynchronous, until
from tests.gateway.scripted_engine import ScriptedEngine, dies, says, scripted, streams

TRANSFER = {"do_remote_prefill": True, "do_remote_decode": False, "remote_block_ids": [[3, 4]], "remote_port": 5600}
ANSWER = {"choices": [{"text": "a"}], "kv_transfer_params": None}
READ = {"choices": [{"text": "a"}], "kv_transfer_params": TRANSFER}
RAW = b'{"model": "m",  "prompt": "hello", "max_tokens": 20, "stream": true, "stream_options": {"include_usage": true}}'
EVENT = b'data: {"choices":[{"text":"a"}]}\n\n'


def call(raw: bytes = RAW, path: str = "/v1/completions") -> Call:
    return Call(path, orjson.loads(raw), raw, "id-1", {"authorization": "Bearer x"})


@asynccontextmanager
async def started(*adapters: Adapter) -> AsyncIterator[None]:
    for adapter in adapters:
        await adapter.start()
    try:
        yield
    finally:
        for adapter in adapters:
            await adapter.close()


async def read(adapter: Adapter, request: Call, handover: object = None) -> bytes:
    async with adapter.write_answer(request, handover) as answer:
        return await answer.read()


def metrics(fetched: float = 0.0, *, caching: bool = True) -> str:
    return f"""# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{{engine="0",model_name="a}}b"}} 3.0
vllm:num_requests_running{{engine="1",model_name="a}}b"}} 4.0
vllm:num_requests_waiting{{engine="0",model_name="a}}b"}} 2.0
vllm:num_requests_waiting_by_reason{{engine="0",reason="capacity"}} 9.0
vllm:kv_cache_usage_perc{{engine="0"}} 0.25
vllm:kv_cache_usage_perc{{engine="1"}} 5.5e-01
vllm:prompt_tokens_by_source_total{{engine="0",source="local_compute"}} 99.0
vllm:prompt_tokens_by_source_total{{engine="0",source="external_kv_transfer"}} {fetched}
vllm:cache_config_info{{block_size="16",enable_prefix_caching="{caching}",engine="0"}} 1.0
"""


def pages(**more: str) -> dict[str, str]:
    models = '{"data": [{"id": "m", "max_model_len": 4096}, {"id": "m-lora", "max_model_len": null}]}'
    return {"/v1/models": models, "/metrics": metrics(), "/version": '{"version": "0.32.0"}'} | {
        "/" + name: page for name, page in more.items()
    }


@asynchronous
async def test_the_two_legs():
    async with scripted(says(READ)) as reads, scripted(streams(EVENT)) as writes:
        one, two = Vllm(reads.url), Vllm(writes.url)
        async with started(one, two):
            handover = await one.read_prompt(call())
            assert await read(two, call(), handover) == EVENT
    (first,), (second,) = reads.sent, writes.sent
    assert first.body == {
        "model": "m",
        "prompt": "hello",
        "max_tokens": 1,
        "ignore_eos": True,
        "stream": False,
        "kv_transfer_params": {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "remote_engine_id": None,
            "remote_block_ids": None,
            "remote_host": None,
            "remote_port": None,
        },
    }
    assert second.body == orjson.loads(RAW) | {"kv_transfer_params": TRANSFER}
    assert first.headers["x-request-id"] == second.headers["x-request-id"] == "id-1"
    assert first.headers["authorization"] == second.headers["authorization"] == "Bearer x"


@asynchronous
async def test_the_limits_of_a_chat_are_lowered_too():
    raw = b'{"model": "m", "messages": [], "max_completion_tokens": 20, "min_tokens": 5}'
    async with scripted(says(READ)) as engine:
        one = Vllm(engine.url)
        async with started(one):
            await one.read_prompt(call(raw, "/v1/chat/completions"))
    body = engine.sent[0].body
    assert (body["max_tokens"], body["max_completion_tokens"], "min_tokens" in body) == (1, 1, False)
    assert engine.sent[0].path == "/v1/chat/completions"


@pytest.mark.parametrize("kind", [Vllm, VllmCoupled])
@asynchronous
async def test_a_decode_that_stays_and_a_whole_request_go_up_untouched(kind):
    async with scripted(says(READ), says(ANSWER)) as engine:
        one = kind(engine.url)
        async with started(one):
            whole = Call("/v1/completions", {"prompt": "x"}, b'{ "prompt":"x"}', "id")
            handover = await one.read_prompt(whole)
            await read(one, whole, handover)
            await read(one, whole)
    assert [sent.raw for sent in engine.sent[1:]] == [whole.raw, whole.raw]


@asynchronous
async def test_kv_whose_lease_has_ended_is_not_fetched():
    async with scripted(says(READ)) as reads, scripted(says(ANSWER)) as writes:
        one, two = Vllm(reads.url, lease=0.0), Vllm(writes.url, lease=0.0)
        async with started(one, two):
            handover = await one.read_prompt(call())
            with pytest.raises(KvLost):
                await read(two, call(), handover)
    assert writes.sent == []


@asynchronous
async def test_a_stream_that_begins_after_the_lease_is_not_believed():
    async def slow(request):
        await asyncio.sleep(1.1)
        return await streams(EVENT)(request)

    async with scripted(says(READ)) as reads, scripted(slow, streams(EVENT)) as writes:
        one, two = Vllm(reads.url, lease=1.0), Vllm(writes.url, lease=1.0)
        async with started(one, two):
            with pytest.raises(KvLost, match="before the first token"):
                await read(two, call(), await one.read_prompt(call()))


@asynchronous
async def test_an_engine_that_hands_nothing_over():
    async with scripted(says(ANSWER)) as reads, scripted(says(ANSWER)) as writes:
        one, two = Vllm(reads.url), Vllm(writes.url)
        async with started(one, two):
            with pytest.raises(KvLost):
                await read(two, call(), await one.read_prompt(call()))
    assert writes.sent == []


@pytest.mark.parametrize(
    ("writes", "error"),
    [
        (says({"error": "full"}, 503), KvLost),
        (says({"error": "no prefiller"}, 500), KvLost),
        (streams(b'data: {"error": {"message": "Internal server error", "code": 500}}\n\n'), KvLost),
        (streams(), KvLost),
        (dies, KvLost),
        (says({"error": "max_tokens"}, 400), EngineRefused),
    ],
)
@asynchronous
async def test_a_decode_that_may_have_begun_has_lost_its_kv(writes, error):
    async with scripted(says(READ)) as reads, scripted(writes) as engine:
        one, two = Vllm(reads.url), Vllm(engine.url)
        async with started(one, two):
            handover = await one.read_prompt(call())
            with pytest.raises(error):
                await read(two, call(), handover)


@asynchronous
async def test_a_decode_that_reached_nobody_may_go_elsewhere():
    async with scripted(says(READ)) as reads, scripted(streams(EVENT)) as writes:
        one, dead, two = Vllm(reads.url), Vllm(f"http://127.0.0.1:{unused_port()}"), Vllm(writes.url)
        async with started(one, dead, two):
            handover = await one.read_prompt(call())
            with pytest.raises(EngineUnreachable):
                await read(dead, call(), handover)
            assert await read(two, call(), handover) == EVENT


@asynchronous
async def test_an_answer_that_breaks_off_has_not_lost_its_kv_but_its_engine():
    async def die(request) -> None:
        request.transport.abort()

    async with scripted(says(READ)) as reads, scripted(streams(EVENT, then=die)) as writes:
        one, two = Vllm(reads.url), Vllm(writes.url)
        async with started(one, two):
            with pytest.raises(EngineUnreachable):
                await read(two, call(), await one.read_prompt(call()))


@asynchronous
async def test_what_a_check_finds():
    async with scripted(says(READ), pages=pages()) as engine:
        one = Vllm(engine.url)
        async with started(one):
            facts = await one.check()
            assert await one.load() == Load(running=7, waiting=2, kv_usage=0.55, prompt_tokens=99.0)
    assert (facts.models, facts.max_model_len, facts.version) == (("m", "m-lora"), 4096, "0.32.0")
    assert (facts.moves_kv, facts.remarks) == (True, ())
    assert one.abilities.two_legs
    assert one.abilities.lease == 25.0


@asynchronous
async def test_what_a_check_finds_amiss():
    async with scripted(says(ANSWER), pages=pages(metrics=metrics(caching=False))) as engine:
        engine.pages.pop("/version")
        one, coupled = Vllm(engine.url), VllmCoupled(engine.url)
        async with started(one, coupled):
            facts, others = await one.check(), await coupled.check()
    assert not facts.moves_kv
    assert len(facts.remarks) == 2
    assert facts.version is None
    assert len(others.remarks) == 1
    assert not one.abilities.two_legs
    assert not coupled.abilities.two_legs


@pytest.mark.parametrize("page", ["<html>", "{}", '{"data": []}', '{"data": [{"name": "m"}]}'])
@asynchronous
async def test_what_is_no_engine_is_found_out(page, tmp_path):
    async with scripted(says(b"{}"), pages={"/v1/models": page, "/metrics": page, "/props": page}) as engine:
        for adapter in (Vllm(engine.url), VllmCoupled(engine.url), LlamaCpp(engine.url, slot_folder=tmp_path)):
            async with started(adapter):
                with pytest.raises(NotThisEngine):
                    await adapter.check()
                with pytest.raises(NotThisEngine):
                    await adapter.load()


@asynchronous
async def test_a_coupled_engine_with_a_prefix_cache_does_two_legs():
    async with scripted(says(ANSWER), pages=pages()) as engine, scripted(says(ANSWER)) as other:
        one, two = VllmCoupled(engine.url), VllmCoupled(other.url)
        async with started(one, two):
            await one.check()
            assert one.abilities.two_legs
            assert not one.abilities.late
            handover = await one.read_prompt(call())
            assert "kv_transfer_params" not in engine.sent[-1].body
            with pytest.raises(KvLost):
                await read(two, call(), handover)
            assert await one.check_pair(two) is not None


@asynccontextmanager
async def pair(moves: bool) -> AsyncIterator[tuple[Vllm, Vllm, ScriptedEngine]]:
    """Two engines of which the second fetches KV, or silently does not."""

    async def decode(request):
        engine.pages["/metrics"] = metrics(64.0 if moves else 0.0)
        return await says(ANSWER)(request)

    refusal = says({"error": "no such model"}, 404)
    async with scripted(says(READ), pages=pages()) as reads, scripted(decode, refusal, pages=pages()) as engine:
        one, two = Vllm(reads.url), Vllm(engine.url)
        async with started(one, two):
            yield one, two, engine


@asynchronous
async def test_a_pair_that_moves_kv_and_releases_it():
    async with pair(moves=True) as (one, two, engine):
        assert await one.check_pair(two) is None
        assert "kv_transfer_params" in engine.sent[0].body
        handover = await one.read_prompt(call())
        await one.release(handover)
        assert engine.sent[1].body["kv_transfer_params"] == TRANSFER
        assert engine.sent[1].body["model"] != "m"
        await read(one, call(), handover)

        async def released() -> bool:
            return len(engine.sent) == 3

        await until(released)


@asynchronous
async def test_a_pair_that_silently_reads_the_prompt_again_is_found_out(monkeypatch):
    monkeypatch.setattr("fluidgate.gateway.engines.vllm_wire.COUNTED_WITHIN", 0.1)
    async with pair(moves=False) as (one, two, engine):
        problem = await one.check_pair(two)
        assert problem is not None
        assert "again" in problem
        await one.release(await one.read_prompt(call()))
        assert len(engine.sent) == 1


@asynchronous
async def test_a_pair_that_is_down_or_of_two_kinds():
    async with scripted(says(READ), pages=pages()) as engine:
        one, dead = Vllm(engine.url), Vllm(f"http://127.0.0.1:{unused_port()}")
        async with started(one, dead):
            assert await one.check_pair(dead) is not None
            assert await dead.check_pair(one) is not None
            assert await one.check_pair(VllmCoupled(engine.url)) is not None


@asynchronous
async def test_adapters_share_connections():
    async with scripted(says(ANSWER)) as engine:
        shared = Connections()
        one, two = Vllm(engine.url, connections=shared), VllmCoupled(engine.url, connections=shared)
        async with started(one, two):
            await read(one, call())
            await read(two, call())
        assert not shared.kept.closed
        await shared.close()
        assert shared.kept.closed


@pytest.mark.parametrize(
    ("body", "splits"),
    [
        ({"prompt": "a"}, True),
        ({"prompt": [1, 2, 3]}, True),
        ({"prompt": ["a"]}, True),
        ({"prompt": ["a", "b"]}, False),
        ({"prompt": [[1, 2], [3]]}, False),
        ({"messages": [], "n": 1, "logprobs": True}, True),
        ({"messages": [], "n": 2}, False),
        ({"prompt": "a", "best_of": 3}, False),
        ({"prompt": "a", "use_beam_search": True}, False),
        ({"prompt": "a", "prompt_logprobs": 0}, False),
        ({"prompt": "a", "echo": True, "logprobs": 1}, False),
        ({"prompt": "a", "echo": True}, True),
    ],
)
def test_which_requests_split(body, splits):
    assert Call("/v1/completions", body, b"", "").splits is splits
