"""The words of SGLang's server."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from fluidgate.gateway.engines.adapter import Load, Role
from fluidgate.gateway.engines.errors import EngineError, EngineRefused, NotThisEngine, speaking
from fluidgate.gateway.engines.upstream import Upstream

ROLES: dict[Any, Role] = {"null": "both", None: "both", "prefill": "prefill", "decode": "decode"}
"""By `disaggregation_mode`."""

BOOTSTRAP_PORT = 8998
"""SGLang's own `--disaggregation-bootstrap-port`."""

GAUGES = re.compile(
    rb"^sglang:(num_running_reqs|num_queue_reqs|num_prefill_bootstrap_queue_reqs|num_prefill_inflight_queue_reqs"
    rb"|num_decode_prealloc_queue_reqs|num_decode_transfer_queue_reqs|token_usage)(?:\{.*\})? (\S+)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class ServerInfo:
    """What a server says of itself.

    Attributes:
        role: whether it takes whole requests, or one side of pairs.
        bootstrap_port: where decode engines meet a prefill engine.
        slots: most requests in its batch; None if it does not say.
        caches_prefixes: whether a prompt that was read serves the same prompt again.
        mixes: whether prompts are read beside decodes, in one iteration.
    """

    role: Role
    bootstrap_port: int
    slots: int | None
    caches_prefixes: bool
    mixes: bool
    version: str | None


async def server_info(upstream: Upstream) -> ServerInfo:
    """
    Raises:
        NotThisEngine: it is no SGLang.
    """
    page = await _first_of(upstream, "/server_info", "/get_server_info")
    with speaking(upstream.url, "SGLang"):
        told = orjson.loads(page)
        role = ROLES[told["disaggregation_mode"]]
        slots = told.get("max_running_requests")
        return ServerInfo(
            role=role,
            bootstrap_port=int(told.get("disaggregation_bootstrap_port") or BOOTSTRAP_PORT),
            slots=slots if isinstance(slots, int) else None,
            caches_prefixes=not told.get("disable_radix_cache"),
            mixes=bool(told.get("enable_mixed_chunk")),
            version=told.get("version"),
        )


class LoadReader:
    """Reads a server's load where it tells it: `/v1/loads`, which is up to date; else its metrics, which lag; else it
    is unknown."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._sources: list[Callable[[Upstream], Awaitable[Load]]] = [_from_loads, _from_metrics, _unknown]

    async def read(self) -> Load:
        while True:
            try:
                return await self._sources[0](self._upstream)
            except EngineRefused as refused:
                if refused.status != 404 or len(self._sources) == 1:
                    raise
                del self._sources[0]


async def abort(upstream: Upstream, request: str) -> None:
    """Have a request of the id `rid` ended; nothing if it is not there, or the server is not. A request that waits for
    the other side of its pair does not end with its connection."""
    with suppress(EngineError):
        async with upstream.open("/abort_request", orjson.dumps({"rid": request}), "", {}) as answer:
            await answer.read()


async def _from_loads(upstream: Upstream) -> Load:
    """Requests over all ranks, those among the waiting that wait for the other side; KV usage of the fullest."""
    page = await upstream.get("/v1/loads?include=core")
    with speaking(upstream.url, "SGLang"):
        ranks = orjson.loads(page)["loads"]
        return Load(
            running=sum(rank["num_running_reqs"] for rank in ranks),
            waiting=sum(rank["num_waiting_reqs"] for rank in ranks),
            kv_usage=max(rank["token_usage"] for rank in ranks),
        )


async def _from_metrics(upstream: Upstream) -> Load:
    gauges: dict[bytes, list[float]] = {}
    for name, value in GAUGES.findall(await upstream.get("/metrics")):
        gauges.setdefault(name, []).append(float(value))
    if b"num_running_reqs" not in gauges:
        raise NotThisEngine(f"{upstream.url}: its /metrics has no sglang: metric of its requests")
    running = round(sum(gauges.pop(b"num_running_reqs")))
    usage = max(gauges.pop(b"token_usage", ()), default=None)
    return Load(running, round(sum(map(sum, gauges.values()))), usage)


async def _unknown(upstream: Upstream) -> Load:
    """That it answers."""
    await upstream.get("/v1/models")
    return Load(running=None, waiting=None, kv_usage=None)


async def _first_of(upstream: Upstream, page: str, older: str) -> bytes:
    """A page that older versions have under another name."""
    try:
        return await upstream.get(page)
    except EngineRefused as refused:
        if refused.status != 404:
            raise
    try:
        return await upstream.get(older)
    except EngineRefused as refused:
        raise NotThisEngine(f"{upstream.url} answers, but not as SGLang does; check its address and kind") from refused
