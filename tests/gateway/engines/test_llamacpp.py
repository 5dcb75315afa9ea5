"""The adapter before real llama.cpp servers."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from fluidgate.gateway.engines import (
    Call,
    Connections,
    EngineRefused,
    EngineUnreachable,
    KvLost,
    LlamaCpp,
    NotThisEngine,
)
from fluidgate.gateway.engines.sse import TokenCounter
from tests.gateway.asynchronous import asynchronous, until
from tests.gateway.conftest import SLOTS, LlamaServers, spawn_llama

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "while", "it", "rains", "in", "hills")


def call(seed: int, *, tokens: int = 24, stream: bool = False, chat: bool = False) -> Call:
    prompt = " ".join(WORDS[(seed * 7 + i * i) % len(WORDS)] for i in range(40)) + f" {seed}"
    body: dict = {"model": "tiny", "max_tokens": tokens, "temperature": 0, "stream": stream}
    body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    return Call(path, body, orjson.dumps(body), f"request-{seed}")


@asynccontextmanager
async def adapters(servers: LlamaServers, **options: float) -> AsyncIterator[tuple[LlamaCpp, LlamaCpp]]:
    connections = Connections()
    one, two = (
        LlamaCpp(url, slot_folder=servers.slot_folder, connections=connections, **options) for url in servers.urls
    )
    await one.start()
    await two.start()
    try:
        yield one, two
    finally:
        await one.close()
        await two.close()
        await connections.close()


async def whole(adapter: LlamaCpp, request: Call, handover: object = None) -> dict:
    async with adapter.write_answer(request, handover) as answer:
        return orjson.loads(await answer.read())


def text(answer: dict) -> str:
    choice = answer["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]


def files(servers: LlamaServers) -> list[Path]:
    return list(servers.slot_folder.iterdir())


@asynchronous
async def test_facts_and_load(llama_servers):
    async with adapters(llama_servers) as (one, _):
        facts = await one.check()
        assert (facts.models, facts.max_model_len, facts.slots, facts.moves_kv) == (("tiny",), 2048, SLOTS, True)
        assert await one.load() == await one.load()
        assert (await one.load()).running == 0


@asynchronous
async def test_a_slot_folder_that_is_not_the_servers_is_found_out(llama_servers, tmp_path):
    adapter = LlamaCpp(llama_servers.urls[0], slot_folder=tmp_path)
    await adapter.start()
    try:
        with pytest.raises(NotThisEngine, match="saves its slots elsewhere than in slot_dir"):
            await adapter.check()
    finally:
        await adapter.close()
        for left in files(llama_servers):
            left.unlink()


@asynchronous
async def test_kv_moves_between_the_two_both_ways(llama_servers):
    async with adapters(llama_servers) as (one, two):
        assert await one.check_pair(two) is None
        assert await two.check_pair(one) is None
    assert files(llama_servers) == []


@pytest.mark.parametrize("chat", [False, True])
@asynchronous
async def test_an_answer_written_elsewhere_is_the_same_and_its_prompt_is_not_read_again(llama_servers, chat):
    request, other = call(1, chat=chat), call(2, chat=chat)
    async with adapters(llama_servers) as (one, two):
        alone = await whole(one, request)
        assert text(alone) != text(await whole(one, other))
        handover = await one.read_prompt(request)
        assert handover.url == one.url
        assert len(files(llama_servers)) == 1
        moved = await whole(two, request, handover)
    assert text(moved) == text(alone)
    assert len(text(alone)) >= 24
    assert moved["timings"]["prompt_n"] == 1
    assert moved["timings"]["cache_n"] == moved["usage"]["prompt_tokens"] - 1
    assert files(llama_servers) == []


@asynchronous
async def test_a_stream_written_elsewhere(llama_servers):
    async with adapters(llama_servers) as (one, two):
        request = call(3, stream=True)
        handover = await one.read_prompt(request)
        counter, chunks = TokenCounter(), []
        async with two.write_answer(request, handover) as answer:
            async for chunk in answer.chunks():
                chunks.append(chunk)
                counter.feed(chunk)
        assert (counter.tokens, counter.finished) == (24, True)
        assert b'"prompt_n":1,' in b"".join(chunks)
        assert text(await whole(one, call(3))) == "".join(
            orjson.loads(line[6:])["choices"][0]["text"]
            for line in b"".join(chunks).splitlines()
            if line.startswith(b"data: {")
        )


@asynchronous
async def test_an_answer_that_stays_finds_its_prompt_in_the_slot(llama_servers):
    async with adapters(llama_servers) as (one, _):
        alone = await whole(one, call(4))
        handover = await one.read_prompt(call(4))
        files(llama_servers)[0].write_bytes(b"not needed")
        stayed = await whole(one, call(4), handover)
    assert (text(stayed), stayed["timings"]["prompt_n"]) == (text(alone), 1)
    assert files(llama_servers) == []


@asynchronous
async def test_an_answer_that_stays_finds_its_prompt_in_the_file_once_others_had_the_slot(llama_servers):
    async with adapters(llama_servers) as (one, _):
        alone = await whole(one, call(5))
        handover = await one.read_prompt(call(5))
        for seed in range(100, 100 + 2 * SLOTS):
            await whole(one, call(seed))
        stayed = await whole(one, call(5), handover)
    assert (text(stayed), stayed["timings"]["prompt_n"]) == (text(alone), 1)


@asynchronous
async def test_more_requests_than_slots(llama_servers):
    async with adapters(llama_servers) as (one, two):
        alone = [text(await whole(two, call(seed))) for seed in range(20, 26)]
        handovers = await asyncio.gather(*(one.read_prompt(call(seed)) for seed in range(20, 26)))
        answers = await asyncio.gather(
            *(
                whole(two if seed % 2 else one, call(seed), handover)
                for seed, handover in zip(range(20, 26), handovers, strict=True)
            )
        )
    assert [text(answer) for answer in answers] == alone
    assert [answer["timings"]["prompt_n"] for answer in answers] == [1] * 6


@asynchronous
async def test_release_removes_the_file_and_the_kv_is_lost(llama_servers):
    async with adapters(llama_servers) as (one, two):
        handover = await one.read_prompt(call(6))
        await one.release(handover)
        await one.release(handover)
        assert files(llama_servers) == []
        with pytest.raises(KvLost):
            await whole(two, call(6), handover)


@asynchronous
async def test_kv_that_nobody_asks_for_expires(llama_servers):
    async with adapters(llama_servers, lease=0.2) as (one, two):
        handover = await one.read_prompt(call(7))

        async def gone() -> bool:
            return not files(llama_servers)

        await until(gone)
        with pytest.raises(KvLost):
            await whole(two, call(7), handover)


@asynchronous
async def test_files_that_a_dead_gateway_left_are_removed(llama_servers):
    old, young, foreign = (llama_servers.slot_folder / name for name in ("fluidgate-1.kv", "fluidgate-2.kv", "mine"))
    for path in (old, young, foreign):
        path.touch()
    os.utime(old, (time.time() - 700, time.time() - 700))
    async with adapters(llama_servers):
        assert sorted(files(llama_servers)) == [young, foreign]
    young.unlink()
    foreign.unlink()


@asynchronous
async def test_a_client_that_goes_away_frees_slot_and_server(llama_servers):
    async with adapters(llama_servers) as (one, _):
        for _ in range(2 * SLOTS):
            async with one.write_answer(call(8, tokens=1900, stream=True), None) as answer:
                assert await anext(answer.chunks())

        async def idle() -> bool:
            return (await one.load()).running == 0

        await until(idle)
        assert len(text(await whole(one, call(8)))) >= 24


@asynchronous
async def test_a_request_that_is_at_fault_is_refused(llama_servers):
    async with adapters(llama_servers) as (one, _):
        body = {"prompt": 3}
        with pytest.raises(EngineRefused) as caught:
            await whole(one, Call("/v1/completions", body, b"", "x"))
    assert (caught.value.status, caught.value.elsewhere) == (400, False)


@asynchronous
async def test_a_server_that_dies(tiny_model, tmp_path):
    server = spawn_llama(tiny_model, tmp_path)
    try:
        async with adapters(LlamaServers([server.url, server.url], tmp_path)) as (one, _):
            async with one.write_answer(call(9, tokens=1900, stream=True), None) as answer:
                chunks = answer.chunks()
                await anext(chunks)
                server.stop()
                with pytest.raises(EngineUnreachable) as caught:
                    async for _ in chunks:
                        pass
                assert caught.value.taken
            with pytest.raises(EngineUnreachable) as caught:
                await one.read_prompt(call(9))
            assert not caught.value.taken
    finally:
        server.stop()


@asynchronous
async def test_servers_without_a_folder_in_common_are_found_out(tiny_model, llama_servers, tmp_path):
    apart = spawn_llama(tiny_model, tmp_path)
    try:
        async with adapters(LlamaServers([llama_servers.urls[0], apart.url], llama_servers.slot_folder)) as (one, two):
            problem = await one.check_pair(two)
            assert problem is not None
            assert "restore" in problem
    finally:
        apart.stop()
