"""KV between two engines, as vLLM's NixlConnector does it: the decoder pulls what the prefiller has pinned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from pydantic import BaseModel, Field, ValidationError

PATH = "/internal/kv"
PATIENCE = aiohttp.ClientTimeout(total=5.0)


class Remote(BaseModel):
    """Where the KV of a prompt is: the `kv_transfer_params` that the prefiller answered."""

    remote_engine_id: str
    remote_request_id: str
    remote_host: str
    remote_port: int = Field(ge=1, le=65535)
    remote_block_ids: list[int]
    remote_prefill_cached_tokens: int | None = None

    @property
    def url(self) -> str:
        host = f"[{self.remote_host}]" if ":" in self.remote_host else self.remote_host
        return f"http://{host}:{self.remote_port}{PATH}"


class KvRequest(BaseModel):
    """What a decoder asks a prefiller for."""

    engine_id: str
    request_id: str


def remote_of(params: Mapping[str, Any] | None) -> Remote | None:
    """Where the KV of a request is; None if it is to be computed here, as vLLM does where a key is missing."""
    if not params or not params.get("do_remote_prefill"):
        return None
    try:
        return Remote.model_validate(params)
    except ValidationError:
        return None


async def fetch(session: aiohttp.ClientSession, remote: Remote) -> int | None:
    """Pull the KV of a prompt, which is then free there: its tokens, or None where it is no more."""
    wanted = KvRequest(engine_id=remote.remote_engine_id, request_id=remote.remote_request_id)
    try:
        async with session.post(remote.url, json=wanted.model_dump(), timeout=PATIENCE) as answer:
            return int((await answer.json())["tokens"]) if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError):
        return None
