"""Answers as they go over the wire: chunks of a stream, and whole bodies, in the forms of OpenAI's completions.

The text of a chunk that is the same for all of a stream is encoded once; a token costs one join of bytes.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from fluidgate.emulator.prompt import ID, ids_of
from fluidgate.emulator.request import EngineRequest

OPENINGS = b"that with this have from they been were when what your each then more time like many them some".split()
"""What an answer begins with."""

THREE = b"the and for was are one had not but all can her out new its two may any now how our day way see get has him"
WORDS = tuple(b" " + word for word in THREE.split())
"""What follows. Each is a token as `prompt` cuts texts: an answer that comes back in a prompt is the same tokens."""

GARBAGE = b"garbage"
DONE = b"data: [DONE]\n\n"
Error = dict[str, Any]


class Form(ABC):
    """The bytes of an answer, as one endpoint writes them.

    Args:
        requests: the choices of the answer, in order.
        model: name that the answer states.
    """

    def __init__(self, requests: Sequence[EngineRequest], model: str) -> None:
        self.requests = requests
        self.id = requests[0].id
        self.model = model
        self.created = int(time.time())

    def at_once(self) -> bytes:
        """What of a stream comes as soon as the request is taken."""
        return b""

    def opening(self) -> bytes:
        """What comes before the first token."""
        return b""

    @abstractmethod
    def tokens(self, choice: int, after: int, upto: int) -> bytes:
        """The tokens of a choice beyond `after`, up to `upto`."""

    @abstractmethod
    def closing(self) -> bytes:
        """What comes after the last token."""

    @abstractmethod
    def whole(self, transfer: dict[str, Any] | None) -> bytes:
        """The body of an answer that is not streamed; `transfer` says where the KV of its prompt is."""

    def failure(self, error: Error) -> bytes:
        """How a stream ends that has failed; `error` in OpenAI's format."""
        return b"data: " + packed(error) + b"\n\n" + DONE

    def refusal(self, error: Error) -> bytes:
        """The body of an answer that has failed."""
        return packed(error)


def packed(body: dict[str, Any] | list[int]) -> bytes:
    """JSON without spaces."""
    return json.dumps(body, separators=(",", ":")).encode()


def event(kind: str, **body: Any) -> bytes:
    """A server-sent event that has a name."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), packed({"type": kind} | body))


def token(request: EngineRequest, number: int) -> bytes:
    """A token of an answer, from 1: one word, the same for the same prompt; `garbage` where the KV was lost."""
    if request.garbled:
        word = GARBAGE
    else:
        key = request.key
        at = key[0] + 11 * request.choice + number * (1 + key[1] % 7)
        return OPENINGS[at % len(OPENINGS)] if number == 1 else WORDS[at % len(WORDS)]
    return word if number == 1 else b" " + word


def text(request: EngineRequest, after: int = 0, upto: int | None = None) -> str:
    """The tokens of an answer beyond `after`, up to `upto`; all that are written by default."""
    upto = request.written if upto is None else upto
    return b"".join([token(request, number) for number in range(after + 1, upto + 1)]).decode()


def ids_written(request: EngineRequest, after: int = 0, upto: int | None = None) -> list[int]:
    """The ids of the same tokens."""
    upto = request.written if upto is None else upto
    words = (token(request, number) for number in range(after + 1, upto + 1))
    return [int(each) for word in words for each in np.frombuffer(ids_of(word), ID)]


class OpenAiForm(Form):
    """`/v1/completions` and `/v1/chat/completions`.

    Args:
        n: choices of each prompt.
        chat: which of the two.
        usage_at_end: `stream_options.include_usage`.
        usage_always: `stream_options.continuous_usage_stats`, beside that.
        ids: `return_token_ids`: the ids of what is written stand beside it.
    """

    def __init__(
        self,
        requests: Sequence[EngineRequest],
        model: str,
        *,
        n: int,
        chat: bool,
        usage_at_end: bool,
        usage_always: bool,
        ids: bool = False,
    ) -> None:
        super().__init__(requests, model)
        self._ids = ids
        self._n = n
        self._chat = chat
        self._usage_at_end = usage_at_end
        self._usage_always = usage_always
        kind = "chat.completion.chunk" if chat else "text_completion"
        known = {"id": self.id, "object": kind, "created": self.created, "model": model}
        self._start = b"data: " + packed(known)[:-1] + b',"choices":['
        content = b'"delta":{"content":"' if chat else b'"text":"'
        self._heads = [self._start + b'{"index":%d,%s' % (index, content) for index in range(len(requests))]
        self._tail = b'"},"logprobs":null,"finish_reason":' if chat else b'","logprobs":null,"finish_reason":'

    def opening(self) -> bytes:
        """The roles, of a chat."""
        if not self._chat:
            return b""
        delta = b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return b"".join(
            self._start + delta % index + self._end(request.prompt, 0) for index, request in enumerate(self.requests)
        )

    def tokens(self, choice: int, after: int, upto: int) -> bytes:
        return b"".join([self._chunk(choice, number) for number in range(after + 1, upto + 1)])

    def closing(self) -> bytes:
        if not self._usage_at_end:
            return DONE
        details = b',"prompt_tokens_details":{"cached_tokens":%d}' % self._cached if self._cached else b""
        return self._start + b"]" + _usage(self._prompts, self._written, details) + b"}\n\n" + DONE

    def whole(self, transfer: dict[str, Any] | None) -> bytes:
        prompts, written = self._prompts, self._written
        body = {
            "id": self.id,
            "object": "chat.completion" if self._chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [self._choice(index, request) for index, request in enumerate(self.requests)],
            "usage": {"prompt_tokens": prompts, "total_tokens": prompts + written, "completion_tokens": written}
            | ({"prompt_tokens_details": {"cached_tokens": self._cached}} if self._cached else {}),
            "kv_transfer_params": transfer,
        }
        return packed(body)

    @property
    def _prompts(self) -> int:
        """Tokens of all prompts, each counted once."""
        return sum(request.prompt for request in self.requests[:: self._n])

    @property
    def _cached(self) -> int:
        """Tokens of all prompts that were found in the memory; told where there are any, as by vLLM."""
        return sum(request.reused for request in self.requests[:: self._n])

    @property
    def _written(self) -> int:
        return sum(request.written for request in self.requests)

    def _choice(self, index: int, request: EngineRequest) -> dict[str, Any]:
        said = text(request)
        content = {"message": {"role": "assistant", "content": said}} if self._chat else {"text": said}
        ids = {"token_ids": ids_written(request)} if self._ids else {}
        ended = {"logprobs": None, "finish_reason": request.finish, "stop_reason": None}
        return {"index": index} | content | ended | ids

    def _chunk(self, choice: int, number: int) -> bytes:
        request = self.requests[choice]
        reason = b"null"
        if number == request.written and request.finish is not None:
            reason = b'"' + request.finish.encode() + b'"'
        ids = b',"token_ids":' + packed(ids_written(request, number - 1, number)) if self._ids else b""
        parts = (self._heads[choice], token(request, number), self._tail, reason, b',"stop_reason":null', ids, b"}")
        return b"".join(parts) + self._end(request.prompt, number)

    def _end(self, prompt: int, tokens: int) -> bytes:
        if self._usage_always:
            return b"]" + _usage(prompt, tokens) + b"}\n\n"
        return b'],"usage":null}\n\n' if self._usage_at_end else b"]}\n\n"


def _usage(prompt: int, tokens: int, details: bytes = b"") -> bytes:
    counted = b'"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d' % (prompt, prompt + tokens, tokens)
    return b',"usage":{' + counted + details + b"}"
