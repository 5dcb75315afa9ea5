"""How long a prompt is, before an engine has read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.api_error import invalid

MESSAGE_TOKENS = 4
"""What a chat template adds to each message, about."""


class PromptMeter:
    """Counts prompt tokens: exactly where they are given as ids, by the bytes of the text otherwise.

    A text counts one token for `bytes_per_token` bytes of UTF-8, or as a tokenizer says. In a chat each message counts
    4 more; pictures and sounds count nothing.
    """

    def __init__(self, bytes_per_token: float, tokenizer: Path | None = None) -> None:
        """
        Raises:
            FluidgateError: the tokenizer can't be read.
        """
        self._count = self._by_bytes if tokenizer is None else _loaded(tokenizer)
        self._bytes_per_token = bytes_per_token

    def completion(self, prompt: Any) -> int:
        """Of the `prompt` of /v1/completions.

        Raises:
            ApiError: it is none, or several.
        """
        if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
            prompt = prompt[0]
        if isinstance(prompt, str):
            tokens = self._count(prompt)
        elif isinstance(prompt, list) and prompt and all(type(each) is int and each >= 0 for each in prompt):
            tokens = len(prompt)
        elif isinstance(prompt, list) and all(isinstance(each, str | list) for each in prompt) and len(prompt) > 1:
            raise invalid("several prompts in one request are not taken; send one request for each", "prompt")
        else:
            raise invalid("'prompt' must be a text or an array of token ids", "prompt")
        if tokens == 0:
            raise invalid("'prompt' is empty", "prompt")
        return tokens

    def chat(self, body: dict[str, Any]) -> int:
        """Of the `messages` (and `tools`) of /v1/chat/completions.

        Raises:
            ApiError: they are none.
        """
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise invalid("'messages' must be an array of messages, one at least", "messages")
        tokens = sum(MESSAGE_TOKENS + self._content(k, message) for k, message in enumerate(messages))
        if body.get("tools"):
            tokens += self._count(orjson.dumps(body["tools"]).decode())
        return tokens

    def _content(self, k: int, message: dict[str, Any]) -> int:
        content = message.get("content")
        if content is None:
            return 0
        if isinstance(content, str):
            return self._count(content)
        if isinstance(content, list) and all(isinstance(part, dict) for part in content):
            return sum(self._count(part["text"]) for part in content if isinstance(part.get("text"), str))
        raise invalid("the content of a message must be a text or an array of parts", f"messages[{k}].content")

    def _by_bytes(self, text: str) -> int:
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        return -int(-size // self._bytes_per_token)


def _loaded(path: Path) -> Callable[[str], int]:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise FluidgateError(
            "tokens.tokenizer needs the package 'tokenizers'; install it, or leave the key out"
        ) from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise FluidgateError(f"tokens.tokenizer: {path}: no tokenizer ({error}); give a tokenizer.json") from None
    return lambda text: len(tokenizer.encode(text).ids)
