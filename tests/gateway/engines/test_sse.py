import itertools
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.gateway.engines.sse import TokenCounter, UsageDropper, error_at_start, stated_tokens


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
