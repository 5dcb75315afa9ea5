"""The tokens in the answers of engines, counted as their bytes go by.

Nothing is parsed as JSON, but for events with several choices: a quote within a JSON text is written `\\"`, so that a
key in quotes followed by a colon can only be a key.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any

import orjson

from fluidgate.gateway.engines.answers import Gathered

TEXT = re.compile(rb'"text": *"[^"]')
CONTENT = re.compile(rb'"content": *"[^"]')
OTHER = re.compile(rb'"(?:reasoning|reasoning_content|arguments)": *"[^"]|"(?:tool_calls|token_ids)": *\[[^\]]')
"""Text of an answer, and what else a token may make: thoughts, calls of tools, bare token ids. The common two go first:
a pattern that begins with fixed bytes is found three times as fast."""

NO_TEXT = re.compile(rb'"(?:text|content)": *""')
UNFINISHED = re.compile(rb'"finish_reason": *null')

WHOLE_USAGE = re.compile(rb'"usage": *(\{(?:[^{}]|\{[^{}]*\})*\})')
USAGE = re.compile(rb'"completion_tokens": *(\d+)')
STATED = re.compile(rb'"(?:completion|output)_tokens": *(\d+)')
NO_CHOICES = re.compile(rb'"choices": *\[\]')
ERROR = re.compile(rb'data: ?(\{"error": *[^\r\n]*)')
NAMED_ERROR = re.compile(rb"event: ?error(?:\r\n|\n|\r)data: ?(\{[^\r\n]*)")
DONE = (b"data: [DONE]", b"data:[DONE]")

TYPE = re.compile(rb'"type": *"([\w.]+)"')
ENDINGS = (b"\r\n\r\n", b"\n\n", b"\r\r")
END_OF_EVENT = re.compile(b"(" + b"|".join(ENDINGS) + b")")


class TokenCounter:
    """Counts the output tokens of a stream of completions; its bytes may be cut anywhere, its lines end in any way.

    An event with text is a token for each choice that has any, and so is one whose text is empty because it ends within
    a character. A chat's first event, which names a role, is not, nor is a last one without text. Where the engine
    states how many there are (`usage`, in the last event or in each), that counts: it may put several into an event.

    Attributes:
        tokens: output tokens so far.
        finished: the end of the stream was seen, `data: [DONE]`.
        failed: the engine has told of an error in the stream.
        usage: the last line that states tokens, b"" before one has.
        said: gathers what is said; None where nobody asks.
    """

    __slots__ = ("_begun", "failed", "finished", "said", "tokens", "usage")

    def __init__(self) -> None:
        self.tokens = 0
        self.finished = False
        self.failed = False
        self.usage = b""
        self.said: Gathered | None = None
        self._begun = b""

    @property
    def first_token(self) -> bool:
        """Whether a token has come."""
        return self.tokens > 0

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the stream."""
        for line in self._lines(chunk):
            if line.startswith(b"data:"):
                self._read(line)

    def _lines(self, chunk: bytes) -> list[bytes]:
        """Those that have ended by now."""
        if b"\r" in chunk:  # JSON writes its own as \r, so that this one ends a line
            chunk = chunk.replace(b"\r", b"\n")
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        return lines

    def _read(self, line: bytes) -> None:
        if b'"completion_tokens"' in line and (usage := USAGE.search(line)):
            # Of one choice, where each event states it; of all, in the event that has none.
            stated = int(usage[1])
            self.usage = line
            self.tokens = stated if NO_CHOICES.search(line) else max(self.tokens, stated)
            if self.said is not None:
                self.said.add(line)
        elif line.count(b'"finish_reason"') > 1:
            self.tokens += tokens_of_choices(line)
            if self.said is not None:
                self.said.add(line)
        elif TEXT.search(line) or CONTENT.search(line) or OTHER.search(line):
            self.tokens += 1
            if self.said is not None:
                self.said.add(line)
        elif line.startswith(DONE):
            self.finished = True
        elif ERROR.match(line):
            self.failed = True
        elif NO_TEXT.search(line) and UNFINISHED.search(line) and b'"role"' not in line:
            self.tokens += 1


