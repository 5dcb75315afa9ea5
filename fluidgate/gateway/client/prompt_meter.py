"""How long a prompt is, before an engine has read it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.end_points import Prompt
from fluidgate.gateway.client.prompt_contents import Contents, contents_of
from fluidgate.gateway.client.prompt_text import chain_of
from fluidgate.gateway.prefixes import Chain

ON_THE_LOOP = 1 << 16
"""Bytes of a body that is counted at once, in some 0.2 ms; with a tokenizer, TOKENIZED_ON_THE_LOOP."""

TOKENIZED_ON_THE_LOOP = 1 << 10

EXACT = 1 << 18
"""Characters that a tokenizer counts; of a longer prompt it counts a sample."""

MOST_TEXTS = 1000
"""More texts are counted as one: each costs the tokenizer time of its own."""

PIECES, PIECE = 16, 1 << 12
"""The sample: so many pieces, each of so many characters."""

MOST_UNDER_WAY = 1 << 22
"""Bytes of bodies that wait for the tokenizer; while there are more, others are estimated."""

THREADS = 2
LEARNING = 0.1

NO_MEDIA: Mapping[str, int] = {}


class PromptMeter:
    """Counts prompt tokens: exactly where they are given as ids, by the bytes of the text or by a tokenizer otherwise.

    A text counts one token for `bytes_per_token` bytes of UTF-8, or as the tokenizer says; of a long one the tokenizer
    counts a sample. Each message counts 4 more, and each picture, sound, film or file what the gateway file says.
    Nothing that takes long is done on the event loop.
    """

    def __init__(
        self, bytes_per_token: float, tokenizer: Path | None = None, *, media: Mapping[str, int] = NO_MEDIA
    ) -> None:
        """
        Args:
            media: tokens of an "image", an "audio", a "video" and a "file".

        Raises:
            FluidgateError: the tokenizer can't be read.
        """
        self._bytes_per_token = bytes_per_token
        self._media = media
        self._tokenize = None if tokenizer is None else _loaded(tokenizer)
        self._chars_per_token = bytes_per_token
        self._under_way = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="prompt-meter")

    async def measured(self, kind: Prompt, body: Mapping[str, Any], size: int) -> int:
        """Tokens of the prompt in a body of `size` bytes.

        Raises:
            ApiError: there is none, or it is of no form that engines take.
        """
        tokenize = self._tokenize
        if size <= (ON_THE_LOOP if tokenize is None else TOKENIZED_ON_THE_LOOP):
            return self.count(kind, body)
        exact = tokenize is not None and self._under_way + size <= MOST_UNDER_WAY
        self._under_way += size
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self.count, kind, body, exact)
        finally:
            self._under_way -= size

    async def hashed(self, kind: Prompt, body: Mapping[str, Any], size: int) -> tuple[Chain | None, float]:
        """The prompt in a body that was measured, as a chain of hashes, and the s that took; None for several."""
        if size <= ON_THE_LOOP:
            return self._chain(kind, body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._chain, kind, body)

    def _chain(self, kind: Prompt, body: Mapping[str, Any]) -> tuple[Chain | None, float]:
        began = time.thread_time()
        chain = chain_of(kind, body, self._media)
        return chain, time.thread_time() - began

    def count(self, kind: Prompt, body: Mapping[str, Any], exact: bool = True) -> int:
        """The same, at once.

        Args:
            exact: whether the tokenizer is asked, if there is one.

        Raises:
            ApiError: as `measured`.
        """
        contents = contents_of(kind, body)
        return contents.tokens + self._of_media(contents) + self._of_texts(contents.texts, exact)

    def _of_media(self, contents: Contents) -> int:
        return sum(number * self._media.get(what, 0) for what, number in contents.media.items())

    def _of_texts(self, texts: Sequence[str], exact: bool) -> int:
        if self._tokenize is None:
            return sum(map(self._by_bytes, texts))
        size = sum(map(len, texts))
        if not exact:
            return round(size / self._chars_per_token)
        if size <= EXACT:
            tokens = self._tokenize(texts if len(texts) <= MOST_TEXTS else ["\n".join(texts)])
            self._learn(size, tokens)
            return tokens
        sample = _sample("".join(texts))
        tokens = self._tokenize(sample)
        self._learn(sum(map(len, sample)), tokens)
        return round(size * tokens / sum(map(len, sample)))

    def _learn(self, size: int, tokens: int) -> None:
        if tokens and size > PIECE:
            self._chars_per_token += LEARNING * (size / tokens - self._chars_per_token)

    def _by_bytes(self, text: str) -> int:
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        return -int(-size // self._bytes_per_token)


def _sample(text: str) -> list[str]:
    """Pieces of a long text, from its start to its end."""
    step = (len(text) - PIECE) / (PIECES - 1)
    starts = [round(k * step) for k in range(PIECES)]
    return [text[start : start + PIECE] for start in starts]


def _loaded(path: Path) -> Callable[[Sequence[str]], int]:
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
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: sum(map(len, tokenizer.encode_batch_fast(list(texts))))
