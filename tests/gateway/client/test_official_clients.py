"""The official clients of OpenAI and Anthropic, unchanged, before a gateway of emulated engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.gateway.asynchronous import asynchronous
from tests.gateway.client.test_requests import KEYED, SECRET
from tests.gateway.served import MODEL, Live, live_gateway

HELLO: Any = [{"role": "user", "content": "hello there"}]
EOS = {"ignore_eos": True}


@asynccontextmanager
async def with_openai(folder: Path, **options: Any) -> AsyncIterator[tuple[openai.AsyncOpenAI, Live]]:
    async with (
        live_gateway(folder, more=KEYED, **options) as live,
        openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key=SECRET, max_retries=0) as client,
    ):
        yield client, live
        await live.until(live.at_rest)


@asynccontextmanager
async def with_anthropic(folder: Path, more: str = "") -> AsyncIterator[tuple[anthropic.AsyncAnthropic, Live]]:
    async with (
        live_gateway(folder, more=more + KEYED) as live,
        anthropic.AsyncAnthropic(base_url=live.url, api_key=SECRET, max_retries=0) as client,
    ):
        yield client, live
        await live.until(live.at_rest)


@asynchronous
async def test_models_and_embeddings(tmp_path: Path) -> None:
    async with with_openai(tmp_path) as (client, live):
        assert [model.id async for model in await client.models.list()] == [MODEL]
        assert (await client.models.retrieve(MODEL)).id == MODEL
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("some/other")
        made = await client.embeddings.create(model=MODEL, input=["one two", "three"])
        assert [each.index for each in made.data] == [0, 1]
        await live.until(live.at_rest)
        assert [(r["path"], r["outcome"], r["output_tokens"]) for r in live.records()[1:]] == [
            ("/v1/embeddings", "completed", 0)
        ]


@pytest.mark.parametrize("kind", ["vllm", "vllm-coupled"])
@asynchronous
async def test_several_answers_and_prompts(tmp_path: Path, kind: str) -> None:
    async with with_openai(tmp_path, kind=kind) as (client, live):
        asked: dict[str, Any] = {"model": MODEL, "max_tokens": 3, "extra_body": EOS}
        whole = await client.chat.completions.create(messages=HELLO, n=3, **asked)
        assert [choice.index for choice in whole.choices] == [0, 1, 2]
        plain = await client.completions.create(prompt=["one", "two words"], **asked)
        assert [choice.index for choice in plain.choices] == [0, 1]
        stream = await client.chat.completions.create(messages=HELLO, n=2, stream=True, **asked)
        ended = [c.index async for chunk in stream for c in chunk.choices if c.finish_reason]
        assert sorted(ended) == [0, 1]
        await live.until(live.at_rest)
        assert [record["output_tokens"] for record in live.records()] == [9, 6, 6]
        assert {record["prefill_engine"] == record["decode_engine"] for record in live.records()} == {True}


@asynchronous
async def test_responses(tmp_path: Path) -> None:
    async with with_openai(tmp_path) as (client, live):
        asked: dict[str, Any] = {"model": MODEL, "input": "hello there", "max_output_tokens": 4, "extra_body": EOS}
        whole = await client.responses.create(**asked)
        assert whole.usage is not None
        assert whole.usage.output_tokens == len(whole.output_text.split()) == 4
        async with client.responses.stream(**asked) as stream:
            final = await stream.get_final_response()
        assert final.usage == whole.usage
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(**asked | {"model": "other"})
        await live.until(live.at_rest)
        assert [(r["stream"], r["output_tokens"]) for r in live.records() if "id" in r] == [(False, 4), (True, 4)]


@asynchronous
async def test_messages(tmp_path: Path) -> None:
    async with with_anthropic(tmp_path) as (client, live):
        asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 4}
        whole = await client.messages.create(**asked)
        assert 1 <= whole.usage.output_tokens <= 4
        async with client.messages.stream(**asked) as stream:
            final = await stream.get_final_message()
        assert final.usage.output_tokens >= 1
        assert (await client.messages.count_tokens(model=MODEL, messages=HELLO)).input_tokens > 0
        assert [model.id async for model in client.models.list()] == [MODEL]
        await live.until(live.at_rest)
        served = [(r["stream"], r["output_tokens"]) for r in live.records()]
        assert served == [(False, whole.usage.output_tokens), (True, final.usage.output_tokens)]


@asynchronous
async def test_errors_of_messages(tmp_path: Path) -> None:
    async with with_anthropic(tmp_path, more="[limits]\nmax_prompt_tokens = 50\n") as (client, _):
        asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 4}
        with pytest.raises(anthropic.NotFoundError) as missing:
            await client.messages.create(**asked | {"model": "other"})
        told: Any = missing.value.body
        assert (told["type"], told["error"]["type"]) == ("error", "not_found_error")
        assert missing.value.response.headers["x-fluidgate-reason"] == "model_not_found"
        with pytest.raises(anthropic.BadRequestError, match="the prompt has about"):
            await client.messages.create(**asked | {"system": "word " * 200})
        client.api_key = "sk-wrong"
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(**asked)
