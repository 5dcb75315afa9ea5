"""`/tokenize` and `/detokenize`: four bytes of UTF-8 are a token, and its id says which."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from fluidgate.emulator.bodies import Message, TokenIds
from fluidgate.emulator.prompt import BYTES_PER_TOKEN, MARK


class TokenizeBody(BaseModel):
    """`POST /tokenize`: a prompt or a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    return_token_strs: bool | None = False

    @property
    def texts(self) -> list[str] | None:
        """What is to be cut, each by itself; None if there is nothing."""
        if self.messages is not None:
            return [message.text for message in self.messages]
        return None if self.prompt is None else [self.prompt]


class DetokenizeBody(BaseModel):
    """`POST /detokenize`."""

    model: str | None = None
    tokens: TokenIds


def tokenized(texts: list[str], max_model_len: int, *, strings: bool) -> dict[str, Any]:
    """The answer to `/tokenize`."""
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    pieces = [data[at : at + BYTES_PER_TOKEN] for data in parts for at in range(0, len(data), BYTES_PER_TOKEN)]
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
