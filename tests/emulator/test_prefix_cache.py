"""The prefix cache of an emulated engine: block by block against a plain rendering, by hand, and through the API."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from fluidgate.emulator.kv_cache import KvCache
from fluidgate.emulator.kv_events import KvEvents
from fluidgate.emulator.metrics import EngineMetrics
from fluidgate.emulator.prompt import BLOCK, ID, Prompt, messages_prompt, token_prompt
from fluidgate.emulator.request import EngineRequest
from fluidgate.emulator.scheduler import Scheduler
from fluidgate.emulator.settings import EngineSettings
from fluidgate.emulator.wire import text
from fluidgate.model import Gpu, IterationTime
from tests.emulator.plain_cache import PlainCache, Tokens
from tests.emulator.served import Client
from tests.emulator.test_api import CHAT, served
from tests.emulator.test_transfer import PREFILL

LAW = IterationTime(alpha=0.02, beta=1e-3, gamma=100.0)
GPU = Gpu(batch_size=4, chunk_size=64, iteration=LAW)
FAR = 1e9


def settings(slots: int, **more: Any) -> EngineSettings:
    known = {"kv_tokens": slots * BLOCK, "max_model_len": slots * BLOCK, "batching": "token-budget"}
    return EngineSettings(GPU, **(known | more))


def request(prompt: Prompt, output: int = 1, arrival: float = 0.0, **more: Any) -> EngineRequest:
    return EngineRequest("r", prompt.key, prompt.tokens, output, arrival=arrival, since=arrival, text=prompt, **more)


def ids(prompt: Prompt) -> Tokens:
    return tuple(np.frombuffer(prompt.ids(0, prompt.tokens), ID).tolist())


def tokens_of(one: EngineRequest) -> Tokens:
    """What a request has read and written, each of its answer's tokens as its text is cut."""
    assert one.text is not None
    return ids(one.text) + text_of(text(one))


def text_of(words: str) -> Tokens:
    return ids(messages_prompt([words]))


@pytest.mark.parametrize("seed", range(6))
def test_block_by_block_it_is_a_plain_one(seed: int) -> None:
    """Random texts that begin alike are taken, filled, grown and released, in random order; the memory is short."""
    random = np.random.default_rng(seed)
    slots, events = 24, KvEvents()
    ours, plain = KvCache(settings(slots), events), PlainCache(slots)
    held: list[tuple[EngineRequest, list[int]]] = []
    stems = [random.integers(0, 5, 100).tolist() for _ in range(3)]
    taken = refused = 0
    for _ in range(1500):
        what = random.random()
        if what < 0.4:
            stem = stems[random.integers(3)][: random.integers(1, 100)]
            new = request(token_prompt(stem + random.integers(0, 5, random.integers(1, 40)).tolist()))
            assert new.text is not None
            matched = plain.matched(ids(new.text))
            assert ours.cached(new) == len(matched) * BLOCK
            place = plain.take(ids(new.text))
            assert ours.take(new) == (place is not None)
            taken, refused = taken + (place is not None), refused + (place is None)
            if place is not None:
                new.read = len(matched) * BLOCK
                held.append((new, place))
        elif held:
            one, place = held[random.integers(len(held))]
            if what < 0.55:
                read = int(random.integers(one.read, one.prompt + 1))
                one.read = max(one.read, read)
                ours.fill(one, one.read)
                plain.fill(place, tokens_of(one)[: one.read])
            elif what < 0.85 and one.read == one.prompt:
                one.written += 1
                if ours.lacks(one):
                    if not plain.line:
                        one.written -= 1
                        continue
                    ours.grow(one)
                    place.append(plain.new())
                ours.fill(one, one.prompt + one.written)
                plain.fill(place, tokens_of(one))
            elif what > 0.85:
                ours.release(one)
                plain.release(place)
                held = [each for each in held if each[0] is not one]
        assert ours.free == len(plain.line)
        assert [len(one.blocks) for one, _ in held] == [len(place) for _, place in held]
        assert ours.usage == pytest.approx(len({slot for _, place in held for slot in place}) / slots)
    assert taken > 150
    assert refused > 50
    named: dict[Tokens, int] = {}
    told = []
    for event in events.take():
        if event["type"] == "BlockStored":
            assert len(event["token_ids"]) == BLOCK * len(event["block_hashes"])
            told += [("+", each) for each in event["block_hashes"]]
        else:
            told += [("-", each) for each in event["block_hashes"]]
    for (sign, number), (plain_sign, tokens) in zip(told, plain.told, strict=True):
        assert sign == plain_sign
        assert named.setdefault(tokens, number) == number
    assert len(set(named.values())) == len(named) > 50


