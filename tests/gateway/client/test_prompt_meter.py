"""Everything that a request holds as prompt is counted, and nothing that takes long is counted on the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluidgate.gateway.client import json_body, prompt_meter
from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.completion_request import CHAT, COMPLETIONS, CompletionRequest
from fluidgate.gateway.client.end_points import Prompt
from fluidgate.gateway.client.json_body import parsed_object
from fluidgate.gateway.client.prompt_meter import PromptMeter
from tests.gateway.asynchronous import asynchronous
from tests.gateway.served import live_gateway

METER = PromptMeter(4.0, media={"image": 1000, "audio": 300, "video": 5000, "file": 70})
LONG = "abcd" * 1000
PNG = {"url": "data:image/png;base64," + "A" * 40_000}


def message(**keys: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, **keys}]}


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": LONG}}
HOLDS: dict[str, tuple[Prompt, dict[str, Any]]] = {
    "content": ("chat", message(content=LONG)),
    "a part": ("chat", message(content=[{"type": "text", "text": LONG}])),
    "a part of an unknown type": ("chat", message(content=[{"type": "novel", "words": LONG}])),
    "a part that is a text": ("chat", message(content=[LONG])),
    "a name": ("chat", message(name=LONG)),
    "a role": ("chat", message(role=LONG)),
    "thoughts": ("chat", message(reasoning=LONG)),
    "thoughts by another name": ("chat", message(reasoning_content=LONG)),
    "a refusal": ("chat", message(refusal=LONG)),
    "arguments": ("chat", message(tool_calls=[CALL])),
    "arguments that are an object": ("chat", message(tool_calls=[CALL | {"function": {"arguments": {"a": LONG}}}])),
    "a key of arguments": ("chat", message(tool_calls=[CALL | {"function": {"arguments": {LONG: 1}}}])),
    "a function call": ("chat", message(function_call={"name": "f", "arguments": LONG})),
    "a key of nobody": ("chat", message(whatever=[[{"deep": LONG}]])),
    "tools": ("chat", message() | {"tools": [{"type": "function", "function": {"description": LONG}}]}),
    "functions": ("chat", message() | {"functions": [{"description": LONG}]}),
    "documents": ("chat", message() | {"documents": [{"text": LONG}]}),
    "a template": ("chat", message() | {"chat_template": LONG}),
    "what a template is given": ("chat", message() | {"chat_template_kwargs": {"a": LONG}}),
    "a prompt": ("completion", {"prompt": LONG}),
    "several prompts": ("completion", {"prompt": [LONG[:2000], LONG[2000:]]}),
    "token ids": ("completion", {"prompt": [1] * 1000}),
    "several prompts of token ids": ("completion", {"prompt": [[1] * 400, [2] * 600]}),
    "a suffix": ("completion", {"prompt": "a", "suffix": LONG}),
    "input": ("responses", {"input": LONG}),
    "items": ("responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": LONG}]}]}),
    "the output of a tool": ("responses", {"input": [{"type": "function_call_output", "output": LONG}]}),
    "instructions": ("responses", {"input": "a", "instructions": LONG}),
    "tools of responses": ("responses", {"input": "a", "tools": [{"description": LONG}]}),
    "system": ("messages", message() | {"system": LONG}),
    "parts of system": ("messages", message() | {"system": [{"type": "text", "text": LONG}]}),
    "the use of a tool": ("messages", message(content=[{"type": "tool_use", "input": {"a": LONG}}])),
    "the result of a tool": ("messages", message(content=[{"type": "tool_result", "content": LONG}])),
    "a document that is a text": (
        "messages",
        message(content=[{"type": "document", "source": {"type": "text", "data": LONG}}]),
    ),
    "something to embed": ("embeddings", {"input": [LONG]}),
    "messages to embed": ("embeddings", message(content=LONG)),
}


@pytest.mark.parametrize(("kind", "body"), HOLDS.values(), ids=HOLDS)
def test_everything_that_a_request_holds_counts(kind: Prompt, body: dict[str, Any]) -> None:
    assert METER.count(kind, body) == pytest.approx(1000, abs=25)


PARTS: dict[str, tuple[dict[str, Any], int]] = {
    "a picture": ({"type": "image_url", "image_url": PNG}, 1000),
    "a picture without a type": ({"image_url": PNG}, 1000),
    "a picture of responses": ({"type": "input_image", "image_url": PNG["url"]}, 1000),
    "a picture of messages": ({"type": "image", "source": {"type": "base64", "data": PNG["url"]}}, 1000),
    "a sound": ({"type": "input_audio", "input_audio": {"data": PNG["url"]}}, 300),
    "a film": ({"type": "video_url", "video_url": PNG}, 5000),
    "a file": ({"type": "input_file", "file_data": PNG["url"]}, 70),
    "a document": ({"type": "document", "source": {"type": "base64", "data": PNG["url"]}}, 70),
    "a picture that a tool returned": (
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "http://a"}}]},
        1000,
    ),
    "a text that calls itself a picture": ({"type": "image_url", "image_url": PNG, "text": LONG}, 2000),
}


@pytest.mark.parametrize(("part", "tokens"), PARTS.values(), ids=PARTS)
def test_pictures_and_their_like_count_what_the_file_says(part: dict[str, Any], tokens: int) -> None:
    kinds: tuple[Prompt, ...] = ("chat", "messages")
    for kind in kinds:
        assert METER.count(kind, {"messages": [{"role": "user", "content": [part]}]}) == 4 + tokens


def test_a_message_counts_four_beside_its_text() -> None:
    assert METER.count("chat", {"messages": [{"role": "user", "content": "abcd"}]}) == 5
    assert METER.count("chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": "abcd"}]}]}) == 5


@asynchronous
async def test_a_long_history_of_tools_is_refused_before_an_engine_reads_it(tmp_path: Path) -> None:
    async with live_gateway(tmp_path, more="[limits]\nmax_prompt_tokens = 100\n") as live:
        refused = await live.post(CHAT, **message(tool_calls=[CALL]))
        assert (refused.status, refused.json["error"]["code"]) == (400, "prompt_too_long")
        assert live.gateway.dispatcher.taken[0] == 0


def word_tokenizer(path: Path) -> Path:
    """Counts a token for each word."""
    import tokenizers
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    words = tokenizers.Tokenizer(WordLevel({"a": 0, "?": 1}, unk_token="?"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(path))
    return path


def test_of_a_long_text_a_sample_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = PromptMeter(4.0, word_tokenizer(tmp_path / "tokenizer.json"))
    even, uneven = "ab cd " * 100_000, "a " * 150_000 + "abcdefg " * 37_500
    asked: list[int] = []
    tokenize = meter._tokenize
    assert tokenize is not None

    def counting(texts: Any) -> int:
        asked.append(sum(map(len, texts)))
        return tokenize(texts)

    monkeypatch.setattr(meter, "_tokenize", counting)
    assert meter.count("completion", {"prompt": even}) == pytest.approx(200_000, rel=0.01)
    assert meter.count("completion", {"prompt": uneven}) == pytest.approx(187_500, rel=0.05)
    many = {"messages": [{"role": "user", "content": "ab cd"}] * 30_000}
    assert meter.count("chat", many) == pytest.approx(30_000 * 6, rel=0.05)
    assert max(asked) <= prompt_meter.EXACT
    assert meter.count("chat", {"messages": [{"role": "user", "content": "ab cd"}] * 5000}) == 5000 * 6


@asynchronous
async def test_while_the_tokenizer_has_too_much_to_do_others_are_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what it has found so far: the work that clients can make is bounded."""
    meter = PromptMeter(4.0, word_tokenizer(tmp_path / "tokenizer.json"))
    for _ in range(60):
        meter.count("completion", {"prompt": "abcdefgh " * 1000})
    monkeypatch.setattr(prompt_meter, "MOST_UNDER_WAY", 5000)
    monkeypatch.setattr(meter, "_tokenize", lambda texts: pytest.fail("the tokenizer was asked"))
    assert await meter.measured("completion", {"prompt": "abcdefgh " * 2000}, 18_000) == pytest.approx(2000, rel=0.02)


