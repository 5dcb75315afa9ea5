"""The leg that only reads a prompt: the same prompt, and nothing that one token could not meet."""

from __future__ import annotations

from typing import Any

import pytest

from fluidgate.gateway.engines import Call
from fluidgate.gateway.engines.prompts import prompt_only
from tests.gateway.asynchronous import asynchronous
from tests.gateway.client.test_end_points import HI
from tests.gateway.moody_engine import before_moody_engines

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
NAMED = {"type": "function", "function": {"name": "f"}}
PROMPT: dict[str, Any] = {
    "model": "m",
    "messages": HI,
    "tools": TOOLS,
    "documents": [{"text": "a"}],
    "chat_template_kwargs": {"thinking": False},
    "add_generation_prompt": True,
    "reasoning_effort": "low",
    "truncate_prompt_tokens": 100,
    "cache_salt": "s",
    "priority": 3,
}
ANSWER: dict[str, Any] = {
    "stop": ["a"],
    "stop_token_ids": [1],
    "response_format": {"type": "json_object"},
    "structured_outputs": {"choice": ["a"]},
    "guided_json": {},
    "guided_regex": "a+",
    "logprobs": True,
    "top_logprobs": 3,
    "min_tokens": 9,
    "echo": True,
    "return_token_ids": True,
    "stream_options": {"include_usage": True},
}


def test_what_the_answer_must_be_like_is_left_out_and_the_prompt_stays() -> None:
    body = PROMPT | ANSWER | {"stream": True, "max_tokens": 100, "max_completion_tokens": 90, "temperature": 0.5}
    one = {"stream": False, "max_tokens": 1, "max_completion_tokens": 1, "ignore_eos": True, "temperature": 0.5}
    assert prompt_only(body, kv_transfer_params={}) == PROMPT | one | {"kv_transfer_params": {}}


@pytest.mark.parametrize(
    ("choice", "asked"), [("auto", "auto"), ("none", "none"), ("required", "none"), (NAMED, "none"), (None, None)]
)
def test_no_tool_is_asked_for_and_the_tools_stay(choice: Any, asked: Any) -> None:
    body = prompt_only({"messages": HI, "tools": TOOLS, "tool_choice": choice})
    assert (body["tool_choice"], body["tools"]) == (asked, TOOLS)
    assert "tool_choice" not in prompt_only({"messages": HI, "tools": TOOLS})


@asynchronous
async def test_the_decode_gets_all_that_the_client_said(tmp_path: Any) -> None:
    async with before_moody_engines(tmp_path) as (live, engines):
        said = {"messages": HI, "tools": TOOLS, "tool_choice": "required", "stop": ["a"], "user": "me"}
        assert (await live.post("/v1/chat/completions", **said)).status == 200
        first, second = (body for engine in engines for body in engine.of("me"))
        if second.get("max_tokens") == 1:
            first, second = second, first
        assert "stop" not in first
        assert {key: second[key] for key in said} == said


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/embeddings", "/tokenize"])
def test_other_end_points_are_one_leg(path: str) -> None:
    assert not Call(path, {"prompt": "a"}, b"", "").splits