@pytest.mark.parametrize("single", [False, True])
def test_counters_add_up_and_the_memory_never_overflows(single: bool) -> None:
    """Conversations that go on, in a memory that holds few of them."""
    random = np.random.default_rng(4)
    known = settings(40, batching="single-prefill" if single else "token-budget")
    kv, metrics = KvCache(known), EngineMetrics(1.0)
    scheduler = Scheduler(known, kv, metrics)
    talks: list[list[int]] = [random.integers(0, 9, 90).tolist() for _ in range(5)]
    asked: list[EngineRequest] = []
    now = 0.0
    for _ in range(200):
        now += float(random.exponential(0.25))
        while scheduler.next_event <= now:
            scheduler.advance(scheduler.next_event, 1)
            held = {block for each in asked for block in each.blocks}
            assert 40 - kv.free == len(held)
            assert all(block.holders == sum(block in each.blocks for each in asked) for block in held)
        k = int(random.integers(5))
        last = next((each for each in reversed(asked) if each.choice == k and each.finish), None)
        talk = list(tokens_of(last)) if last is not None and last.prompt < 350 else talks[k]
        new = request(token_prompt(talk + random.integers(0, 9, 12).tolist()), int(random.integers(2, 90)), now)
        new.choice = k
        scheduler.add(new)
        asked.append(new)
    scheduler.advance(FAR, 10**6)
    assert [each.written for each in asked] == [each.output for each in asked]
    assert kv.usage == 0.0
    assert metrics.preemptions > 5
    assert metrics.looked_for == sum(each.prompt for each in asked) == sum(metrics.prompt_tokens.values())
    assert metrics.found == sum(each.found for each in asked) == metrics.prompt_tokens["local_cache_hit"]
    assert 0.3 < metrics.found / metrics.looked_for < 0.95


def run(scheduler: Scheduler, *requests: EngineRequest) -> None:
    for each in requests:
        assert scheduler.advance(each.since, 1000)
        scheduler.add(each)
    assert scheduler.advance(FAR, 10_000)


def made(known: EngineSettings) -> tuple[Scheduler, KvCache]:
    kv = KvCache(known)
    return Scheduler(known, kv, EngineMetrics(1.0)), kv


def test_one_token_at_least_is_read() -> None:
    scheduler, _ = made(settings(100))
    prompt = token_prompt(list(range(64)))
    first, again, shorter = request(prompt), request(prompt, arrival=1.0), request(token_prompt(range(65)), arrival=2.0)
    run(scheduler, first, again, shorter)
    assert [first.found, again.found, shorter.found] == [0, 48, 64]


def test_of_a_request_the_last_block_goes_first_and_what_was_used_again_stays() -> None:
    scheduler, kv = made(settings(12))
    old, other = token_prompt([1] * 80), token_prompt([2] * 64)
    run(scheduler, request(old), request(other, arrival=1.0), request(old, arrival=2.0))
    # five and four blocks are free, of 12; the old text was used last
    run(scheduler, request(token_prompt([3] * 80), arrival=3.0))  # three untouched, two of the other's
    assert [kv.cached(request(each)) for each in (old, other)] == [64, 32]
    run(scheduler, request(token_prompt([4] * 64), arrival=4.0))
    assert [kv.cached(request(each)) for each in (old, other)] == [48, 0]


