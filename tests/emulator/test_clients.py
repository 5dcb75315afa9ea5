"""The official clients of OpenAI and Anthropic, unchanged, against an engine."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from anthropic import BadRequestError as AnthropicBadRequest
from anthropic import NotFoundError as AnthropicNotFound
from openai import APIError, AsyncOpenAI, InternalServerError, NotFoundError

from tests.emulator.served import Client
from tests.emulator.test_api import served

HELLO: Any = [{"role": "user", "content": "hello there"}]
EOS = {"ignore_eos": True}


def with_openai(test: Callable[[AsyncOpenAI, Client], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def run(client: Client) -> None:
        async with AsyncOpenAI(base_url=client.servers[0].url + "/v1", api_key="none", max_retries=0) as openai:
            await test(openai, client)

    served(run, **settings)


def with_anthropic(test: Callable[[AsyncAnthropic, Client], Coroutine[Any, Any, None]]) -> None:
    async def run(client: Client) -> None:
        async with AsyncAnthropic(base_url=client.servers[0].url, api_key="none", max_retries=0) as anthropic:
            await test(anthropic, client)

    served(run)


def test_models() -> None:
    async def test(openai: AsyncOpenAI, client: Client) -> None:
        assert [model.id async for model in await openai.models.list()] == ["emulated"]
        assert (await openai.models.retrieve("emulated")).id == "emulated"
        with pytest.raises(NotFoundError, match="does not exist"):
            await openai.models.retrieve("other")

    with_openai(test)


def test_completions_and_chats() -> None:
    async def test(openai: AsyncOpenAI, client: Client) -> None:
        whole = await openai.chat.completions.create(model="emulated", messages=HELLO, max_tokens=4)
        assert whole.usage is not None
        assert len((whole.choices[0].message.content or "").split()) == whole.usage.completion_tokens <= 4
        stream = await openai.chat.completions.create(
            model="emulated",
            messages=HELLO,
            max_tokens=4,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=EOS,
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 4
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert len(text.split()) == 4
        plain = await openai.completions.create(
            model="emulated", prompt=[1, 2, 3], max_tokens=2, stream=True, extra_body=EOS
        )
        assert [choice.finish_reason async for chunk in plain for choice in chunk.choices] == [None, "length"]
        with pytest.raises(NotFoundError, match="does not exist"):
            await openai.completions.create(model="other", prompt="a")

    with_openai(test)


def test_several_choices() -> None:
    async def test(openai: AsyncOpenAI, client: Client) -> None:
        whole = await openai.chat.completions.create(
            model="emulated", messages=HELLO, max_tokens=3, n=3, extra_body=EOS
        )
        texts = [choice.message.content for choice in whole.choices]
        assert [choice.index for choice in whole.choices] == [0, 1, 2]
        assert len(set(texts)) == 3
        stream = await openai.chat.completions.create(
            model="emulated", messages=HELLO, max_tokens=3, n=3, stream=True, extra_body=EOS
        )
        streamed = ["", "", ""]
        async for chunk in stream:
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
        assert streamed == texts

    with_openai(test)


def test_embeddings() -> None:
    async def test(openai: AsyncOpenAI, client: Client) -> None:
        asked: Any = {"model": "emulated", "input": ["one two", "three"]}
        packed = await openai.embeddings.create(**asked)  # the client asks for base64
        plain = await openai.embeddings.create(**asked, encoding_format="float")
        assert [each.index for each in packed.data] == [0, 1]
        for mine, yours in zip(packed.data, plain.data, strict=True):
            assert mine.embedding == pytest.approx(yours.embedding)
            assert sum(number**2 for number in mine.embedding) == pytest.approx(1.0)
        assert packed.data[0].embedding != packed.data[1].embedding
        assert packed.usage.prompt_tokens == packed.usage.total_tokens == 4

    with_openai(test)


@pytest.mark.parametrize(("limit", "status"), [(3, "incomplete"), (None, "completed")])
def test_responses(limit: int | None, status: str) -> None:
    async def test(openai: AsyncOpenAI, client: Client) -> None:
        asked: Any = {"model": "emulated", "input": "hello there"}
        if limit is not None:
            asked |= {"max_output_tokens": limit, "extra_body": EOS}
        whole = await openai.responses.create(**asked)
        assert whole.usage is not None
        assert whole.status == status
        assert len(whole.output_text.split()) == whole.usage.output_tokens
        assert limit is None or whole.usage.output_tokens == limit
        assert whole.usage.input_tokens == 4
        events = [event async for event in await openai.responses.create(**asked, stream=True)]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        kinds = [event.type for event in events if event.type != "response.output_text.delta"]
        assert kinds == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert (len(deltas), "".join(deltas)) == (whole.usage.output_tokens, whole.output_text)
        async with openai.responses.stream(**asked) as stream:
            final = await stream.get_final_response()
        assert (final.output_text, final.status) == (whole.output_text, status)
        assert final.usage == whole.usage

    with_openai(test, output_tokens=10.0, prefix_caching=False)


def test_responses_to_a_conversation() -> None:
    async def test(openai: AsyncOpenAI, client: Client) -> None:
        conversation: Any = [
            {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
            {"type": "function_call_output", "call_id": "c", "output": "x" * 400},
        ]
        whole = await openai.responses.create(
            model="emulated", input=conversation, instructions="be short", max_output_tokens=1
        )
        assert whole.usage is not None
        assert 100 < whole.usage.input_tokens < 130
        with pytest.raises(NotFoundError, match="'resp_1' not found"):
            await openai.responses.create(model="emulated", input="a", previous_response_id="resp_1")

    with_openai(test)


def test_failures_of_streams() -> None:
    lost: Any = {
        "kv_transfer_params": {
            "do_remote_prefill": True,
            "remote_engine_id": "dead",
            "remote_request_id": "r",
            "remote_host": "127.0.0.1",
            "remote_port": 1,
            "remote_block_ids": [0],
        }
    }

    async def test(openai: AsyncOpenAI, client: Client) -> None:
        with pytest.raises(InternalServerError):
            await openai.responses.create(model="emulated", input="a", extra_body=lost)
        stream = await openai.responses.create(model="emulated", input="a", stream=True, extra_body=lost)
        assert [event.type async for event in stream] == ["response.created", "response.in_progress", "error"]
        plain = await openai.completions.create(model="emulated", prompt="a", stream=True, extra_body=lost)
        with pytest.raises(APIError, match="Internal server error"):
            await anext(aiter(plain))

    with_openai(test)


def test_messages() -> None:
    async def test(anthropic: AsyncAnthropic, client: Client) -> None:
        asked: Any = {"model": "emulated", "messages": HELLO, "max_tokens": 4, "system": "be kind", "extra_body": EOS}
        whole = await anthropic.messages.create(**asked)
        assert whole.stop_reason == "max_tokens"
        assert whole.content[0].type == "text"
        assert len(whole.content[0].text.split()) == whole.usage.output_tokens == 4
        async with anthropic.messages.stream(**asked) as stream:
            text = "".join([part async for part in stream.text_stream])
            final = await stream.get_final_message()
        assert text == whole.content[0].text
        assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 4)
        assert final.usage.input_tokens == whole.usage.input_tokens
        events = [event.type async for event in await anthropic.messages.create(**asked, stream=True)]
        start, end = ["message_start", "content_block_start"], ["content_block_stop", "message_delta", "message_stop"]
        assert events == start + 4 * ["content_block_delta"] + end
        counted = await anthropic.messages.count_tokens(model="emulated", messages=HELLO, system="be kind")
        assert counted.input_tokens == whole.usage.input_tokens

    with_anthropic(test)


def test_bad_messages() -> None:
    async def test(anthropic: AsyncAnthropic, client: Client) -> None:
        with pytest.raises(AnthropicNotFound, match="does not exist"):
            await anthropic.messages.create(model="other", messages=HELLO, max_tokens=4)
        with pytest.raises(AnthropicBadRequest) as caught:
            await anthropic.messages.create(model="emulated", messages=HELLO, max_tokens=0)
        assert caught.value.body == {
            "type": "error",
            "error": {
                "type": "BadRequestError",
                "message": "max_tokens: Input should be greater than or equal to 1",
            },
        }

    with_anthropic(test)
