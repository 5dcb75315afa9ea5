"""`/tokenize` and `/detokenize`: four bytes of UTF-8 are a token, and its id says which."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from fluidgate.emulator.bodies import BYTES_PER_TOKEN, Message, TokenIds, chat_text

MARK = b"\x01"
"""Before the bytes of a token, so that those that begin with 0 count too."""


class TokenizeBody(BaseModel):
    """`POST /tokenize`: a prompt or a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    return_token_strs: bool | None = False

    @property
    def text(self) -> str | None:
        """What is to be cut; None if there is neither."""
        return self.prompt if self.messages is None else chat_text(self.messages)


class DetokenizeBody(BaseModel):
    """`POST /detokenize`."""

    model: str | None = None
    tokens: TokenIds


def tokenized(text: str, max_model_len: int, *, strings: bool) -> dict[str, Any]:
    """The answer to `/tokenize`."""
    data = text.encode("utf-8", "surrogatepass")
    pieces = [data[at : at + BYTES_PER_TOKEN] for at in range(0, len(data), BYTES_PER_TOKEN)]
    return {
        "count": len(pieces),
        "max_model_len": max_model_len,
        "tokens": [int.from_bytes(MARK + piece) for piece in pieces],
        "token_strs": [piece.decode("utf-8", "replace") for piece in pieces] if strings else None,
    }


def detokenized(ids: list[int]) -> str:
    """The text of tokens; an id that no text has is written as a number."""
    return b"".join(_piece(number) for number in ids).decode("utf-8", "replace")


def _piece(number: int) -> bytes:
    data = number.to_bytes(8).lstrip(b"\x00")
    if data[:1] == MARK and 1 < len(data) <= 1 + BYTES_PER_TOKEN:
        return data[1:]
    return b" %d" % number
