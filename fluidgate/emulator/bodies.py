"""Bodies of requests to the API, and the OpenAI error that answers a bad one."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from array import array
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

BYTES_PER_TOKEN = 4
"""Of a prompt given as text, UTF-8; there is no tokenizer."""

TokenIds = list[Annotated[int, Field(ge=0, lt=2**63)]]
Count = Annotated[int, Field(ge=1, lt=2**31)]


class ApiError(Exception):
    """An answer in OpenAI's error format."""

    def __init__(self, status: int, kind: str, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.parameter = parameter

    def to_dict(self) -> dict[str, Any]:
        error = {"message": str(self), "type": self.kind, "param": self.parameter, "code": self.status}
        return {"error": error}


def bad_request(message: str, parameter: str | None = None) -> ApiError:
    return ApiError(400, "BadRequestError", message, parameter)


class StreamOptions(BaseModel):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Body(BaseModel):
    """What both endpoints read; what they do not know is ignored, as vLLM does."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    min_tokens: Annotated[int, Field(ge=0)] = 0
    ignore_eos: bool = False
    n: int | None = 1
    seed: int | None = None
    kv_transfer_params: dict[str, Any] | None = None

    def token_limit(self, room: int) -> int:
        """Most tokens of the answer: what the client says, or as many as there is room for."""
        return max(1, room) if self.max_tokens is None else self.max_tokens

    @abstractmethod
    def prompt_of(self) -> Prompt:
        """What the engine is to read."""

    def check(self) -> None:
        """Refuse what the engine does not do.

        Raises:
            ApiError: 400.
        """
        if self.n not in (None, 1):
            raise bad_request("n: the emulated engine answers one choice only; leave n out", "n")
        if self.stream_options is not None and not self.stream:
            raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")


class CompletionBody(Body):
    """`POST /v1/completions`."""

    prompt: str | TokenIds | list[str] | list[TokenIds]
    echo: bool | None = False

    def token_limit(self, room: int) -> int:
        return super().token_limit(min(16, room))

    def prompt_of(self) -> Prompt:
        prompt: Any = self.prompt
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            if len(prompt) > 1:
                raise bad_request("prompt: the emulated engine takes one prompt a request", "prompt")
            prompt = prompt[0]
        return text_prompt(prompt) if isinstance(prompt, str) else token_prompt(prompt)

    def check(self) -> None:
        super().check()
        if self.echo:
            raise bad_request("echo: the emulated engine does not repeat prompts; leave echo out", "echo")


class Part(BaseModel):
    type: str
    text: str = ""


class Message(BaseModel):
    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        parts = self.content if isinstance(self.content, list) else [Part(type="text", text=self.content or "")]
        return "\n".join([self.role, *(part.text for part in parts)])


class ChatBody(Body):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None

    def token_limit(self, room: int) -> int:
        return super().token_limit(room) if self.max_completion_tokens is None else self.max_completion_tokens

    def prompt_of(self) -> Prompt:
        return text_prompt("\n".join(message.text for message in self.messages))


Parsed = TypeVar("Parsed", bound=BaseModel)


@dataclass(frozen=True)
class Prompt:
    """Length of a prompt, tokens, and a digest that tells it from others."""

    tokens: int
    key: bytes


def text_prompt(text: str) -> Prompt:
    """One token for every four bytes of UTF-8, rounded up."""
    data = text.encode("utf-8", "surrogatepass")
    return Prompt(-(-len(data) // BYTES_PER_TOKEN), _digest(b"text" + data))


def token_prompt(ids: list[int]) -> Prompt:
    """As many tokens as ids."""
    return Prompt(len(ids), _digest(b"ids" + array("q", ids).tobytes()))


def parse(kind: type[Parsed], data: bytes) -> Parsed:
    """A body.

    Raises:
        ApiError: 400, saying what is wrong.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise bad_request(_reason(error)) from None


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
