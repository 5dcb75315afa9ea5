"""What answers say is known, streamed or in one piece, wherever that is all they do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fluidgate.gateway.engines.answers import Said, gathered, said_in
from fluidgate.gateway.engines.sse import token_counter

CHAT, COMPLETIONS, RESPONSES, MESSAGES = (
    f"/v1/{name}" for name in ("chat/completions", "completions", "responses", "messages")
)


def streamed(path: str, events: list[Any], *, ids: bool = False, choices: int = 1) -> tuple[Said, ...]:
    """What a stream of these events says, cut where it hurts."""
    counter = token_counter(path)
    counter.said = gathered(path, ids=ids, choices=choices)
    for each in events:
        name = f"event: {each['type']}\n" if "type" in each else ""
        event = f"{name}data: {json.dumps(each)}\n\n".encode()
        counter.feed(event[:40])
        counter.feed(event[40:])
    return counter.said.said


def chat(delta: dict[str, Any], index: int = 0, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": None}], **more}


@pytest.mark.parametrize(
    ("deltas", "said"),
    [
        ([{"content": "one"}, {"content": ' "two"\n'}, {"content": "\\ é\u2028🙂"}], ('one "two"\n\\ é\u2028🙂',)),
        ([{"content": "one"}, {"reasoning_content": None, "tool_calls": [], "content": " two"}], ("one two",)),
        ([{"reasoning_content": "hm"}, {"content": "one"}], ()),
        ([{"content": "one"}, {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}], ()),
    ],
)
@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("choices", [1, 2])
def test_what_a_chat_says(deltas: list[dict[str, Any]], said: tuple[str, ...], usage: bool, choices: int) -> None:
    more = {"usage": {"prompt_tokens": 3, "completion_tokens": 1}} if usage else {}
    events = [chat(delta, **more) for delta in [{"role": "assistant", "content": ""}, *deltas]]
    assert streamed(CHAT, events, choices=choices) == said


def test_each_of_several_choices() -> None:
    events = [
        chat({"content": "a"}, 0),
        chat({"content": "x"}, 1),
        {"choices": [*chat({"content": "b"}, 0)["choices"], *chat({"content": "y"}, 1)["choices"]]},
        chat({"content": "?", "reasoning": "why"}, 2),
        *(chat({"content": "far"}, index) for index in range(3, 12)),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}},
    ]
    assert streamed(CHAT, events, choices=12) == ("ab", "xy", *["far"] * 5), "of the first eight, those that only speak"
    body = {"choices": [{"index": k, "message": {"content": word}} for k, word in enumerate(("a", "b"))]}
    assert said_in(CHAT, json.dumps(body).encode(), ids=False) == ("a", "b")


@pytest.mark.parametrize("choices", [1, 2])
def test_token_ids_where_the_engine_tells_them(choices: int) -> None:
    events = [
        {"choices": [{"index": 0, "text": "a b", "token_ids": [5, 6], "prompt_token_ids": [1, 2]}]},
        {"choices": [{"index": 0, "text": " c", "token_ids": [7], "finish_reason": "length"}]},
    ]
    assert streamed(COMPLETIONS, events, ids=True, choices=choices) == ([5, 6, 7],)
    assert streamed(COMPLETIONS, events, choices=choices) == ("a b c",)
    body = {"choices": [{"index": 0, "text": "a", "token_ids": [5]}]}
    assert said_in(COMPLETIONS, json.dumps(body).encode(), ids=True) == ([5],)
    del body["choices"][0]["token_ids"]
    assert said_in(COMPLETIONS, json.dumps(body).encode(), ids=True) == ()


MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": 'a "b"'}]}


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([MESSAGE], ('a "b"',)),
        ([{"type": "reasoning", "summary": []}, MESSAGE], ()),
        ([{"type": "function_call", "name": "f", "arguments": "{}"}], ()),
        ([MESSAGE | {"content": [{"type": "refusal", "refusal": "no"}]}], ()),
        ([], ()),
    ],
)
def test_what_a_response_says(items: list[Any], said: tuple[str, ...]) -> None:
    response = {"output": items, "usage": {"input_tokens": 3, "output_tokens": 2}, "text": {"format": {"type": "text"}}}
    assert said_in(RESPONSES, json.dumps(response).encode(), ids=False) == said
    events = [
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.completed", "response": response},
    ]
    assert streamed(RESPONSES, events) == said
    assert streamed(RESPONSES, events[:1]) == ()


def test_what_a_message_says() -> None:
    def delta(**what: Any) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": 0, "delta": what}

    spoken = [delta(type="text_delta", text="a "), delta(type="text_delta", text="b")]
    assert streamed(MESSAGES, spoken) == ("a b",)
    assert streamed(MESSAGES, [delta(type="thinking_delta", thinking="hm"), *spoken]) == ()
    assert streamed(MESSAGES, [*spoken, delta(type="input_json_delta", partial_json="{}")]) == ()
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert said_in(MESSAGES, json.dumps({"content": parts}).encode(), ids=False) == ("a b",)
    parts.append({"type": "tool_use", "name": "f"})
    assert said_in(MESSAGES, json.dumps({"content": parts}).encode(), ids=False) == ()


def test_what_a_chat_says_in_one_piece() -> None:
    def said(**message: Any) -> tuple[Said, ...]:
        body = {"choices": [{"index": 0, "message": {"role": "assistant", **message}}]}
        return said_in(CHAT, json.dumps(body).encode(), ids=False)

    assert said(content='a "quoted" \\ word') == ('a "quoted" \\ word',)
    assert said(content="a", tool_calls=[{"function": {"name": "f", "arguments": '{"content": "b"}'}}]) == ()
    assert said(content=None) == ()
    assert said_in(CHAT, b"no json", ids=False) == ()


@pytest.mark.parametrize("choices", [1, 2])
def test_an_answer_too_long_is_not_kept(choices: int) -> None:
    assert streamed(CHAT, [chat({"content": "x" * 1000})] * 1100, choices=choices) == ()
    assert said_in(CHAT, json.dumps(chat({"content": "x" * (1 << 20)})).encode(), ids=False) == ()
