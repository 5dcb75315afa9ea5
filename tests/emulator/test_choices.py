"""Several prompts in a request, several choices of a prompt; what is no completion; adapters."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.emulator.served import Client, until
from tests.emulator.test_api import CHAT, HELLO, served


def texts(chunks: list[dict[str, Any]], choices: int) -> list[str]:
    """What a stream wrote into each choice."""
    found = [""] * choices
    for chunk in chunks:
        for choice in chunk["choices"]:
            found[choice["index"]] += choice["text"]
    return found


@pytest.mark.parametrize("prompts", [["one prompt", "another one"], [[1] * 3, [2] * 3]])
def test_prompts_and_choices(prompts: Any) -> None:
    async def test(client: Client) -> None:
        whole = await client.complete(prompt=prompts, n=2, best_of=7, max_tokens=3)
        choices = whole.body["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
        assert len({choice["text"] for choice in choices}) == 4
        alone = [await client.complete(prompt=prompt, max_tokens=3) for prompt in prompts]
        assert [choices[0]["text"], choices[2]["text"]] == [each.text for each in alone]
        read = sum(each.body["usage"]["prompt_tokens"] for each in alone)
        usage = {"prompt_tokens": read, "completion_tokens": 12, "total_tokens": read + 12}
        assert whole.body["usage"] == usage
        options = {"include_usage": True, "continuous_usage_stats": True}
        stream = await client.complete(prompt=prompts, n=2, max_tokens=3, stream=True, stream_options=options)
        assert texts(stream.chunks, 4) == [choice["text"] for choice in choices]
        assert stream.chunks[-1]["usage"] == usage
        ends = [c["index"] for chunk in stream.chunks for c in chunk["choices"] if c["finish_reason"] == "length"]
        assert sorted(ends) == [0, 1, 2, 3]
        first = stream.chunks[0]
        assert first["usage"]["completion_tokens"] == 1
        assert (
            first["usage"]["prompt_tokens"] == alone[first["choices"][0]["index"] // 2].body["usage"]["prompt_tokens"]
        )

    served(test)


def test_a_chat_stream_of_choices_begins_with_their_roles() -> None:
    async def test(client: Client) -> None:
        body = {"messages": HELLO, "max_tokens": 2, "n": 2, "ignore_eos": True, "stream": True}
        reply = await client.post(CHAT, body)
        opened = [chunk["choices"][0] for chunk in reply.chunks[:2]]
        assert [choice["index"] for choice in opened] == [0, 1]
        assert [choice["delta"] for choice in opened] == [{"role": "assistant", "content": ""}] * 2
        assert len(reply.chunks) == 6

    served(test)


def test_choices_differ_in_length() -> None:
    async def test(client: Client) -> None:
        reply = await client.complete(prompt=[7], n=20, max_tokens=500, ignore_eos=False)
        lengths = [len(choice["text"].split()) for choice in reply.body["choices"]]
        assert len(set(lengths)) > 5
        assert reply.body["usage"]["completion_tokens"] == sum(lengths)
        assert {choice["finish_reason"] for choice in reply.body["choices"]} == {"stop"}

    served(test, output_tokens=10.0, speed=500.0)


def test_each_choice_takes_a_slot_and_the_prompt_is_read_once() -> None:
    async def test(client: Client) -> None:
        server = client.servers[0]
        task = asyncio.ensure_future(client.complete(prompt=[1] * 100, n=6, max_tokens=50))
        await until(lambda: (server.state["running"], server.state["waiting"]) == (4, 2))
        reply = await task
        assert len(reply.body["choices"]) == 6
        page = await client.text("/metrics")
        assert 'source="local_compute"} 120' in page  # 100, and five times the last block of 4
        assert 'source="local_cache_hit"} 480' in page

    served(test, speed=5.0)


def test_a_client_that_leaves_aborts_all_choices() -> None:
    async def test(client: Client) -> None:
        server = client.servers[0]
        task = asyncio.ensure_future(client.complete(prompt=[[1], [2]], n=3, max_tokens=100_000, stream=True))
        await until(lambda: (server.state["running"], server.state["waiting"]) == (4, 2))
        task.cancel()
        await until(lambda: (server.state["running"], server.state["waiting"]) == (0, 0))
        assert server.engine.metrics.ends["abort"] == 6
        assert server.state["kv_cache_usage"] == 0.0

    served(test)


def test_choices_count_in_a_queue_that_is_full() -> None:
    async def test(client: Client) -> None:
        assert (await client.complete(n=4)).status == 503
        assert (await client.complete(n=3)).status == 200

    served(test, max_queued=3)


def test_the_connection_dies_after_tokens_of_any_choice() -> None:
    async def test(client: Client) -> None:
        reply = await client.complete(n=3, max_tokens=100_000, stream=True, headers={"x-fluidgate-fault": "die=4"})
        assert reply.cut
        assert len(reply.chunks) == 4

    served(test, speed=2.0)


def test_an_embedding_takes_a_prefill_only() -> None:
    async def test(client: Client) -> None:
        reply = await client.post("/v1/embeddings", {"input": [[1] * 100, [2] * 30], "model": "emulated"})
        assert [len(each["embedding"]) for each in reply.body["data"]] == [64, 64]
        assert reply.body["usage"] == {"prompt_tokens": 130, "total_tokens": 130, "completion_tokens": 0}
        state = client.servers[0].state
        assert state["iterations"] == 3  # chunks of 64, 36 and 30
        assert state["solo_decode_seconds"] == state["kv_cache_usage"] == 0.0
        assert [each.finish for each in client.servers[0].engine.served] == ["stop", "stop"]
        assert await client.metric("generation_tokens_total") == 0
        again = await client.post("/v1/embeddings", {"input": [2] * 30})
        assert again.body["data"][0]["embedding"] == reply.body["data"][1]["embedding"]
        for bad in ({"input": []}, {"input": [1] * 201}, {"input": "a", "dimensions": 3}, {"input": "a", "model": "x"}):
            assert (await client.post("/v1/embeddings", bad)).status in (400, 404)
        assert (await client.post("/v1/embeddings", {"input": [1] * 200})).status == 200

    served(test, max_model_len=200)


@pytest.mark.parametrize("text", ["hello there", "äöü 😀 of\x00 bytes", "a"])
def test_tokens_there_and_back(text: str) -> None:
    async def test(client: Client) -> None:
        there = (await client.post("/tokenize", {"model": "emulated", "prompt": text})).body
        counted = (await client.complete(prompt=text, max_tokens=1)).body["usage"]["prompt_tokens"]
        assert there["count"] == len(there["tokens"]) == counted
        assert (there["max_model_len"], there["token_strs"]) == (131_072, None)
        back = await client.post("/detokenize", {"tokens": there["tokens"]})
        assert back.body == {"prompt": text}

    served(test)


def test_tokens_of_a_chat_and_bad_tokens() -> None:
    async def test(client: Client) -> None:
        chat = await client.post("/tokenize", {"messages": HELLO, "return_token_strs": True})
        assert "".join(chat.body["token_strs"]) == "user\nhello there"
        assert (await client.post("/detokenize", {"tokens": [7]})).body == {"prompt": " 7"}
        assert (await client.post("/tokenize", {})).status == 400
        assert (await client.post("/tokenize", {"prompt": "a", "model": "other"})).status == 404
        assert (await client.post("/detokenize", {"tokens": [-1]})).status == 400

    served(test)


def test_adapters() -> None:
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"

    async def said(client: Client, path: str, **body: str) -> tuple[int, str]:
        async with client.session.post(client.servers[0].url + path, json=body) as answer:
            return answer.status, await answer.text()

    async def test(client: Client) -> None:
        assert (await client.complete(model="sql")).status == 404
        loaded = await said(client, load, lora_name="sql", lora_path="/adapters/sql")
        assert loaded == (200, "Success: LoRA adapter 'sql' added successfully.")
        async with client.session.get(client.servers[0].url + "/v1/models") as answer:
            base, adapter = (await answer.json())["data"]
        assert (base["id"], base["parent"]) == ("emulated", None)
        assert (adapter["id"], adapter["parent"], adapter["root"]) == ("sql", "emulated", "/adapters/sql")
        assert '"parent":"emulated"' in await client.text("/v1/models/sql")
        mine, plain = await client.complete(model="sql"), await client.complete(model="emulated")
        assert (mine.body["model"], plain.body["model"]) == ("sql", "emulated")
        assert mine.text != plain.text
        assert await client.metric("prefix_cache_hits_total") == 0  # its KV is another
        assert (await said(client, load, lora_name="sql", lora_path="/x"))[0] == 400
        assert (await said(client, load, lora_name="", lora_path="/x"))[0] == 400
        gone = await said(client, unload, lora_name="sql")
        assert gone == (200, "Success: LoRA adapter 'sql' removed successfully.")
        assert (await said(client, unload, lora_name="sql"))[0] == 404
        assert (await client.complete(model="sql")).status == 404

    served(test)
