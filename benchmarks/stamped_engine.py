"""An engine that does nothing but stamp: each token of a stream is the epoch at which it was sent, in ns.

    python -m benchmarks.stamped_engine PORT

Every stream has a token each PERIOD seconds from the moment it came. The clock is the machine's monotonic one, which
all processes share, so a client can say how long each token was on its way.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import uvicorn

PERIOD = 0.1
MODEL = "stamped"
EVENT = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"stamped",'
    b'"choices":[{"index":0,"text":"%d ","logprobs":null,"finish_reason":null}]}\n\n'
)
LAST = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"stamped",'
    b'"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
)
METRICS = b'vllm:num_requests_running{engine="0"} 0.0\nvllm:num_requests_waiting{engine="0"} 0.0\n'
PAGES = {
    "/health": b"{}",
    "/version": b'{"version":"0.32.0"}',
    "/v1/models": orjson.dumps(
        {
            "object": "list",
            "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "x", "max_model_len": 8192}],
        }
    ),
    "/metrics": METRICS,
}

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    if (page := PAGES.get(scope["path"])) is not None:
        await start(send, 200, b"application/json")
        await send({"type": "http.response.body", "body": page})
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = orjson.loads(body)
    await start(send, 200, b"text/event-stream; charset=utf-8")
    due = time.monotonic()
    for _ in range(asked["max_tokens"]):
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await send({"type": "http.response.body", "body": EVENT % time.monotonic_ns(), "more_body": True})
        due += PERIOD
    await send({"type": "http.response.body", "body": LAST})


async def start(send: Send, status: int, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), lifespan="off", access_log=False, log_level="warning", backlog=2048)
