"""A prompt as one text or as token ids, so that two begin alike where an engine's template would have them begin alike.

It is in the order of templates: tools first, then the messages one after the other, of each what was said before what
else there is. A conversation that goes on begins with the bytes that it was before, the answer among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from fluidgate.gateway.client.end_points import Prompt
from fluidgate.gateway.client.prompt_contents import BESIDE_MESSAGES, kind_of_media
from fluidgate.gateway.prefixes import Chain, chain_of_ids, chain_of_text

MESSAGE, CONTENT, REST = b"\n\x1e", b"\x1f", b"\n\x1d"
"""Before a message, before what was said in it, and before what else it has."""

SALTS = ("model", "cache_salt", "mm_processor_kwargs")
"""Keys that make an engine keep two prompts apart, however alike they are."""

BEFORE_MESSAGES = (*BESIDE_MESSAGES, "reasoning_effort")

TEXT_PARTS = ("text", "input_text", "output_text")

MEDIA_BYTES = 4
"""For which a token of a picture stands in the text."""

Pieces = Iterator[bytes]


def chain_of(kind: Prompt, body: Mapping[str, Any], media: Mapping[str, int]) -> Chain | None:
    """The prompt in a body that was checked; None where there are several.

    Args:
        media: tokens of an "image", an "audio", a "video" and a "file".
    """
    salt = as_json([body.get(key) for key in SALTS])
    if kind in ("completion", "embeddings"):
        prompt = body.get("prompt" if kind == "completion" else "input")
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
            prompt = prompt[0]
        if isinstance(prompt, str):
            return chain_of_text(encoded(prompt), salt)
        if isinstance(prompt, list):
            return _of_ids(prompt, salt)
    return chain_of_text(b"".join(PIECES[kind](body, media)), salt)


def answered(kind: Prompt, chain: Chain, said: str | list[int]) -> Chain:
    """The chain of a prompt and its answer, as the next turn begins; `said` in token ids where the prompt is."""
    if not isinstance(said, str):
        return chain.followed_by(said)
    return chain.followed_by(encoded(said) if kind == "completion" else _head("assistant") + encoded(said))


def _of_ids(ids: list[Any], salt: bytes) -> Chain | None:
    try:
        return chain_of_ids(ids, salt)
    except (TypeError, OverflowError):
        return None  # several prompts, or ids that no engine has


def _chat(body: Mapping[str, Any], media: Mapping[str, int]) -> Pieces:
    for key in BEFORE_MESSAGES:
        if body.get(key):
            yield REST + as_json([key, body[key]])
    if body.get("system"):
        yield from _message({"role": "system", "content": body["system"]}, media)
    for message in body.get("messages") or ():
        yield from _message(message, media)


def _responses(body: Mapping[str, Any], media: Mapping[str, int]) -> Pieces:
    for key in ("previous_response_id", "tools", "prompt", "chat_template_kwargs"):
        if body.get(key):
            yield REST + as_json([key, body[key]])
    if body.get("instructions"):
        yield from _message({"role": "system", "content": body["instructions"]}, media)
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    for item in items:
        yield from _message(item, media) if isinstance(item, dict) else iter((MESSAGE, as_json(item)))


PIECES: dict[Prompt, Callable[[Mapping[str, Any], Mapping[str, int]], Pieces]] = {
    "completion": _chat,
    "chat": _chat,
    "responses": _responses,
    "messages": _chat,
    "embeddings": _chat,
}


def _message(message: Mapping[str, Any], media: Mapping[str, int]) -> Pieces:
    yield _head(message.get("role"))
    content = message.get("content")
    for part in content if isinstance(content, list) else [content]:
        yield from _part(part, media)
    rest = {key: value for key, value in message.items() if key not in ("role", "content") and value}
    if rest.keys() - {"type", "id", "status"}:
        yield REST + as_json(rest)


def _head(role: Any) -> bytes:
    """What a message begins with."""
    return MESSAGE + encoded(str(role)) + CONTENT


def _part(part: Any, media: Mapping[str, int]) -> Pieces:
    """A part of what was said; a picture stands for as many bytes as its tokens do, whatever it takes."""
    if isinstance(part, str):
        yield encoded(part)
    elif isinstance(part, dict) and (kind := kind_of_media(part)) is not None:
        digest = hashlib.blake2b(as_json(part), digest_size=32).digest()
        tokens = media.get(kind, 0)
        yield (digest * (MEDIA_BYTES * tokens // len(digest) + 1))[: MEDIA_BYTES * tokens]
    elif isinstance(part, dict) and part.get("type") in TEXT_PARTS and isinstance(part.get("text"), str):
        yield encoded(part["text"])
    elif part is not None:
        yield REST + as_json(part)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def as_json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
