"""Answers as they go over the wire: chunks of a stream, and whole bodies.

The text of a chunk that is the same for all of a stream is encoded once; a token costs one join of bytes.
"""

from __future__ import annotations

import json
import time
from typing import Any

from fluidgate.emulator.request import EngineRequest

WORDS = tuple(
    b" the of and to in is was that for as with by on are from at his an were which one have this had not be their but"
    b" first been".split(b" ")[1:]
)
GARBAGE = b"garbage"
DONE = b"data: [DONE]\n\n"


def token(request: EngineRequest, number: int) -> bytes:
    """A token of an answer, from 1: one word, the same for the same prompt; `garbage` where the KV was lost."""
    word = GARBAGE if request.garbled else WORDS[(request.key[0] + number * (1 + request.key[1] % 7)) % len(WORDS)]
    return word if number == 1 else b" " + word


def usage(request: EngineRequest, tokens: int) -> dict[str, int]:
    return {"prompt_tokens": request.prompt, "total_tokens": request.prompt + tokens, "completion_tokens": tokens}


class StreamText:
    """The chunks of one stream.

    Args:
        chat: whether they are those of `/v1/chat/completions`.
        usage_at_end: `stream_options.include_usage`.
        usage_always: `stream_options.continuous_usage_stats`.
    """

    def __init__(
        self, request: EngineRequest, model: str, *, chat: bool, usage_at_end: bool, usage_always: bool
    ) -> None:
        self._request = request
        self._usage_at_end = usage_at_end
        self._usage_always = usage_always
        kind = "chat.completion.chunk" if chat else "text_completion"
        known = {"id": request.id, "object": kind, "created": int(time.time()), "model": model}
        self._start = b"data: " + json.dumps(known, separators=(",", ":")).encode()[:-1] + b',"choices":['
        self._head = self._start + (b'{"index":0,"delta":{"content":"' if chat else b'{"index":0,"text":"')
        self._tail = b'"},"logprobs":null,"finish_reason":' if chat else b'","logprobs":null,"finish_reason":'
        self._chat = chat

    def opening(self) -> bytes:
        """What comes before the first token: the role, of a chat."""
        if not self._chat:
            return b""
        delta = b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return self._start + delta + self._end(0)

    def tokens(self, after: int, upto: int) -> bytes:
        """The chunks of the tokens beyond `after`, up to `upto`."""
        return b"".join([self._chunk(number) for number in range(after + 1, upto + 1)])

    def closing(self) -> bytes:
        """What comes after the last token."""
        if not self._usage_at_end:
            return DONE
        return self._start + b"]" + self._usage(self._request.written) + b"}\n\n" + DONE

    def _chunk(self, number: int) -> bytes:
        request = self._request
        reason = b"null"
        if number == request.written and request.finish is not None:
            reason = b'"' + request.finish.encode() + b'"'
        text = token(request, number)
        return b"".join((self._head, text, self._tail, reason, b',"stop_reason":null}', self._end(number)))

    def _end(self, tokens: int) -> bytes:
        if self._usage_always:
            return b"]" + self._usage(tokens) + b"}\n\n"
        return b'],"usage":null}\n\n' if self._usage_at_end else b"]}\n\n"

    def _usage(self, tokens: int) -> bytes:
        prompt = self._request.prompt
        return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % (
            prompt,
            prompt + tokens,
            tokens,
        )


def whole_answer(request: EngineRequest, model: str, *, chat: bool, transfer: dict[str, Any] | None) -> bytes:
    """The body of an answer that is not streamed."""
    text = b"".join(token(request, number) for number in range(1, request.written + 1)).decode()
    choice: dict[str, Any] = {"index": 0}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice |= {"logprobs": None, "finish_reason": request.finish, "stop_reason": None}
    body = {
        "id": request.id,
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage(request, request.written),
        "kv_transfer_params": transfer,
    }
    return json.dumps(body, separators=(",", ":")).encode()
