"""Requests of the gateway's own making, in the words of OpenAI's protocol."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import orjson

from fluidgate.gateway.engines.adapter import Call

PROBE_WORDS = 64


def prompt_only(body: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The body of a call that only reads the prompt of `body`, with `more` keys."""
    kept = {name: value for name, value in body.items() if name not in ("stream_options", "min_tokens")}
    lengths = {name: 1 for name in ("max_completion_tokens", "n_predict") if name in kept}
    return kept | lengths | {"stream": False, "max_tokens": 1} | more


def counted_prompt(answer: Any) -> int | None:
    """The prompt tokens that an answer in one piece states in its `usage`; None where it has none."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and tokens > 0 else None


def probe(model: str) -> Call:
    """A short request whose prompt no cache has seen."""
    prompt = " ".join(secrets.token_hex(2) for _ in range(PROBE_WORDS))
    body = {"model": model, "prompt": prompt, "max_tokens": 2, "temperature": 0}
    return Call("/v1/completions", body, orjson.dumps(body), f"fluidgate-probe-{secrets.token_hex(4)}")
