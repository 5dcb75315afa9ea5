import itertools
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.gateway.engines.sse import (
    TokenCounter,
    UsageDropper,
    error_at_start,
    stated_prompt,
    stated_tokens,
    token_counter,
)


def event(data: dict | bytes, spaced: bool = False) -> bytes:
    text = data if isinstance(data, bytes) else json.dumps(data).encode() if spaced else orjson.dumps(data)
    return b"data: " + text + b"\n\n"


def completion(text: str, **more: object) -> dict:
    return {"choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": None}], **more}


def chat(delta: dict, **more: object) -> dict:
    return {"choices": [{"index": 0, "delta": delta, "logprobs": {"content": []}, "finish_reason": None}], **more}


def counted(stream: bytes, cuts: list[int]) -> tuple[int, bool, bool, bool]:
    counter = TokenCounter()
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(places):
        counter.feed(stream[start:end])
    return counter.tokens, counter.first_token, counter.finished, counter.failed


nasty = st.sampled_from(['"content":"x"', '"text": "y"', "data: [DONE]\n\n", '{"error":1}', '"completion_tokens":7'])
texts = st.text(max_size=8) | nasty


@given(
    texts=st.lists(texts, max_size=8),
    chats=st.booleans(),
    spaced=st.booleans(),
    stated=st.none() | st.integers(0, 99),
    done=st.booleans(),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_a_stream_counts_the_same_however_it_is_cut(texts, chats, spaced, stated, done, cuts):
    stream = event(chat({"role": "assistant", "content": ""}), spaced) if chats else b": a comment\n\n"
    for text in texts:
        stream += event(chat({"content": text}) if chats else completion(text), spaced)
    if stated is not None:
        stream += event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": stated}}, spaced)
    stream += b"data: [DONE]\n\n" if done else b""
    tokens = len(texts) if stated is None else stated
    assert counted(stream, cuts) == (tokens, tokens > 0, done, False)


@pytest.mark.parametrize(
    ("data", "tokens"),
    [
        (chat({"role": "assistant", "content": None}), 0),
        (chat({"content": " word"}), 1),
        (chat({"reasoning": "hm"}), 1),
        (chat({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}), 1),
        (chat({"role": "assistant", "content": "", "tool_calls": []}), 0),
        (chat({"content": ""}), 1),
        (completion(""), 1),
        ({"choices": [{"finish_reason": None, "index": 0, "delta": {"content": ""}}]}, 1),
        ({"choices": [{"finish_reason": "stop", "index": 0, "delta": {}}]}, 0),
        (completion("", token_ids=[17]), 1),
        ({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}, 0),
        (completion("a", usage={"completion_tokens": 5, "completion_tokens_details": None}), 5),
    ],
)
def test_what_is_a_token(data, tokens):
    assert counted(event(data), [])[0] == tokens


def test_an_engine_that_states_the_number_in_every_event_is_believed():
    stream = b"".join(event(completion("ab", usage={"completion_tokens": n})) for n in (2, 4, 7))
    assert counted(stream, [])[0] == 7


def test_an_error_in_the_stream_is_seen():
    error = event({"error": {"message": "out of memory", "code": 500}})
    assert counted(event(completion("a")) + error, [11]) == (1, True, False, True)
    assert orjson.loads(error_at_start(error) or b"")["error"]["code"] == 500
    assert error_at_start(event(completion("a")) + error) is None


def test_the_tokens_that_a_whole_answer_states():
    assert stated_tokens(orjson.dumps(completion("x", usage={"prompt_tokens": 9, "completion_tokens": 4}))) == 4
    assert stated_tokens(b"{}") is None


EVENTS = (
    b'data: {"choices":[{"text":" one"}]}\n\n',
    b'data: {"choices": [{"text":" \\"choices\\": []"}]}\n\n',
    b'data: {"choices":[],"usage":{"completion_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
)


@given(st.lists(st.integers(0, sum(map(len, EVENTS))), max_size=6))
def test_usage_that_nobody_asked_for_is_dropped_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    stream = b"".join(EVENTS)
    edges = sorted({0, *cuts, len(stream)})
    dropper = UsageDropper()
    passed = b"".join(dropper.feed(stream[a:b]) for a, b in itertools.pairwise(edges))
    assert passed + dropper.rest == b"".join(EVENTS[:2] + EVENTS[3:])


def several(*texts: str | None) -> dict:
    """An event with several choices; None for one that has no text and has ended."""
    ended = {"finish_reason": "stop", "text": ""}
    choices = [ended if text is None else {"text": text, "finish_reason": None} for text in texts]
    return {"choices": [{"index": k, **choice} for k, choice in enumerate(choices)]}


@pytest.mark.parametrize(
    ("data", "tokens"),
    [
        (several("a", "b", "c"), 3),
        (several("a", None), 1),
        (several("", "b"), 2),
        (several(None, None), 0),
        ({"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}] * 2}, 0),
        ({"choices": [{"delta": {"content": "a"}, "finish_reason": None}, {"delta": {}, "finish_reason": "stop"}]}, 1),
    ],
)
def test_each_choice_of_an_event_is_a_token(data, tokens):
    assert counted(event(data), [])[0] == tokens


def test_what_each_choice_states_is_not_what_all_of_them_have():
    stream = b"".join(event(completion("a", usage={"completion_tokens": n})) for n in (1, 1, 2, 2, 3, 3))
    assert counted(stream, [])[0] == 3, "of one choice"
    assert counted(stream + event({"choices": [], "usage": {"completion_tokens": 6}}), [])[0] == 6


def named(*events: tuple[str, dict], ending: bytes = b"\n", lines: bool = True) -> bytes:
    told = b""
    for name, data in events:
        told += (b"event: " + name.encode() + ending if lines else b"") + b"data: "
        told += orjson.dumps({"type": name, **data}) + ending * 2
    return told


USAGE_5 = {"response": {"output": [{"content": "event: error"}], "usage": {"input_tokens": 9, "output_tokens": 5}}}
RESPONSE_STREAM = (
    ("response.created", {"response": {"tools": [{"type": "response.completed", "output_tokens": 99}]}}),
    *[("response.output_text.delta", {"delta": text}) for text in ("a", "event: error\ndata: {}\n\n", "")],
    ("response.function_call_arguments.delta", {"delta": "{"}),
    ("response.output_item.done", {"item": {"type": "message"}}),
)
MESSAGE_STREAM = (
    ("message_start", {"message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}),
    ("ping", {}),
    *[("content_block_delta", {"delta": {"type": "text_delta", "text": text}}) for text in "abc"],
    ("content_block_delta", {"delta": {"type": "signature_delta", "signature": "x"}}),
)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize(
    ("path", "events", "end", "so_far", "tokens"),
    [
        ("/v1/responses", RESPONSE_STREAM, (("response.completed", USAGE_5),), 4, 5),
        ("/v1/responses", RESPONSE_STREAM, (("response.incomplete", {"response": {}}),), 4, 4),
        (
            "/v1/messages",
            MESSAGE_STREAM,
            (("message_delta", {"usage": {"output_tokens": 7}}), ("message_stop", {})),
            3,
            7,
        ),
    ],
)
def test_streams_of_named_events_are_counted(path, events, end, so_far, tokens, lines, ending):
    counter = token_counter(path)
    start = named(*events, ending=ending, lines=lines)
    for k in range(0, len(start), 7):
        counter.feed(start[k : k + 7])
    assert (counter.tokens, counter.finished, counter.failed) == (so_far, False, False)
    counter.feed(named(*end, ending=ending, lines=lines))
    assert (counter.tokens, counter.finished, counter.failed) == (tokens, True, False)


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/responses", "error"), ("/v1/responses", "response.failed"), ("/v1/messages", "error")]
)
def test_streams_of_named_events_that_fail(path, name):
    counter = token_counter(path)
    counter.feed(named((name, {"error": {"message": "oops"}})))
    assert (counter.finished, counter.failed) == (False, True)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_stream_that_begins_with_a_named_error(ending):
    told = orjson.loads(error_at_start(named(("error", {"error": {"message": "no"}}), ending=ending)) or b"")
    assert told["error"]["message"] == "no"
    assert error_at_start(named(("message_start", {"message": {}}), ending=ending)) is None


def test_the_last_number_of_a_whole_answer_counts():
    said = {"content": [{"input": {"output_tokens": 99}}], "usage": {"input_tokens": 1, "output_tokens": 4}}
    assert stated_tokens(orjson.dumps(said)) == 4


@given(st.lists(st.integers(0, 2 * sum(map(len, EVENTS))), max_size=6), st.sampled_from([b"\r\n", b"\r"]))
def test_usage_is_dropped_whatever_ends_the_lines(cuts: list[int], ending: bytes) -> None:
    events = [event.replace(b"\n", ending) for event in EVENTS]
    stream = b"".join(events)
    edges = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    dropper = UsageDropper()
    passed = b"".join(dropper.feed(stream[a:b]) for a, b in itertools.pairwise(edges))
    assert passed + dropper.rest == b"".join(events[:2] + events[3:])


@pytest.mark.parametrize(
    ("usage", "stated"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 2}, (7, None)),
        ({"prompt_tokens": 70, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 48}}, (70, 48)),
        ({"input_tokens": 70, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1}, (70, 0)),
        (None, (None, None)),
    ],
)
def test_the_prompt_that_a_usage_states(usage: dict[str, Any] | None, stated: tuple[int | None, int | None]) -> None:
    body = json.dumps(
        {"choices": [{"message": {"content": '"usage": {"prompt_tokens": 9}'}}], "usage": usage, "more": {}}
    )
    assert stated_prompt(body.encode()) == stated
