"""The adapter and the gateway before real SGLang engines that run already; docs/guides/engines.md says how.

FLUIDGATE_SGLANG="PREFILL_URL DECODE_URL WHOLE_URL"
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from fluidgate.gateway.client.running import running_gateway
from fluidgate.gateway.engines import Call, EngineUnreachable, Sglang
from tests.gateway.asynchronous import asynchronous, until
from tests.gateway.engines.test_sglang import started
from tests.gateway.served import scenario, settings_of

URLS = os.environ.get("FLUIDGATE_SGLANG", "").split()
pytestmark = pytest.mark.skipif(len(URLS) != 3, reason="FLUIDGATE_SGLANG names no engines")

PROMPT = "and so it went on, " * 40


def call(tokens: int, *, stream: bool) -> Call:
    body = {"prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": stream}
    return Call("/v1/completions", body, orjson.dumps(body), "fg-real")


async def text(adapter: Sglang, request: Call, handover: Any) -> str:
    async with adapter.write_answer(request, handover) as answer:
        return str(orjson.loads(await answer.read())["choices"][0]["text"])


async def rest(*adapters: Sglang) -> None:
    """Nothing is on the engines any more."""

    async def idle() -> bool:
        return sum([(await adapter.load()).requests for adapter in adapters]) == 0

    await until(idle)


@asynchronous
async def test_a_pair_writes_what_one_engine_does() -> None:
    reader, writer, whole = Sglang(URLS[0], pairs=True), Sglang(URLS[1], pairs=True), Sglang(URLS[2])
    async with started(reader, writer, whole):
        assert [(await each.check()).role for each in (reader, writer, whole)] == ["prefill", "decode", "both"]
        assert await reader.check_pair(writer) is None
        request = call(12, stream=False)
        handover = await reader.read_prompt(request, writer)
        assert handover.prompt_tokens is not None
        assert await text(writer, request, handover) == await text(whole, request, None)
        assert await text(whole, request, await whole.read_prompt(request)) == await text(whole, request, None)
        await rest(reader, writer, whole)


@asynchronous
async def test_what_is_broken_off_leaves_nothing_behind() -> None:
    reader, writer, nobody = (Sglang(url, pairs=True) for url in (*URLS[:2], "http://127.0.0.1:9"))
    async with started(reader, writer, nobody):
        for pair in ((reader, nobody), (nobody, writer)):
            with pytest.raises(EngineUnreachable, match=":9: "):
                await pair[0].read_prompt(call(5, stream=True), pair[1])
            await rest(reader, writer)
        await reader.release(await reader.read_prompt(call(2000, stream=True), writer))
        await rest(reader, writer)
        async with writer.write_answer(
            call(2000, stream=True), await reader.read_prompt(call(2000, stream=True), writer)
        ) as answer:
            await anext(answer.chunks())
        await rest(reader, writer)


@pytest.mark.parametrize(("kind", "urls"), [('sglang"\nbinding = "early', URLS[:2]), ("sglang", URLS[2:])])
@asynchronous
async def test_the_gateway(tmp_path: Path, kind: str, urls: list[str]) -> None:
    of = scenario(rate=0.05)
    settings = settings_of(tmp_path, urls, of, kind=kind)
    async with running_gateway(settings) as (gateway, url):
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        (model,) = (await client.models.list()).data

        async def answer(k: int) -> int:
            stream = await client.chat.completions.create(
                model=model.id,
                messages=[{"role": "user", "content": f"{k} {PROMPT}"}],
                max_tokens=8,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
            usage = [chunk.usage async for chunk in stream if chunk.usage is not None]
            return usage[-1].completion_tokens

        assert await asyncio.gather(*(answer(k) for k in range(8))) == [8] * 8
        with pytest.raises(openai.BadRequestError):
            await client.completions.create(model=model.id, prompt="x", max_tokens=3, temperature=-1)
        stages = gateway.groups[0].snapshot()["classes"]
        assert all(number == 0 for each in stages.values() for number in each.values())
