"""What an engine's answer says, so that it is known how the next turn of a conversation begins.

Nothing is known of an answer that thinks or calls tools: what the next turn has of these is the client's affair, and
the template's. Of several choices nobody knows which one the next turn goes on with, so each is told.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

Said = str | list[int]
"""A text, or token ids."""

AT_A_TIME = 32
"""Events."""

LONGEST = 1 << 20
"""Bytes of an answer that is kept until its end."""

MOST_CHOICES = 8
"""Of which what they say is told; of more, the first ones."""

SAID = tuple(re.compile(rb'"%s": *"([^"\\]*(?:\\.[^"\\]*)*)"' % key) for key in (b"content", b"text"))
"""The text of an event, as JSON writes it."""

NOT_SAID = re.compile(
    rb'"(?:reasoning|reasoning_content|arguments|thinking|partial_json)": *"[^"]|"tool_calls": *\[[^\]]'
)
MAY_BE = (b'"reasoning', b'"tool_calls"', b'"arguments"', b'"thinking"', b'"partial_json"')
"""What `NOT_SAID` begins with, found in less time."""

THOUGHTS_AND_CALLS = ("reasoning", "reasoning_content", "tool_calls", "function_call", "refusal")


class Gathered(ABC):
    """What an answer says, gathered as its events go by."""

    @abstractmethod
    def add(self, line: bytes) -> None:
        """An event of the answer, with or without a token."""

    @property
    @abstractmethod
    def said(self) -> tuple[Said, ...]:
        """By each choice of which all is known."""


class OneText(Gathered):
    """The text of one choice. Nothing is parsed as JSON."""

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._parts: list[bytes] | None = []
        self._room = LONGEST

    def add(self, line: bytes) -> None:
        """Some are read at a time, which takes half the time."""
        self._events.append(line)
        if len(self._events) >= AT_A_TIME:
            self._read()

    @property
    def said(self) -> tuple[Said, ...]:
        self._read()
        text = None if self._parts is None else _unescaped(b"".join(self._parts))
        return (text,) if text else ()

    def _read(self) -> None:
        events = b"\n".join(self._events)
        self._events.clear()
        if self._parts is None:
            return
        said = SAID[0].findall(events) or SAID[1].findall(events)
        self._room -= sum(map(len, said))
        if self._room < 0 or (any(may in events for may in MAY_BE) and NOT_SAID.search(events)):
            self._parts = None
        else:
            self._parts += said


class Choices(Gathered):
    """What each of several choices says, or the token ids of each."""

    def __init__(self, *, ids: bool) -> None:
        self._ids = ids
        self._parts: dict[int, list[Said] | None] = {}
        self._room = LONGEST

    def add(self, line: bytes) -> None:
        if b'"choices"' not in line or self._room < 0:
            return
        self._room -= len(line)
        if self._room < 0:
            self._parts.clear()
            return
        for index, message in _choices(line[5:]):
            part = _part(message, ids=self._ids)
            parts = self._parts.setdefault(index, [])
            if part is None:
                self._parts[index] = None
            elif parts is not None:
                parts.append(part)

    @property
    def said(self) -> tuple[Said, ...]:
        known = (parts for _, parts in sorted(self._parts.items()) if parts)
        joined: Iterator[Said] = (
            [each for part in parts for each in part] if self._ids else "".join(map(str, parts))  # type: ignore[misc]
            for parts in known
        )
        return tuple(filter(None, joined))


class LastEvent(Gathered):
    """A stream of /v1/responses has the whole answer in its last event."""

    def __init__(self) -> None:
        self._last = b""

    def add(self, line: bytes) -> None:
        self._last = line

    @property
    def said(self) -> tuple[Said, ...]:
        if len(self._last) > LONGEST:
            return ()
        event = _parsed(self._last[5:])
        return _of_items(event.get("response"))


def gathered(path: str, *, ids: bool, choices: int) -> Gathered:
    """For the stream of an end point.

    Args:
        ids: whether token ids are wanted, not texts.
        choices: that are asked for.
    """
    if path == "/v1/responses":
        return LastEvent()
    return Choices(ids=ids) if ids or choices > 1 else OneText()


def said_in(path: str, body: bytes, *, ids: bool) -> tuple[Said, ...]:
    """What each choice of an answer in one piece says, as far as that is all of it.

    Args:
        ids: whether token ids are wanted, not texts.
    """
    if len(body) > LONGEST:
        return ()
    match path:
        case "/v1/responses":
            return _of_items(_parsed(body))
        case "/v1/messages":
            text = _text_of(_parsed(body).get("content"), "text")
            return (text,) if text else ()
        case _:
            return tuple(part for _, message in _choices(body) if (part := _part(message, ids=ids)))


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _choices(data: bytes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The first choices of an answer or an event, each by its number: what it says now, its token ids beside."""
    choices = _parsed(data).get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and isinstance(index := choice.get("index", 0), int) and index < MOST_CHOICES:
            message = choice.get("message") or choice.get("delta") or choice
            if isinstance(message, dict):
                yield index, {**message, "token_ids": choice.get("token_ids")}


def _part(message: Mapping[str, Any], *, ids: bool) -> Said | None:
    """What is said; None where that is not all."""
    if ids:
        numbers = message["token_ids"] or []
        return numbers if isinstance(numbers, list) and all(type(each) is int for each in numbers) else None
    if any(message.get(key) for key in THOUGHTS_AND_CALLS):
        return None
    text = message.get("content", message.get("text"))
    return text if isinstance(text, str) else "" if text is None else None


def _of_items(response: Any) -> tuple[Said, ...]:
    """Of a response; () unless all that was put out is one message."""
    items = response.get("output") if isinstance(response, dict) else None
    if not isinstance(items, list) or len(items) != 1 or not isinstance(items[0], dict):
        return ()
    text = _text_of(items[0].get("content"), "output_text") if items[0].get("type") == "message" else None
    return (text,) if text else ()


def _text_of(parts: Any, kind: str) -> str | None:
    """The text of parts that are all of one kind."""
    if not isinstance(parts, list) or not all(isinstance(part, dict) and part.get("type") == kind for part in parts):
        return None
    texts = [part.get("text") for part in parts]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else None


def _unescaped(said: bytes) -> str | None:
    try:
        return str(orjson.loads(b'"' + said + b'"'))
    except orjson.JSONDecodeError:
        return None
