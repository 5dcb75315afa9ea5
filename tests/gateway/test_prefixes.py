"""The gateway knows where the beginnings of prompts are, and what it believes is what emulated engines have."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fluidgate.emulator import EngineSettings, serve_engines
from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.running import running_gateway
from fluidgate.gateway.gateway_file import GatewaySettings
from fluidgate.model import Scenario
from tests.gateway.asynchronous import asynchronous
from tests.gateway.served import Live, live_gateway

EXAMPLES = Path(__file__).parents[2] / "examples"

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
    [("vllm-lmetric", "vllm-coupled", None), ("vllm-lmetric", "vllm-coupled", 4000), ("gate-and-route", "vllm", None)],
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
    assert abs(believed - told) < 0.02 * tokens


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


@pytest.mark.parametrize("stream", [True, False])
@asynchronous
async def test_a_response_is_part_of_the_next_turn(tmp_path: Path, stream: bool) -> None:
    rng = random.Random(1)
    async with live_gateway(tmp_path, engines=1, policy="vllm-lmetric", kind="vllm-coupled", speed=200.0) as live:
        asked = {"role": "user", "content": words(rng, 100)}
        reply = await live.post("/v1/responses", input=[asked], max_output_tokens=60, stream=stream)
        assert reply.status == 200
        if stream:
            last = [line for line in reply.content.split(b"\n") if line.startswith(b"data: ")][-1]
            response = json.loads(last[6:])["response"]
        else:
            response = reply.json
        await live.until(live.idle)
        turn = [asked, *response["output"], {"role": "user", "content": "and?"}]
        reply = await live.post("/v1/responses", input=turn, max_output_tokens=4)
        await live.until(live.idle)
        believed, told = totals(live)
    assert told > len(asked["content"]) // 4 + 32, "the answer counts too"
    assert abs(believed - told) <= 32


@pytest.mark.parametrize("stream", [True, False])
@asynchronous
async def test_any_of_several_choices_may_be_gone_on_with(tmp_path: Path, stream: bool) -> None:
    rng = random.Random(1)
    async with live_gateway(tmp_path, engines=1, policy="vllm-lmetric", kind="vllm-coupled", speed=200.0) as live:
        asked = [{"role": "user", "content": words(rng, 100)}]
        told = {"max_tokens": 60, "ignore_eos": True, "n": 3, "stream": stream}
        reply = await live.post("/v1/chat/completions", messages=asked, **told)
        if stream:
            said = ["", "", ""]
            for event in reply.events:
                for choice in event["choices"]:
                    said[choice["index"]] += choice["delta"].get("content") or ""
        else:
            said = [choice["message"]["content"] for choice in reply.json["choices"]]
        assert len(set(said)) == 3
        before = await settled(live)
        for each in said:
            messages = [*asked, {"role": "assistant", "content": each}, {"role": "user", "content": "and?"}]
            await chat(live, messages, tokens=2)
            now = await settled(live)
            believed, found = now[0] - before[0], now[1] - before[1]
            assert found > len(str(asked[0]["content"])) // 4 + 32, "the answer counts too"
            assert abs(believed - found) <= 32
            before = now


@pytest.mark.parametrize("stream", [True, False])
@asynchronous
async def test_token_ids_go_on_where_the_engine_tells_them(tmp_path: Path, stream: bool) -> None:
    async with live_gateway(tmp_path, engines=1, policy="vllm-lmetric", kind="vllm-coupled", speed=200.0) as live:
        for tells, found in ((False, 96), (True, 160)):
            prompt = [1000 * tells + k for k in range(100)]
            before = await settled(live)
            reply = await live.complete(64, prompt=prompt, return_token_ids=tells, stream=stream)
            answers = [choice for event in (reply.events if stream else [reply.json]) for choice in event["choices"]]
            written = [each for choice in answers for each in choice.get("token_ids", [])]
            assert len(written) == (64 if tells else 0)
            await settled(live)
            await live.complete(prompt=[*prompt, *written, *range(50)])
            now = await settled(live)
            assert (now[0] - before[0], now[1] - before[1]) == (found, found)


@asynchronous
async def test_an_engine_s_counters_tell_where_its_answers_do_not(tmp_path: Path) -> None:
    """Messages state no cached tokens; that the memory was reset the counters say, and that others send prompts too."""
    rng = random.Random(1)
    async with live_gateway(tmp_path, engines=1, policy="vllm-lmetric", kind="vllm-coupled", speed=200.0) as live:
        prefixes, (engine,) = live.gateway.prefixes, live.gateway.backends
        assert prefixes is not None

        async def turn(session: int, url: str) -> None:
            asked = {"role": "user", "content": stems[session]}
            body = {"model": "emulated", "messages": [asked], "max_tokens": 2}
            async with live.session.post(url + "/v1/messages", json=body) as answer:
                assert answer.status == 200

        stems = [words(rng, 1500) for _ in range(4)]
        for session in range(4):
            await turn(session, live.url)
        for _ in range(4):
            await turn(0, live.url)
            await turn(1, engine.url)
        (load,) = [await engine.adapter.load()]
        assert load.prompt_tokens == pytest.approx(12 * len(stems[0]) / 4, rel=0.05)
        assert load.prefix_hits == pytest.approx(8 * len(stems[0]) / 4, rel=0.05)
        await live.until(lambda: prefixes.snapshot(engine.place)["told_tokens"] > 0)
        believed = await settled(live)
        assert believed[0] == pytest.approx(4 * len(stems[0]) / 4, rel=0.05)
        async with live.session.post(engine.url + "/reset_prefix_cache") as answer:
            assert answer.status == 200
        for session in range(4):
            await turn(session, live.url)
        await live.until(lambda: prefixes.snapshot(engine.place)["agreement"] < 0.95)


async def settled(live: Live) -> tuple[int, int]:
    await live.until(live.idle)
    return totals(live)


@asynchronous
async def test_the_example_for_agents_runs_as_it_is(tmp_path: Path) -> None:
    """But for its addresses."""
    of, rng = Scenario.load(EXAMPLES / "agents-fleet.toml"), random.Random(4)
    known = EngineSettings(
        of.gpu, speed=20.0, batching="token-budget", kv_tokens=of.engine.kv_tokens, max_model_len=200_000
    )
    async with serve_engines(known, 4) as servers:
        text = (EXAMPLES / "agents-gateway.toml").read_text().replace("agents-fleet", str(EXAMPLES / "agents-fleet"))
        for k, server in enumerate(servers):
            text = text.replace(f"http://127.0.0.1:800{k + 1}", server.url)
        (tmp_path / "g.toml").write_text(text.replace("port = 8080", f'port = 0\nlog = "{tmp_path / "requests.log"}"'))
        settings = GatewaySettings.load(tmp_path / "g.toml")
        assert settings.groups[0].policy.name == "index-and-pool"
        async with running_gateway(settings) as (gateway, url), aiohttp.ClientSession() as session:
            live = Live(url, gateway, servers, session, tmp_path / "requests.log")
            assert live.gateway.binding == "stay"
            messages = [{"role": "system", "content": words(rng, 5000)}]
            for _ in range(3):
                messages.append({"role": "user", "content": words(rng, 300)})
                messages.append({"role": "assistant", "content": await chat(live, messages)})
            believed, told = await settled(live)
            where = {record["prefill_engine"] for record in live.records()}
    assert len(where) == 1
    assert told > 2 * 5000
    assert abs(believed - told) < 0.01 * told
