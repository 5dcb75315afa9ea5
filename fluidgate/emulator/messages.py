"""Anthropic's Messages API: its bodies, and its answers, streamed and whole, as vLLM writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from fluidgate.emulator.bodies import Body, Count, said
from fluidgate.emulator.prompt import Prompt, messages_prompt
from fluidgate.emulator.request import EngineRequest
from fluidgate.emulator.wire import DONE, Error, Form, event, packed, text

PATH = "/v1/messages"
STOPS = {"stop": "end_turn", "length": "max_tokens"}


class Conversation(BaseModel):
    """`POST /v1/messages/count_tokens`."""

    model: str
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    system: str | list[dict[str, Any]] | None = None

    def prompts(self) -> list[Prompt]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [messages_prompt(said(message) for message in system + self.messages)]


class MessagesBody(Conversation, Body):
    """`POST /v1/messages`."""

    prefix: ClassVar[str] = "chatcmpl-"
    max_tokens: Count

    def token_limit(self, room: int) -> int:
        return self.max_tokens

    def form(self, requests: Sequence[EngineRequest], model: str) -> Form:
        return MessagesForm(requests, model)


class MessagesForm(Form):
    """One block of text; its stream is of named events."""

    def opening(self) -> bytes:
        message = self._message([], None, 0)
        block = {"type": "text", "text": ""}
        return event("message_start", message=message) + event("content_block_start", index=0, content_block=block)

    def tokens(self, choice: int, after: int, upto: int) -> bytes:
        return b"".join(
            event(
                "content_block_delta",
                index=0,
                delta={"type": "text_delta", "text": text(self.requests[0], number - 1, number)},
            )
            for number in range(after + 1, upto + 1)
        )

    def closing(self) -> bytes:
        delta = {"stop_reason": self._stop, "stop_sequence": None}
        end = event("message_delta", delta=delta, usage=self._usage(self.requests[0].written))
        return event("content_block_stop", index=0) + end + event("message_stop") + DONE

    def whole(self, transfer: dict[str, Any] | None) -> bytes:
        (request,) = self.requests
        message = self._message([{"type": "text", "text": text(request)}], self._stop, request.written)
        return packed(message | ({} if transfer is None else {"kv_transfer_params": transfer}))

    def failure(self, error: Error) -> bytes:
        return event("error", error=translated(error)["error"])

    def refusal(self, error: Error) -> bytes:
        return packed(translated(error))

    @property
    def _stop(self) -> str | None:
        return STOPS.get(self.requests[0].finish or "")

    def _usage(self, written: int) -> dict[str, int]:
        return {"input_tokens": self.requests[0].prompt, "output_tokens": written}

    def _message(self, content: list[dict[str, Any]], stop: str | None, written: int) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self.model,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": self._usage(written),
        }


def translated(error: Error) -> Error:
    """An error of OpenAI's format in Anthropic's."""
    return {"type": "error", "error": {"type": error["error"]["type"], "message": error["error"]["message"]}}
