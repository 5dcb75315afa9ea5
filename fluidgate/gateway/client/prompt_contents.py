"""What of a body is prompt: its texts, its token ids, and what else a template makes tokens of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from fluidgate.gateway.client.api_error import invalid
from fluidgate.gateway.client.end_points import Prompt

MESSAGE_TOKENS = 4
"""What a chat template adds to each message, about."""

MEDIA = {
    **dict.fromkeys(("image", "image_url", "input_image", "image_pil", "image_embeds"), "image"),
    **dict.fromkeys(("audio", "audio_url", "input_audio", "audio_embeds"), "audio"),
    **dict.fromkeys(("video", "video_url", "input_video"), "video"),
    **dict.fromkeys(("file", "input_file"), "file"),
}
"""What a part of a message is, by its `type`."""

DOCUMENT = "document"
"""Anthropic's part for a file, whose source may be a text."""

WORDS = frozenset(
    {"role", "type", "content", "text", "name", "id", "function", "arguments", "tool_calls", "tool_call_id", "call_id"}
    | {"refusal", "reasoning", "reasoning_content", "thinking", "signature", "summary", "status", "output", "input"}
    | {"tool_use_id", "is_error", "cache_control", "function_call", "annotations", "logprobs", "source", "index"}
)
"""The API's own keys within a message, which no template writes as they are."""

VALUES = frozenset(
    {"system", "developer", "user", "assistant", "tool", "function", "text", "input_text", "output_text", "message"}
    | {"tool_use", "tool_result", "function_call", "function_call_output", "thinking", "reasoning", "refusal"}
    | {"summary_text", "reasoning_text", "ephemeral"}
)
"""What its `role` and `type` are."""

BESIDE_MESSAGES = ("tools", "functions", "documents", "chat_template", "chat_template_kwargs")
"""Keys of a chat, beside its messages, that its template may write."""


@dataclass
class Contents:
    """A prompt, taken apart.

    Attributes:
        texts: to be counted.
        tokens: what counts beside them.
        media: parts by what they are: "image", "audio", "video", "file".
    """

    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    media: dict[str, int] = field(default_factory=dict)

    def add(self, value: Any) -> None:
        """All texts within a JSON value, however deep; a picture in it counts as one."""
        stack = [value]
        while stack:
            each = stack.pop()
            if isinstance(each, str):
                self.texts.append(each)
            elif isinstance(each, list):
                stack.extend(each)
            elif isinstance(each, dict):
                stack.extend(self._within(each))
            elif each is not None:
                self.texts.append(str(each))

    def add_json(self, value: Any) -> None:
        """A value that a template writes as JSON."""
        if value:
            self.texts.append(value if isinstance(value, str) else orjson.dumps(value).decode())

    def _within(self, part: Mapping[str, Any]) -> Iterable[Any]:
        if (what := kind_of_media(part)) is not None:
            self.media[what] = self.media.get(what, 0) + 1
            yield part.get("text")
            return
        for key, value in part.items():
            if key in ("role", "type") and isinstance(value, str) and value in VALUES:
                continue
            if key not in WORDS:
                self.texts.append(key)
            yield value


def kind_of_media(part: Mapping[str, Any]) -> str | None:
    """What a part is that is no text: "image", "audio", "video" or "file"; None for others."""
    kind = part.get("type")
    if kind is None:
        kind = next((key for key in MEDIA if key in part), None)
    if isinstance(kind, str) and (kind in MEDIA or _is_file(kind, part)):
        return MEDIA.get(kind, "file")
    return None


def _is_file(kind: str, part: Mapping[str, Any]) -> bool:
    """Whether a part is a document that comes as bytes or by its address, not as a text."""
    source = part.get("source")
    return kind == DOCUMENT and isinstance(source, dict) and source.get("type") in ("base64", "url", "file")


def contents_of(kind: Prompt, body: Mapping[str, Any]) -> Contents:
    """The prompt in a body.

    Raises:
        ApiError: there is none, or it is of no form that engines take.
    """
    contents = Contents()
    READERS[kind](body, contents)
    return contents


def _completion(body: Mapping[str, Any], contents: Contents) -> None:
    _add_prompts(body.get("prompt"), "prompt", contents)
    contents.add_json(body.get("suffix"))


def _embeddings(body: Mapping[str, Any], contents: Contents) -> None:
    if body.get("input") is None and body.get("messages") is not None:
        _chat(body, contents)
    else:
        _add_prompts(body.get("input"), "input", contents)


def _chat(body: Mapping[str, Any], contents: Contents) -> None:
    _add_messages(body.get("messages"), contents)
    for key in BESIDE_MESSAGES:
        contents.add_json(body.get(key))


def _messages(body: Mapping[str, Any], contents: Contents) -> None:
    _chat(body, contents)
    if body.get("system"):
        contents.tokens += MESSAGE_TOKENS
        contents.add(body["system"])


def _responses(body: Mapping[str, Any], contents: Contents) -> None:
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise invalid("'input' must be a text or an array of items, one at least", "input")
    items = [given] if isinstance(given, str) else given
    contents.tokens += MESSAGE_TOKENS * len(items)
    contents.add(items)
    if body.get("instructions"):
        contents.tokens += MESSAGE_TOKENS
    for key in ("instructions", "prompt"):
        contents.add(body.get(key))
    for key in ("tools", "chat_template_kwargs"):
        contents.add_json(body.get(key))


READERS: dict[Prompt, Callable[[Mapping[str, Any], Contents], None]] = {
    "completion": _completion,
    "chat": _chat,
    "responses": _responses,
    "messages": _messages,
    "embeddings": _embeddings,
}


def _add_prompts(prompt: Any, key: str, contents: Contents) -> None:
    """A text, token ids, or several of one of them."""
    several = prompt if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list) else [prompt]
    kind = type(several[0])
    for each in several:
        if not each or type(each) is not kind or not isinstance(each, str | list):
            what = "is empty" if each in ("", []) else "must be a text or an array of token ids, or an array of such"
            raise invalid(f"'{key}' {what}", key)
        if isinstance(each, str):
            contents.texts.append(each)
        elif all(type(token) is int and token >= 0 for token in each):
            contents.tokens += len(each)
        else:
            raise invalid(f"'{key}' must be a text or an array of token ids, or an array of such", key)


def _add_messages(messages: Any, contents: Contents) -> None:
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise invalid("'messages' must be an array of messages, one at least", "messages")
    for k, message in enumerate(messages):
        content = message.get("content")
        parts = isinstance(content, list) and all(isinstance(part, dict | str) for part in content)
        if content is not None and not isinstance(content, str) and not parts:
            raise invalid("the content of a message must be a text or an array of parts", f"messages[{k}].content")
        contents.tokens += MESSAGE_TOKENS
        contents.add(message)
