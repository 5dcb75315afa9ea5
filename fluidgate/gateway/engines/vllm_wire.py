"""The words of vLLM's server that its adapters share."""

from __future__ import annotations

import asyncio
import re
import time

import orjson

from fluidgate.gateway.engines.adapter import Load
from fluidgate.gateway.engines.errors import EngineError, NotThisEngine, speaking
from fluidgate.gateway.engines.upstream import Upstream

GAUGES = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc)(?:\{.*\})? (\S+)$", re.MULTILINE
)
FETCHED = re.compile(rb'^vllm:prompt_tokens_by_source_total\{.*source="external_kv_transfer".*\} (\S+)$', re.MULTILINE)
PREFIX_CACHING = re.compile(rb'^vllm:cache_config_info\{.*enable_prefix_caching="(\w+)"', re.MULTILINE)

COUNTED_WITHIN = 2.0
"""s after an answer, within which its tokens are in the metrics."""


async def version(upstream: Upstream) -> str | None:
    try:
        return str(orjson.loads(await upstream.get("/version"))["version"])
    except (EngineError, orjson.JSONDecodeError, KeyError):
        return None


async def load(upstream: Upstream) -> Load:
    """Requests over all the engine's replicas, and the share of KV memory in use of the fullest."""
    gauges: dict[bytes, list[float]] = {}
    for name, value in GAUGES.findall(await upstream.get("/metrics")):
        gauges.setdefault(name, []).append(float(value))
    if not gauges:
        raise NotThisEngine(f"{upstream.url}: its /metrics has no vllm: metric; start it without --disable-log-stats")
    with speaking(upstream.url, "vLLM"):
        return Load(
            running=round(sum(gauges[b"num_requests_running"])),
            waiting=round(sum(gauges[b"num_requests_waiting"])),
            kv_usage=max(gauges.get(b"kv_cache_usage_perc", ()), default=None),
        )


async def caches_prefixes(upstream: Upstream) -> bool:
    found = PREFIX_CACHING.search(await upstream.get("/metrics"))
    return found is not None and found[1] == b"True"


async def fetched(upstream: Upstream, *, beyond: float = -1.0) -> float:
    """Prompt tokens whose KV came from another engine, once they are more than `beyond` or have had their time."""
    deadline = time.monotonic() + COUNTED_WITHIN
    while True:
        tokens = sum(map(float, FETCHED.findall(await upstream.get("/metrics"))))
        if tokens > beyond or time.monotonic() > deadline:
            return tokens
        await asyncio.sleep(0.05)
