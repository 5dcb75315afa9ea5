"""Requests of the gateway's own making, in the words of OpenAI's protocol."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import orjson

from fluidgate.gateway.engines.adapter import Call
from fluidgate.gateway.engines.sse import prompt_of

PROBE_WORDS = 64

OF_THE_ANSWER = frozenset(
    {"stream_options", "min_tokens", "stop", "stop_token_ids", "include_stop_str_in_output", "repetition_detection"}
    | {"response_format", "structured_outputs", "structural_tag", "json_schema", "grammar", "regex", "ebnf"}
    | {"logprobs", "top_logprobs", "return_token_ids", "return_tokens_as_token_ids", "echo"}
)
"""Keys that say what the answer must be like, or what is told of it; no template renders one of them with vLLM."""

FREE = (None, "auto", "none")
"""A `tool_choice` that one token can meet."""


def prompt_only(body: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The body of a call that only reads the prompt of `body`, with `more` keys.

    One token is written, of any kind. A tool that must be called is not asked for, as one token is no call, and an
    engine may fail to read it as one. `tools` stay, as they are part of the prompt, and so they do with `tool_choice`
    "none": vLLM renders them alike, unless it was started with --exclude-tools-when-tool-choice-none. The token may not
    end the answer either: vLLM hands KV over only where the length has ended it.
    """
    kept = {name: value for name, value in body.items() if name not in OF_THE_ANSWER and not name.startswith("guided_")}
    if kept.get("tool_choice") not in FREE:
        kept["tool_choice"] = "none"
    lengths = {name: 1 for name in ("max_completion_tokens", "n_predict") if name in kept}
    return kept | lengths | {"stream": False, "max_tokens": 1, "ignore_eos": True} | more


def counted_prompt(answer: Any) -> tuple[int | None, int | None]:
    """The prompt tokens that an answer in one piece states in its `usage`, and those of them that had not to be read;
    None where it does not say."""
    return prompt_of(answer.get("usage") if isinstance(answer, dict) else None)


def probe(model: str) -> Call:
    """A short request whose prompt no cache has seen."""
    prompt = " ".join(secrets.token_hex(2) for _ in range(PROBE_WORDS))
    body = {"model": model, "prompt": prompt, "max_tokens": 2, "temperature": 0}
    return Call("/v1/completions", body, orjson.dumps(body), f"fluidgate-probe-{secrets.token_hex(4)}")
