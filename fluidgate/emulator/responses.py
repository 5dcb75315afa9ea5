"""OpenAI's Responses API: its bodies, and its answers, streamed and whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fluidgate.emulator.bodies import ApiError, Body, Count, bad_request, said
from fluidgate.emulator.prompt import Prompt, messages_prompt
from fluidgate.emulator.request import EngineRequest
from fluidgate.emulator.wire import Error, Form, event, packed, text


class ResponsesBody(Body):
    """`POST /v1/responses`."""

    prefix: ClassVar[str] = "resp_"
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: Count | None = None
    previous_response_id: str | None = None
    background: bool | None = False

    def token_limit(self, room: int) -> int:
        return max(1, room) if self.max_output_tokens is None else self.max_output_tokens

    def prompts(self) -> list[Prompt]:
        items = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        if not items:
            return [messages_prompt([])]
        system = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        return [messages_prompt(said(item) for item in system + items)]

    def check(self) -> None:
        if self.previous_response_id is not None:
            missing = f"Response with id '{self.previous_response_id}' not found."
            raise ApiError(404, "invalid_request_error", missing, "response_id")
        if self.background:
            raise bad_request("background: the emulated engine answers at once; leave background out", "background")

    def form(self, requests: Sequence[EngineRequest], model: str) -> Form:
        return ResponsesForm(requests, model)


class ResponsesForm(Form):
    """One message; its stream is of named, numbered events."""

    _events = 0

    def at_once(self) -> bytes:
        known = self._response("in_progress")
        return self._event("response.created", response=known) + self._event("response.in_progress", response=known)

    def opening(self) -> bytes:
        item = self._message("in_progress") | {"content": []}
        return self._event("response.output_item.added", output_index=0, item=item) + self._event(
            "response.content_part.added", **self._place, part=_part("")
        )

    def tokens(self, choice: int, after: int, upto: int) -> bytes:
        return b"".join(
            self._event("response.output_text.delta", **self._place, delta=self._word(number), logprobs=[])
            for number in range(after + 1, upto + 1)
        )

    def closing(self) -> bytes:
        said = text(self.requests[0])
        message = self._message("completed")
        return b"".join(
            [
                self._event("response.output_text.done", **self._place, text=said, logprobs=[]),
                self._event("response.content_part.done", **self._place, part=_part(said)),
                self._event("response.output_item.done", output_index=0, item=message),
                self._event("response.completed", response=self._ended(None)),
            ]
        )

    def whole(self, transfer: dict[str, Any] | None) -> bytes:
        return packed(self._ended(transfer))

    def failure(self, error: Error) -> bytes:
        known = error["error"]
        return self._event("error", code=str(known["code"]), message=known["message"], param=known["param"])

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    @property
    def _message_id(self) -> str:
        return "msg_" + self.id.removeprefix(ResponsesBody.prefix)

    def _word(self, number: int) -> str:
        return text(self.requests[0], number - 1, number)

    def _event(self, kind: str, **body: Any) -> bytes:
        self._events += 1
        return event(kind, sequence_number=self._events - 1, **body)

    def _message(self, status: str) -> dict[str, Any]:
        content = [_part(text(self.requests[0]))]
        known = {"id": self._message_id, "type": "message", "role": "assistant"}
        return known | {"status": status, "content": content}

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "model": self.model,
            "status": status,
            "output": [],
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": None,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": None,
        }

    def _ended(self, transfer: dict[str, Any] | None) -> dict[str, Any]:
        (request,) = self.requests
        cut = request.finish == "length"
        usage = {
            "input_tokens": request.prompt,
            "input_tokens_details": {"cached_tokens": request.reused, "cache_write_tokens": 0},
            "output_tokens": request.written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": request.prompt + request.written,
        }
        return self._response("incomplete" if cut else "completed") | {
            "output": [self._message("completed")],
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": usage,
            "kv_transfer_params": transfer,
        }


def _part(said: str) -> dict[str, Any]:
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
