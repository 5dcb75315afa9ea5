"""The API: completions and chats, streamed and whole, and the answers to bad requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.emulator.served import GPU, Client, cluster, until

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello there"}]


def served(test: Any, count: int = 1, **settings: Any) -> None:
    """Run a test with a client of engines."""

    async def run() -> None:
        async with cluster(count, **settings) as client:
            await test(client)

    asyncio.run(run())


def test_a_stream_has_a_chunk_a_token() -> None:
    async def test(client: Client) -> None:
        reply = await client.complete(max_tokens=5, stream=True)
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.done
        assert len(reply.chunks) == 5
        assert len(reply.text.split()) == 5
        assert [chunk["choices"][0]["finish_reason"] for chunk in reply.chunks] == [None] * 4 + ["length"]
        assert len({chunk["id"] for chunk in reply.chunks}) == 1
        assert {chunk["object"] for chunk in reply.chunks} == {"text_completion"}
        assert not any("usage" in chunk for chunk in reply.chunks)
        whole = await client.complete(max_tokens=5)
        assert whole.text == reply.text
        usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
        assert whole.body["usage"] == usage | {"prompt_tokens_details": {"cached_tokens": 96}}

    served(test)


def test_usage_in_a_stream() -> None:
    async def test(client: Client) -> None:
        options = {"include_usage": True}
        reply = await client.complete(max_tokens=3, stream=True, stream_options=options)
        assert [chunk["usage"] for chunk in reply.chunks[:-1]] == [None] * 3
        assert reply.chunks[-1]["choices"] == []
        assert reply.chunks[-1]["usage"] == {"prompt_tokens": 100, "total_tokens": 103, "completion_tokens": 3}
        options = {"include_usage": True, "continuous_usage_stats": True}
        reply = await client.complete(max_tokens=3, stream=True, stream_options=options)
        assert [chunk["usage"]["completion_tokens"] for chunk in reply.chunks] == [1, 2, 3, 3]
        alone = {"continuous_usage_stats": True}  # counts only beside include_usage, as in vLLM
        reply = await client.complete(max_tokens=3, stream=True, stream_options=alone)
        assert (len(reply.chunks), reply.done) == (3, True)
        assert not any("usage" in chunk for chunk in reply.chunks)

    served(test)


def test_a_chat_stream_begins_with_the_role() -> None:
    async def test(client: Client) -> None:
        body = {"messages": HELLO, "max_completion_tokens": 3, "ignore_eos": True}
        options = {"include_usage": True, "continuous_usage_stats": True}
        reply = await client.post(CHAT, body | {"stream": True, "stream_options": options})
        deltas = [chunk["choices"][0]["delta"] for chunk in reply.chunks[:-1]]
        assert deltas[0] == {"role": "assistant", "content": ""}
        assert len("".join(delta["content"] for delta in deltas).split()) == 3
        assert [chunk["usage"]["completion_tokens"] for chunk in reply.chunks] == [0, 1, 2, 3, 3]
        assert {chunk["object"] for chunk in reply.chunks} == {"chat.completion.chunk"}
        whole = await client.post(CHAT, body)
        assert whole.body["choices"][0]["message"]["content"] == "".join(delta["content"] for delta in deltas)
        assert whole.body["choices"][0]["finish_reason"] == "length"

    served(test)


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("four", 1), ("fours", 2), ("äöü", 2), ([7, 8, 9], 3), (["one prompt"], 3), ([[1, 2]], 2)],
)
def test_prompt_tokens(prompt: Any, tokens: int) -> None:
    async def test(client: Client) -> None:
        reply = await client.complete(prompt=prompt, max_tokens=1)
        assert reply.body["usage"]["prompt_tokens"] == tokens

    served(test)


def test_content_parts_of_a_chat() -> None:
    async def test(client: Client) -> None:
        parts = [{"type": "text", "text": "hello there"}]
        for content in ("hello there", parts):
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
            reply = await client.post(CHAT, body)
            assert reply.body["usage"]["prompt_tokens"] == 4  # "user\nhello there"

    served(test)


def test_answers_stop_by_themselves() -> None:
    async def test(client: Client) -> None:
        prompts = [[k, k] for k in range(400)]
        replies = await asyncio.gather(*(client.complete(prompt=p, max_tokens=1000, ignore_eos=False) for p in prompts))
        lengths = [reply.body["usage"]["completion_tokens"] for reply in replies]
        assert 8.5 < sum(lengths) / 400 < 11.5  # mean 10, three standard errors
        assert {reply.body["choices"][0]["finish_reason"] for reply in replies} == {"stop"}
        assert max(lengths) > 30
        long = lengths.index(max(lengths))
        same = await client.complete(prompt=prompts[long], max_tokens=1000, ignore_eos=False)
        assert same.body["usage"]["completion_tokens"] == lengths[long]
        cut = await client.complete(prompt=prompts[long], max_tokens=20, ignore_eos=False)
        assert cut.body["choices"][0]["finish_reason"] == "length"
        short = lengths.index(min(lengths))
        longer = await client.complete(prompt=prompts[short], max_tokens=1000, ignore_eos=False, min_tokens=50)
        assert longer.body["usage"]["completion_tokens"] == 50

    served(test, gpu=GPU.model_copy(update={"batch_size": 64}), output_tokens=10.0, speed=1000.0)


def test_completions_are_of_16_tokens_by_default() -> None:
    async def test(client: Client) -> None:
        reply = await client.post("/v1/completions", {"prompt": "a b c", "ignore_eos": True})
        assert reply.body["usage"]["completion_tokens"] == 16

    served(test)


def test_the_request_id_is_that_of_the_header() -> None:
    async def test(client: Client) -> None:
        headers = {"X-Request-Id": "mine"}
        assert (await client.complete(headers=headers)).body["id"] == "cmpl-mine"
        body = {"messages": HELLO, "max_tokens": 1}
        assert (await client.post(CHAT, body, headers=headers)).body["id"] == "chatcmpl-mine"
        assert (await client.complete()).body["id"] != (await client.complete()).body["id"]

    served(test)


@pytest.mark.parametrize("stream", [False, True])
def test_the_load_comes_back_where_it_is_asked_for(stream: bool) -> None:
    async def test(client: Client) -> None:
        headers = {"endpoint-load-metrics-format": "JSON"}
        reply = await client.complete(headers=headers, stream=stream)
        load = reply.headers["endpoint-load-metrics"]
        assert load.startswith('JSON {"named_metrics": {"kv_cache_usage_perc": ')
        text = await client.complete(headers={"endpoint-load-metrics-format": "TEXT"})
        assert text.headers["endpoint-load-metrics"].startswith("TEXT named_metrics.kv_cache_usage_perc=")
        assert "endpoint-load-metrics" not in (await client.complete()).headers

    served(test)


def test_the_other_pages() -> None:
    async def test(client: Client) -> None:
        models = await client.text("/v1/models")
        assert '"id":"tiny"' in models
        assert '"max_model_len":4096' in models
        assert await client.text("/health") == ""
        assert await client.text("/ping") == ""
        for path in ("/v1/models", "/health", "/ping", "/version", "/metrics"):
            async with client.session.head(client.servers[0].url + path) as answer:
                assert (answer.status, await answer.read()) == (200, b"")
        assert "version" in await client.text("/version")

    served(test, model="tiny", max_model_len=4096)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "other"}, 404, "The model `other` does not exist."),
        ({"max_tokens": 101}, 400, "maximum context length is 200 tokens"),
        ({"prompt": [1] * 200}, 400, "maximum context length is 200 tokens"),
        ({"max_tokens": 0}, 400, "max_tokens: Input should be greater than or equal to 1"),
        ({"max_tokens": "x"}, 400, "max_tokens: Input should be a valid integer"),
        ({"prompt": ""}, 400, "must not be empty"),
        ({"prompt": []}, 400, "must not be empty"),
        ({"prompt": ["a", ""]}, 400, "must not be empty"),
        ({"prompt": ["a", [1]]}, 400, "prompt"),
        ({"prompt": [[1], [1] * 200]}, 400, "maximum context length is 200 tokens"),
        ({"prompt": {"a": 1}}, 400, "prompt"),
        ({"n": 0}, 400, "n: Input should be greater than or equal to 1"),
        ({"echo": True}, 400, "does not repeat prompts"),
        ({"stream_options": {"include_usage": True}}, 400, "only be defined when `stream=True`"),
    ],
)
def test_bad_requests(body: dict[str, Any], status: int, said: str) -> None:
    async def test(client: Client) -> None:
        reply = await client.complete(**body)
        assert reply.status == status
        error = reply.body["error"]
        assert said in error["message"]
        assert error["code"] == status
        assert error["type"] == ("NotFoundError" if status == 404 else "BadRequestError")
        assert await client.metric("num_requests_running") == 0

    served(test, max_model_len=200)


@pytest.mark.parametrize("data", ["", "{", "[]", '{"prompt": "a", "max_tokens": 1e99}'])
def test_bodies_that_are_none(data: str) -> None:
    async def test(client: Client) -> None:
        url = client.servers[0].url + "/v1/completions"
        async with client.session.post(url, data=data) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["type"] == "BadRequestError"

    served(test)


def test_unknown_pages_and_wrong_methods() -> None:
    async def test(client: Client) -> None:
        assert (await client.post("/v1/nothing", {})).status == 404
        async with client.session.get(client.servers[0].url + "/v1/completions") as answer:
            assert answer.status == 405

    served(test)


def test_a_full_queue_refuses() -> None:
    async def test(client: Client) -> None:
        tasks = [asyncio.ensure_future(client.complete(prompt=[k] * 60_000)) for k in range(6)]
        await until(lambda: sum(task.done() for task in tasks) == 3)
        refused = [task.result() for task in tasks if task.done()]
        assert [(reply.status, "retry-after" in reply.headers) for reply in refused] == [(503, False)] * 3
        state = client.servers[0].state
        assert (state["running"], state["waiting"]) == (1, 2)
        assert await client.metric("admission_rejections_total") == 3
        for task in tasks:
            task.cancel()

    served(test, max_queued=2, speed=1.0)


def test_a_token_takes_its_time() -> None:
    async def test(client: Client) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await client.complete(prompt=[1] * 64, max_tokens=10)
        assert loop.time() - began >= (0.0264 + 10 * 0.02) / 2.0

    served(test, speed=2.0)