class NamedEvents(TokenCounter, ABC):
    """A stream whose events have names, in a line `event:` or as the `type` of their data."""

    __slots__ = ("_name",)

    def __init__(self) -> None:
        super().__init__()
        self._name = b""

    def feed(self, chunk: bytes) -> None:
        for line in self._lines(chunk):
            if line.startswith(b"event:"):
                self._name = line[6:].strip()
            elif line.startswith(b"data:"):
                named = self._name or ((found := TYPE.search(line)) and found[1]) or b""
                self._name = b""
                self._event(named, line)

    @abstractmethod
    def _event(self, name: bytes, line: bytes) -> None:
        """An event of this name has come, its data in `line`."""

    def _believe(self, line: bytes) -> None:
        """Take the number that an event states for the tokens so far."""
        if stated := stated_tokens(line):
            self.tokens = stated
            self.usage = line


class ResponseEvents(NamedEvents):
    """The stream of /v1/responses: whatever ends with `.delta` is a token, until the last event states them all."""

    __slots__ = ()

    def _event(self, name: bytes, line: bytes) -> None:
        if name.endswith(b".delta"):
            self.tokens += 1
        elif name in (b"response.completed", b"response.incomplete"):
            self._believe(line)
            if self.said is not None:
                self.said.add(line)
            self.finished = True
        elif name in (b"response.failed", b"error"):
            self.failed = True


class MessageEvents(NamedEvents):
    """The stream of /v1/messages, Anthropic's: a `content_block_delta` is a token, until `message_delta` states all."""

    __slots__ = ()

    def _event(self, name: bytes, line: bytes) -> None:
        if name == b"content_block_delta":
            self.tokens += b'"signature_delta"' not in line
            if self.said is not None:
                self.said.add(line)
        elif name == b"message_delta":
            self._believe(line)
        elif name == b"message_stop":
            self.finished = True
        elif name == b"error":
            self.failed = True


def token_counter(path: str) -> TokenCounter:
    """A counter for the streams of an end point."""
    match path:
        case "/v1/responses":
            return ResponseEvents()
        case "/v1/messages":
            return MessageEvents()
        case _:
            return TokenCounter()


def tokens_of_choices(line: bytes) -> int:
    """Tokens of an event with several choices."""
    try:
        choices = orjson.loads(line[5:])["choices"]
        return sum(map(_has_token, choices))
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return 1


def _has_token(choice: dict[str, Any]) -> bool:
    said = choice.get("delta") or choice
    words = (said.get(key) for key in ("text", "content", "reasoning", "reasoning_content", "tool_calls", "token_ids"))
    cut = choice.get("finish_reason") is None and "role" not in said and "" in (said.get("text"), said.get("content"))
    return any(words) or cut


class UsageDropper:
    """Takes out of a stream the event that states its usage: the gateway asked for it, the client did not.

    Only whole events go through; an engine writes no other.
    """

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """The whole events that there are by now, but for that one."""
        data = self.rest + chunk
        end = data.rfind(b"\n\n") + 2
        if b"\r" in data:
            end = max((data.rfind(ending) + len(ending) for ending in ENDINGS if ending in data), default=0)
        if end < 2:
            self.rest = data
            return b""
        whole, self.rest = data[:end], data[end:]
        if not NO_CHOICES.search(whole):
            return whole
        events = END_OF_EVENT.split(whole)
        return b"".join(
            event + ending
            for event, ending in zip(events[::2], [*events[1::2], b""], strict=True)
            if not NO_CHOICES.search(event)
        )


def stated_tokens(body: bytes) -> int | None:
    """The output tokens that an answer in one piece states in its `usage`, at its end; None where it has none."""
    stated = STATED.findall(body)
    return int(stated[-1]) if stated else None


def prompt_of(usage: Any) -> tuple[int | None, int | None]:
    """Tokens of the prompt that a `usage` of OpenAI's API states, and those that had not to be read; None where it does
    not say."""
    if not isinstance(usage, dict):
        return None, None
    tokens = usage.get("prompt_tokens", usage.get("input_tokens"))
    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return tokens if isinstance(tokens, int) and tokens > 0 else None, cached if isinstance(cached, int) else None


def stated_prompt(body: bytes) -> tuple[int | None, int | None]:
    """Tokens of the prompt that an answer in one piece, or a line of a stream, states in its `usage`, and those of them
    that had not to be read; None where it does not say."""
    stated = WHOLE_USAGE.findall(body)
    try:
        return prompt_of(orjson.loads(stated[-1])) if stated else (None, None)
    except orjson.JSONDecodeError:
        return None, None


def error_at_start(chunk: bytes) -> bytes | None:
    """The error, as JSON, that a stream begins with; None where it begins otherwise."""
    start = chunk.removeprefix(b"\xef\xbb\xbf").lstrip()
    error = ERROR.match(start) or NAMED_ERROR.match(start)
    return error[1] if error else None
