"""An engine that speaks more of the APIs than completions."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from tests.gateway.moody_engine import MoodyEngine, error

Event = tuple[str, dict[str, Any]]

RESPONSE = {"id": "r", "object": "response", "output": [], "usage": {"input_tokens": 9, "output_tokens": 5}}
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "abc"}]}
MESSAGE_USAGE = {"usage": {"input_tokens": 9, "output_tokens": 4}}

RESPONSES: list[Event] = [
    ("response.created", {"response": RESPONSE | {"usage": None}}),
    *[("response.output_text.delta", {"delta": text, "item_id": "i"}) for text in "abc"],
    ("response.completed", {"response": RESPONSE}),
]
MESSAGES: list[Event] = [
    ("message_start", {"message": MESSAGE | {"content": [], "usage": {"input_tokens": 9, "output_tokens": 1}}}),
    ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
    *[("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": text}}) for text in "abc"],
    ("content_block_stop", {"index": 0}),
    ("message_delta", {"delta": {"stop_reason": "end_turn"}} | MESSAGE_USAGE),
    ("message_stop", {}),
]
EMBEDDING = {"object": "list", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}}
WHOLE: dict[str, dict[str, Any]] = {
    "/v1/responses": RESPONSE,
    "/v1/messages": MESSAGE | MESSAGE_USAGE,
    "/v1/messages/count_tokens": {"input_tokens": 9},
    "/v1/embeddings": EMBEDDING,
    "/tokenize": {"tokens": [1, 2], "count": 2},
    "/detokenize": {"prompt": "ab"},
}
STREAMED = {"/v1/responses": RESPONSES, "/v1/messages": MESSAGES}


class VersedEngine(MoodyEngine):
    """As moody as others, with the end points of `WHOLE`; `user` may also be "fails" (within the stream) or "cut"."""

    async def answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        mood = self.mood or body.get("user") or ""
        if request.path not in WHOLE:
            return await super().answer(request, body)
        body["headers"] = {name.lower(): value for name, value in request.headers.items()}
        if mood.isdigit():
            raise error(int(mood), f"scripted {mood}")
        if not body.get("stream"):
            return web.json_response(WHOLE[request.path])
        events = STREAMED[request.path]
        if mood == "fails":
            events = [*events[:4], ("error", {"error": {"type": "api_error", "message": "oops"}})]
        if mood == "cut":
            events = events[:4]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for name, data in events:
            await response.write(f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode())
        return response
