"""JSON from clients, read in bounded time: the parser holds the interpreter, in a thread as well as on the loop."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import orjson

from fluidgate.gateway.client.api_error import invalid

BOM = b"\xef\xbb\xbf"

LARGE = 1 << 16
"""Bytes from which on the garbage collector stays away: it would go over all that is made, again and again."""

MOST_VALUES = 4 << 20
"""In one body; so many are read within a fifth of a second."""


def parsed_object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        ApiError: it is none.
    """
    raw = raw.removeprefix(BOM)
    if sum(map(raw.count, (b"[", b"{", b","))) > MOST_VALUES:
        raise invalid(f"the body has more than {MOST_VALUES} values", reason="invalid_json")
    try:
        with no_collection() if len(raw) > LARGE else nullcontext():
            body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid(f"the body is not JSON: {error}", reason="invalid_json") from None
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object", reason="invalid_json")
    return body


@contextmanager
def no_collection() -> Iterator[None]:
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