def test_who_joins_beside_a_reader_takes_over_what_that_has_read_so_far() -> None:
    scheduler, _ = made(settings(100, max_batched_tokens=64))
    prompt = list(range(200))
    first = request(token_prompt(prompt))
    late = request(token_prompt([*prompt, 7]), arrival=0.001)
    run(scheduler, first, late)
    # chunks of 64, 64, 64, then 8 beside which the second joins
    assert (first.found, late.found) == (0, 192)
    assert late.started == pytest.approx(3 * 0.084)


def test_decodes_grow_until_the_memory_is_full_and_the_last_to_join_leaves() -> None:
    scheduler, kv = made(settings(10))
    first = request(token_prompt([1] * 64), output=40)
    second = request(token_prompt([2] * 64), output=40)
    run(scheduler, first, second)
    # each takes a fifth block behind its first token; at its 17th the first finds none, and the second leaves.
    # The first ends with seven blocks: two are the second's, the half empty one and the one before
    assert (first.preempted, second.preempted) == (False, True)
    assert second.again == 16
    assert second.cached == 48
    assert second.found == 0
    assert (first.written, second.written) == (40, 40)
    assert second.last_token > first.last_token
    assert kv.usage == 0.0


def test_an_abort_gives_blocks_back_that_keep_their_content() -> None:
    scheduler, kv = made(settings(20, max_batched_tokens=64))
    prompt = token_prompt([1] * 160)
    gone = request(prompt, output=100)
    scheduler.add(gone)
    scheduler.advance(0.05, 10)
    assert kv.usage == 0.5
    scheduler.abort(gone)
    scheduler.advance(FAR, 10)
    assert kv.usage == 0.0
    assert kv.cached(request(prompt)) == 64  # one chunk was read


def test_shared_blocks_count_once() -> None:
    scheduler, kv = made(settings(20))
    stem = [1] * 160
    run(scheduler, request(token_prompt(stem)))
    both = [request(token_prompt([*stem, k]), output=5, arrival=9.0) for k in (2, 3)]
    for each in both:
        scheduler.add(each)
    scheduler.advance(9.03, 10)
    assert scheduler.running == 2
    assert kv.usage == pytest.approx((10 + 2) / 20)


def test_a_long_prompt_is_hashed_at_once() -> None:
    numbers = list(range(100_000))
    spent = []
    for _ in range(5):
        began = time.process_time()
        assert len(token_prompt(numbers).hashes) == 6250
        spent.append(time.process_time() - began)
    assert min(spent) < 0.1  # 6 ms on an idle machine


