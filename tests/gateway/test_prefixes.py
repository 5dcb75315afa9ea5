"""The gateway knows where the beginnings of prompts are, and what it believes is what emulated engines have."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from fluidgate.errors import FluidgateError
from tests.gateway.asynchronous import asynchronous
from tests.gateway.served import Live, live_gateway

WORDS = ("the", "of", "and", "to", "in", "is", "was", "that", "for", "as", "with", "by", "on", "are", "from", "at")


def words(rng: random.Random, number: int) -> str:
    return " ".join(rng.choices(WORDS, k=number))


async def chat(live: Live, messages: list[dict[str, Any]], *, stream: bool = True, tokens: int = 20) -> str:
    """What is answered."""
    reply = await live.post(
        "/v1/chat/completions",
        messages=messages,
        max_tokens=tokens,
        ignore_eos=True,
        stream=stream,
        stream_options={"include_usage": True} if stream else None,
    )
    assert reply.status == 200
    if not stream:
        return str(reply.json["choices"][0]["message"]["content"])
    return "".join(choice["delta"].get("content") or "" for event in reply.events for choice in event["choices"])


def totals(live: Live) -> tuple[int, int]:
    """Tokens believed to be there, and told to have been, over all engines."""
    prefixes = live.gateway.prefixes
    assert prefixes is not None
    each = [prefixes.snapshot(engine.place) for engine in live.gateway.backends]
    return int(sum(one["believed_tokens"] for one in each)), int(sum(one["told_tokens"] for one in each))


@pytest.mark.parametrize("stream", [True, False])
@asynchronous
async def test_the_next_turn_begins_with_the_answer(tmp_path: Path, stream: bool) -> None:
    rng = random.Random(1)
    async with live_gateway(tmp_path, policy="vllm-lmetric", kind="vllm-coupled", speed=200.0) as live:
        messages = [{"role": "system", "content": words(rng, 300)}, {"role": "user", "content": words(rng, 100)}]
        found = []
        for _ in range(3):
            said = await chat(live, messages, stream=stream, tokens=60)
            await live.until(live.idle)
            found.append(totals(live))
            messages += [{"role": "assistant", "content": said}, {"role": "user", "content": words(rng, 50)}]
        grew = [(now[0] - before[0], now[1] - before[1]) for before, now in zip([(0, 0), *found], found, strict=False)]
    assert grew[0] == (0, 0)
    for believed, told in grew[1:]:
        assert told > 0
        assert abs(believed - told) <= 48
    first = sum(len(str(each["content"])) for each in messages[:2]) // 4
    assert grew[1][0] > first + 16, "the answer counts too"


async def sessions(live: Live, rng: random.Random, number: int, turns: int) -> int:
    """Conversations side by side that share one of three system prompts; the prompt tokens of all."""
    systems = [words(rng, 200) for _ in range(3)]

    async def one(seed: int) -> int:
        own, tokens = random.Random(seed), 0
        messages = [{"role": "system", "content": systems[own.randrange(3)]}]
        for _ in range(own.randrange(2, turns + 1)):
            messages.append({"role": "user", "content": words(own, own.randrange(20, 200))})
            tokens += sum(len(str(each["content"])) for each in messages) // 4
            said = await chat(live, messages, stream=own.random() < 0.5, tokens=own.randrange(10, 40))
            messages.append({"role": "assistant", "content": said})
            await asyncio.sleep(own.random() * 0.02)
        return tokens

    return sum(await asyncio.gather(*(one(rng.randrange(1 << 30)) for _ in range(number))))


@pytest.mark.parametrize(
    ("policy", "kind", "kv_tokens"),
    [("vllm-lmetric", "vllm-coupled", None), ("vllm-lmetric", "vllm-coupled", 2500), ("gate-and-route", "vllm", None)],
)
@asynchronous
async def test_belief_agrees_with_what_engines_had(
    tmp_path: Path, policy: str, kind: str, kv_tokens: int | None
) -> None:
    engine = {} if kv_tokens is None else {"kv_tokens": kv_tokens, "max_model_len": kv_tokens}
    async with live_gateway(tmp_path, engines=3, engine=engine, policy=policy, kind=kind, speed=100.0) as live:
        tokens = await sessions(live, random.Random(2), 20, 5)
        await live.until(live.idle)
        believed, told = totals(live)
    assert told > 0.2 * tokens
    assert abs(believed - told) < 0.04 * tokens


@asynchronous
async def test_an_engine_that_comes_back_has_nothing(tmp_path: Path) -> None:
    async with live_gateway(tmp_path, engines=1, policy="vllm-lmetric", kind="vllm-coupled", speed=200.0) as live:
        await live.complete(prompt=list(range(320)))
        await live.complete(prompt=list(range(320)))
        assert totals(live) == (304, 304)
        (engine,) = live.gateway.backends
        live.engines[0].kill()
        await live.until(lambda: not engine.answers)
        await live.engines[0].revive()
        await live.until(lambda: engine.answers)
        assert live.gateway.prefixes is not None
        assert live.gateway.prefixes.snapshot(engine.place)["blocks"] == 0
        await live.complete(prompt=list(range(320)))
        assert totals(live) == (304, 304)


@asynchronous
async def test_prompts_go_where_they_have_been(tmp_path: Path) -> None:
    async with live_gateway(tmp_path, engines=3, policy="vllm-lmetric", kind="vllm-coupled", speed=200.0) as live:
        prompts = [[1000 * k + n for n in range(400)] for k in range(3)]
        await asyncio.gather(*(live.complete(prompt=prompt) for prompt in prompts))
        first = [record["prefill_engine"] for record in live.records()]
        assert len(set(first)) == 3
        where = {record["prefill_engine"] for record in live.records()}
        for prompt in prompts * 2:
            await live.complete(prompt=prompt)
        assert where == {record["prefill_engine"] for record in live.records()[3:]}
        believed, told = totals(live)
    assert believed == told == 6 * 384


@pytest.mark.parametrize(
    ("policy", "more", "looks"),
    [
        ("vllm-lmetric", "", True),
        ("gate-and-route", "", True),
        ("vllm-round-robin", "", False),
        ("vllm-round-robin", "[prefixes]\nenabled = true\n", True),
        ("vllm-lmetric", "[prefixes]\nenabled = false\n", False),
    ],
)
@asynchronous
async def test_looked_for_where_the_policy_can_use_it(tmp_path: Path, policy: str, more: str, looks: bool) -> None:
    async with live_gateway(tmp_path, engines=1, policy=policy, kind="vllm-coupled", speed=200.0, more=more) as live:
        for _ in range(2):
            assert (await live.complete(prompt=list(range(320)))).done
        assert (live.gateway.prefixes is not None) == looks
        if looks:
            assert totals(live)[0] == 304
        scraped = (await live.get("/metrics")).content
    assert (b"fluidgate_prefix_blocks" in scraped) == looks


@asynchronous
async def test_kv_that_has_moved_is_on_both_engines(tmp_path: Path) -> None:
    async with live_gateway(tmp_path, engines=2, policy="gate-and-route", speed=100.0) as live:
        await asyncio.gather(*(live.complete(40, prompt=[k] * 160) for k in range(8)))
        await live.until(live.at_rest)
        moved = [each for each in live.records() if each["prefill_engine"] != each["decode_engine"]]
        assert moved, "some decode was placed elsewhere"
        assert live.gateway.prefixes is not None
        blocks = [live.gateway.prefixes.snapshot(engine.place)["blocks"] for engine in live.gateway.backends]
    assert sum(blocks) == 10 * (8 + len(moved))


def test_events_that_no_such_engine_tells_are_refused() -> None:
    from fluidgate.gateway.gateway_file import parse_gateway

    text = """schema = 1
scenario = "examples/two-class.toml"
[engines]
kind = "openai"
urls = ["http://127.0.0.1:1"]
[prefixes]
kv_events_port = 5557
"""
    with pytest.raises(FluidgateError, match=r"g\.toml: prefixes\.kv_events_port: openai tells no KV events; remove"):
        parse_gateway(text, "g.toml", Path(__file__).parents[2])