@asynchronous
async def test_the_event_loop_goes_on_while_prompts_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer that takes as long as it likes: it is in another thread."""
    meter, here = PromptMeter(4.0), threading.get_ident()
    released, threads = threading.Event(), set()

    def slow(texts: Any) -> int:
        threads.add(threading.get_ident())
        assert released.wait(20.0)
        return 7

    monkeypatch.setattr(meter, "_tokenize", slow)
    counts = [asyncio.create_task(meter.measured("completion", {"prompt": "a" * 2000}, 2000)) for _ in range(4)]
    while len(threads) < prompt_meter.THREADS:
        await asyncio.sleep(0.001)
    assert not any(count.done() for count in counts)
    released.set()
    assert await asyncio.gather(*counts) == [7] * 4
    assert here not in threads


def test_a_tokenizer_lets_other_threads_run(tmp_path: Path) -> None:
    meter = PromptMeter(4.0, word_tokenizer(tmp_path / "tokenizer.json"))
    assert meter._tokenize is not None
    done, longest, last = threading.Event(), 0.0, time.perf_counter()
    worker = threading.Thread(target=lambda: (meter._tokenize(["ab " * 300_000]), done.set()))
    started = time.perf_counter()
    worker.start()
    while not done.is_set():
        time.sleep(0.001)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    worker.join()
    assert longest < 0.5 * (time.perf_counter() - started)


WIDE = {
    "lists": b"[]," * 1_300_000 + b"1",
    "objects": b'{"a":1},' * 500_000 + b"1",
    "deep": (b"[" * 200 + b"]" * 200 + b",") * 10_000 + b"1",
    "values": b"1," * 1_900_000 + b"1",
    "an open string": b"[]," * 700_000 + b'"' + b'[\\"' * 600_000,
}


@pytest.mark.parametrize("inner", WIDE.values(), ids=WIDE)
def test_what_would_take_long_to_be_parsed_is_refused_at_once(inner: bytes) -> None:
    started = time.process_time()
    with pytest.raises(ApiError, match="the body has more than"):
        parsed_object(b'{"model":"m","prompt":"a","x":[' + inner + b"]}")
    assert time.process_time() - started < 0.3


def test_within_strings_all_is_allowed() -> None:
    """A prompt may be code, or JSON: it is one value."""
    prompt = '{"a": [1, 2, "\\\\", {}]}, ' * 100_000
    body = orjson.dumps({"model": "m", "prompt": prompt, "more": ["[", "{", "\\"] * 100})
    assert body.count(b"[") > json_body.MOST_CONTAINERS
    assert parsed_object(body)["prompt"] == prompt
    most = b"[]," * (json_body.MOST_CONTAINERS - 10) + b"1"
    assert len(parsed_object(b'{"x":[' + most + b"]}")["x"]) == json_body.MOST_CONTAINERS - 9


@given(
    st.recursive(
        st.none() | st.text(alphabet='"\\\\[{,a'), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
@settings(max_examples=60, deadline=None)
def test_only_what_stands_outside_of_strings_counts(value: Any) -> None:
    outside = json_body.STRING.sub(b"", orjson.dumps(value))
    assert set(outside) <= set(b"[]{}:,nul")


@asynchronous
async def test_health_answers_while_long_prompts_are_counted(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(tmp_path / "tokenizer.json")
    async with live_gateway(tmp_path, more=f'[tokens]\ntokenizer = "{tokenizer}"\n') as live:
        long = {"prompt": "some words and more of them " * 100_000, "max_tokens": 1}
        longs = [asyncio.create_task(live.post(**long, user=str(k))) for k in range(3)]
        longest = 0.0
        while not all(each.done() for each in longs):
            started = time.perf_counter()
            assert (await live.get("/health")).status == 200
            longest = max(longest, time.perf_counter() - started)
        assert {(await each).status for each in longs} == {400}, "longer than the context"
        assert longest < 2.0


def test_what_is_counted_as_several() -> None:
    def of(**body: Any) -> CompletionRequest:
        return CompletionRequest.parsed(COMPLETIONS, orjson.dumps({"model": "m", **body}))

    assert [of(prompt=p).answers for p in ("a", [1, 2], ["a", "b"], [[1], [2], [3]])] == [1, 1, 2, 3]
    assert of(prompt=["a", "b"], n=3, best_of=5).answers == 10
    assert [of(prompt=p).longest_ids for p in ("a", ["a"], [1, 2], [[1], [2, 3, 4]])] == [None, None, 2, 3]
