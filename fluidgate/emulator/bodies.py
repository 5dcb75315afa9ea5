"""Bodies of requests to the API, and the OpenAI error that answers a bad one."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, Field, ValidationError

from fluidgate.emulator.prompt import Prompt, messages_prompt, rendered, text_prompt, token_prompt
from fluidgate.emulator.request import EngineRequest
from fluidgate.emulator.wire import Form, OpenAiForm

MOST_CHOICES = 16_384
"""vLLM's `VLLM_MAX_N_SEQUENCES`."""

TokenIds = list[Annotated[int, Field(ge=0, lt=2**63)]]
Prompts = str | TokenIds | list[str] | list[TokenIds]
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
    """What all endpoints read that let an engine work; what they do not know is ignored, as vLLM does.

    Attributes:
        prefix: of the ids of answers.
        embeds: whether prompts are read only.
    """

    prefix: ClassVar[str]
    embeds: ClassVar[bool] = False
    model: str | None = None
    stream: bool | None = False
    min_tokens: Annotated[int, Field(ge=0)] = 0
    ignore_eos: bool = False
    seed: int | None = None
    kv_transfer_params: dict[str, Any] | None = None
    bootstrap_host: str | None = None
    bootstrap_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    bootstrap_room: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    rid: str | None = None

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return 1

    @property
    def remote_decode(self) -> bool:
        """Whether the prompt is to be read for another engine."""
        return bool((self.kv_transfer_params or {}).get("do_remote_decode"))

    @abstractmethod
    def prompts(self) -> list[Prompt]:
        """What the engine is to read."""

    def token_limit(self, room: int) -> int:
        """Most tokens of an answer, where there is room for so many."""
        return max(1, room)

    def check(self) -> None:
        """Refuse what the engine does not do.

        Raises:
            ApiError: 400, or 404.
        """

    @abstractmethod
    def form(self, requests: Sequence[EngineRequest], model: str) -> Form:
        """How the answer is written."""


class OpenAiBody(Body):
    """What completions and chats have in common. `best_of` is not known any more, as in vLLM."""

    chat: ClassVar[bool]
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = 1
    return_token_ids: bool | None = False

    @property
    def choices(self) -> int:
        return self.n or 1

    def token_limit(self, room: int) -> int:
        return super().token_limit(room) if self.max_tokens is None else self.max_tokens

    def check(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")

    def form(self, requests: Sequence[EngineRequest], model: str) -> Form:
        options = self.stream_options or StreamOptions()
        at_end = bool(options.include_usage)
        always = at_end and bool(options.continuous_usage_stats)
        return OpenAiForm(
            requests,
            model,
            n=self.choices,
            chat=self.chat,
            usage_at_end=at_end,
            usage_always=always,
            ids=bool(self.return_token_ids),
        )


class CompletionBody(OpenAiBody):
    """`POST /v1/completions`."""

    prefix: ClassVar[str] = "cmpl-"
    chat: ClassVar[bool] = False
    prompt: Prompts
    echo: bool | None = False

    def token_limit(self, room: int) -> int:
        return super().token_limit(min(16, room))

    def prompts(self) -> list[Prompt]:
        return prompts_of(self.prompt)

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
        return rendered(self.role, "\n".join(part.text for part in parts))


class ChatBody(OpenAiBody):
    """`POST /v1/chat/completions`."""

    prefix: ClassVar[str] = "chatcmpl-"
    chat: ClassVar[bool] = True
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None

    def token_limit(self, room: int) -> int:
        return super().token_limit(room) if self.max_completion_tokens is None else self.max_completion_tokens

    def prompts(self) -> list[Prompt]:
        return [messages_prompt(message.text for message in self.messages)]


def said(item: Mapping[str, Any]) -> str:
    """What an item of a conversation adds to the prompt: role and texts, or else its values."""
    content = item.get("content")
    if not isinstance(item.get("role"), str) or not isinstance(content, str | list):
        return json.dumps(item)
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part["text"] if isinstance(part, dict) and "text" in part else json.dumps(part) for part in parts]
    return rendered(item["role"], "\n".join(map(str, texts)))


Parsed = TypeVar("Parsed", bound=BaseModel)


def prompts_of(given: Prompts) -> list[Prompt]:
    """One prompt, or several; a list of numbers is one."""
    if isinstance(given, str):
        return [text_prompt(given)]
    if not given or isinstance(given[0], int):
        return [token_prompt(cast(list[int], given))]
    several = cast(list[str | list[int]], given)
    return [text_prompt(each) if isinstance(each, str) else token_prompt(each) for each in several]


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
