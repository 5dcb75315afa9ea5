"""JSON from clients, read in bounded time: the parser holds the interpreter, in a thread as well as on the loop."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from fluidgate.gateway.client.api_error import invalid

BOM = b"\xef\xbb\xbf"

MOST_CONTAINERS = 1 << 16
"""Arrays and objects in one body: each collection of garbage goes over all that there are."""

MOST_VALUES = 1 << 20
"""In one body."""

MANY_QUOTES = 4 * MOST_CONTAINERS
"""From so many on it is not looked at what stands in them: that alone would take long."""

STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
"""A string; also one that never ends, so that no start of one is looked at twice."""


def parsed_object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        ApiError: it is none, or of too many parts.
    """
    raw = raw.removeprefix(BOM)
    _check_size(raw)
    try:
        with no_collection():
            body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid(f"the body is not JSON: {error}", reason="invalid_json") from None
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object", reason="invalid_json")
    return body


def _check_size(raw: bytes) -> None:
    """Refuse, before anything is made of it, what would take long to be parsed; within strings all is allowed."""
    if len(raw) <= MOST_CONTAINERS or not _too_many(raw):
        return
    ends = raw.count(b'"') - raw.count(b'\\"')
    if ends > MANY_QUOTES or _too_many(STRING.sub(b"", raw)):
        most = f"{MOST_CONTAINERS} arrays and objects, or {MOST_VALUES} values"
        raise invalid(f"the body has more than {most}", reason="invalid_json")


def _too_many(raw: bytes) -> bool:
    return raw.count(b"[") + raw.count(b"{") > MOST_CONTAINERS or raw.count(b",") > MOST_VALUES


@contextmanager
def no_collection() -> Iterator[None]:
    """Garbage stays where it is within: while much is made the collector would go over it again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