def test_a_prompt_as_text_and_as_token_ids_is_the_same() -> None:
    async def test(client: Client) -> None:
        words = "one prompt, long enough to fill a block or two of the memory, whichever way it is sent to the engine"
        ids = (await client.post("/tokenize", {"prompt": words})).body["tokens"]
        first = await client.complete(prompt=words)
        again = await client.complete(prompt=ids)
        assert again.text == first.text
        assert again.body["usage"]["prompt_tokens_details"] == {"cached_tokens": (len(ids) - 1) // BLOCK * BLOCK}

    served(test)


def cached(reply: Any) -> int:
    usage = reply.chunks[-1]["usage"] if reply.chunks else reply.body["usage"]
    return int(usage.get("prompt_tokens_details", {"cached_tokens": 0})["cached_tokens"])


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_turn_of_a_chat_finds_prompt_and_answer(stream: bool) -> None:
    async def test(client: Client) -> None:
        talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is there to say? " * 9}]
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        known = 0
        for turn in range(4):
            reply = await client.post(CHAT, {"messages": talk, "max_tokens": 70, "ignore_eos": True} | options)
            usage = reply.chunks[-1]["usage"] if stream else reply.body["usage"]
            assert cached(reply) == known
            known = (usage["total_tokens"] - 1) // BLOCK * BLOCK  # the last token was never read
            if stream:
                said = "".join(each["choices"][0]["delta"].get("content", "") for each in reply.chunks[:-1])
            else:
                said = reply.body["choices"][0]["message"]["content"]
            talk += [{"role": "assistant", "content": said}, {"role": "user", "content": f"And now, {turn} times?"}]
        other = await client.post(CHAT, {"messages": [*talk[:2], *talk[3:]], "max_tokens": 1})
        assert cached(other) < 64  # without the first answer only what came before it is there

    served(test)


def test_the_other_apis_find_conversations_too() -> None:
    async def test(client: Client) -> None:
        question = {"role": "user", "content": "a question of some length, " * 10}
        body = {"model": "emulated", "max_tokens": 40, "ignore_eos": True}
        first = (await client.post("/v1/messages", body | {"messages": [question]})).body
        answer = {"role": "assistant", "content": first["content"]}
        talk = [question, answer, {"role": "user", "content": "more"}]
        await client.post("/v1/messages", body | {"messages": talk})
        whole = (first["usage"]["input_tokens"] + 40 - 1) // BLOCK * BLOCK
        assert await client.metric("prefix_cache_hits_total") == whole
        items = [question, {"type": "message", "role": "assistant", "content": first["content"]}]
        reply = await client.post("/v1/responses", {"input": [*items, talk[2]], "max_output_tokens": 1})
        assert reply.body["usage"]["input_tokens_details"]["cached_tokens"] >= whole

    served(test)


def test_without_prefix_caching_nothing_is_found() -> None:
    async def test(client: Client) -> None:
        for _ in range(2):
            reply = await client.complete()
        assert "prompt_tokens_details" not in reply.body["usage"]
        assert await client.metric("prefix_cache_hits_total") == 0

    served(test, prefix_caching=False)


def test_only_what_the_decoder_lacks_is_transferred() -> None:
    async def test(client: Client) -> None:
        stem = list(range(160))
        await client.complete(1, prompt=[*stem, 1])
        read = await client.complete(0, prompt=[*stem, *range(500, 540)], max_tokens=1, kv_transfer_params=PREFILL)
        params = read.body["kv_transfer_params"]
        reply = await client.complete(1, prompt=[*stem, *range(500, 540)], kv_transfer_params=params)
        assert reply.status == 200
        assert cached(reply) == 0  # what a client is told of is the engine that read
        found = client.servers[1].engine.metrics
        assert found.prompt_tokens == {"local_compute": 161, "local_cache_hit": 160, "external_kv_transfer": 40}
        page = await client.text("/metrics", 1)
        seconds = next(line for line in page.splitlines() if line.startswith("vllm:nixl_xfer_time_seconds_sum"))
        assert float(seconds.rpartition(" ")[2]) * 20.0 == pytest.approx(0.5 + 40 / 1000.0)
        again = await client.complete(1, prompt=[*stem, *range(500, 540)])
        assert cached(again) == 192  # what has come from elsewhere is cached too

    served(test, count=2, transfer_latency=0.5, transfer_bandwidth=1000.0)


def test_a_pair_transfers_only_what_its_writer_lacks() -> None:
    import asyncio

    from tests.emulator.test_pairs import both, pair

    async def test() -> None:
        async with pair(transfer_latency=0.0, transfer_bandwidth=100.0) as client:
            await both(client, 1)
            (cold,) = client.servers[1].engine.served
            await both(client, 2)
            warm = client.servers[1].engine.served[1]
            assert cold.started - cold.arrival >= 1.0  # 100 tokens
            assert warm.started - warm.arrival < 0.5  # 4

    asyncio.run(test())


def test_the_memory_can_be_reset() -> None:
    async def test(client: Client) -> None:
        await client.complete()
        async with client.session.post(client.servers[0].url + "/reset_prefix_cache") as answer:
            assert answer.status == 200
        assert cached(await client.complete()) == 0
        assert cached(await client.complete()) == 96

    served(test)
