"""Prompts as tokens, and the hashes of their blocks, each of which depends on all tokens before its end."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

BLOCK = 16
"""Tokens of a block of KV memory."""

BYTES_PER_TOKEN = 4
"""Of a text's UTF-8; there is no tokenizer."""

MARK = b"\x01"
"""Before the bytes of a token, so that those that begin with 0 count too: the token's id is the number they make."""

ID = np.dtype("<i8")
WIDTH = ID.itemsize
"""Bytes of a token's id, and of a hash."""


class Prompt:
    """The tokens of a prompt.

    Args:
        ids: of the tokens, of type `ID`, one after the other.
        adapter: that reads it, and makes its KV another; None for the model itself.
    """

    def __init__(self, ids: bytes, adapter: str | None = None) -> None:
        self._ids = ids
        self._root = hashlib.blake2b((adapter or "").encode(), digest_size=WIDTH).digest()
        self.adapter = adapter

    @property
    def tokens(self) -> int:
        return len(self._ids) // WIDTH

    @cached_property
    def key(self) -> bytes:
        """Tells the prompt from others, 16 bytes."""
        return hashlib.blake2b(self._ids, digest_size=16, salt=self._root).digest()

    @cached_property
    def hashes(self) -> tuple[int, ...]:
        """Of its full blocks, in order."""
        found, last, data, width = [], self._root, self._ids, BLOCK * WIDTH
        for start in range(0, len(data) - width + 1, width):
            last = hashlib.blake2b(last + data[start : start + width], digest_size=WIDTH).digest()
            found.append(int.from_bytes(last))
        return tuple(found)

    def under(self, adapter: str | None) -> Prompt:
        """The prompt as an adapter reads it."""
        return self if adapter is None else Prompt(self._ids, adapter)

    def ids(self, start: int, end: int) -> bytes:
        """Of the tokens from `start` to before `end`, as far as there are so many."""
        return self._ids[start * WIDTH : end * WIDTH]

    def hash_behind(self, last: int | None, ids: bytes) -> int:
        """Of a block with these ids behind one whose hash is `last`; None where it is the first."""
        before = self._root if last is None else last.to_bytes(WIDTH)
        return int.from_bytes(hashlib.blake2b(before + ids, digest_size=WIDTH).digest())


def token_prompt(ids: Sequence[int]) -> Prompt:
    """As many tokens as ids."""
    return Prompt(array("q", ids).tobytes())


def text_prompt(text: str) -> Prompt:
    """One token for every four bytes of UTF-8, rounded up."""
    return messages_prompt([text])


def messages_prompt(messages: Iterable[str]) -> Prompt:
    """Messages one after the other, each of whole tokens: when a conversation goes on, it begins with the same."""
    return Prompt(b"".join(ids_of(each.encode("utf-8", "surrogatepass")) for each in messages))


def rendered(role: str, text: str) -> str:
    """What a message adds to a prompt. What an assistant said stands as it was written, behind what it answers."""
    return text if role == "assistant" and text else f"{role}\n{text}"


def ids_of(data: bytes) -> bytes:
    """The ids of the tokens of a text."""
    whole = len(data) // BYTES_PER_TOKEN * BYTES_PER_TOKEN
    mark = int.from_bytes(MARK) << 8 * BYTES_PER_TOKEN
    ids = np.frombuffer(data[:whole], ">u4").astype(ID) + mark
    rest = [int.from_bytes(MARK + data[whole:])] if data[whole:] else []
    return ids.tobytes() + np.array(rest, ID).tobytes()
