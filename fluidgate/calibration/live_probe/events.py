"""The events of a streamed completion: how many tokens there are after each piece of it."""

from __future__ import annotations

import re

COUNTS = re.compile(rb'"(?:completion_tokens|predicted_n)": *(\d+)')
"""Tokens so far, where the engine states them in each event: vLLM's and SGLang's name, and llama.cpp's."""

PROMPT = re.compile(rb'"prompt_tokens": *(\d+)')
CHOICE = re.compile(rb'"choices": *\[ *\{')
ERROR = re.compile(rb'data: ?(\{"error": *[^\r\n]*)')


class TokenEvents:
    """Counts the tokens of a stream, which may be cut anywhere.

    Where the engine states how many there are, that counts: it may put several into an event, or none. Else each event
    with a choice is a token, but for the last, empty one.

    Attributes:
        tokens: output tokens so far.
        prompt: prompt tokens, once the engine has stated them.
        done: the stream has come to its end.
        error: what the engine tells of an error, JSON.
    """

    __slots__ = ("_begun", "done", "error", "prompt", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.prompt: int | None = None
        self.done = False
        self.error: bytes | None = None
        self._begun = b""

    def feed(self, piece: bytes) -> None:
        """The next bytes of the stream."""
        *lines, self._begun = (self._begun + piece.replace(b"\r", b"\n")).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._read(line)

    def _read(self, line: bytes) -> None:
        if line.startswith((b"data: [DONE]", b"data:[DONE]")):
            self.done = True
        elif failed := ERROR.match(line):
            self.error = failed[1]
        else:
            if stated := PROMPT.search(line):
                self.prompt = int(stated[1])
            if stated := COUNTS.search(line):
                self.tokens = max(self.tokens, int(stated[1]))
            elif CHOICE.search(line) and not (b'"text":""' in line.replace(b" ", b"") and b"null" not in line):
                self.tokens += 1
