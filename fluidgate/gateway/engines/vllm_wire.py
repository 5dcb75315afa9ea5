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
    rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc|prefix_cache_hits_total)(?:\{.*\})? (\S+)$",
    re.MULTILINE,
)
BY_SOURCE = re.compile(rb'^vllm:prompt_tokens_by_source_total\{.*source="(\w+)".*\} (\S+)$', re.MULTILINE)
FOUND, FETCHED = b"local_cache_hit", b"external_kv_transfer"
KV_MEMORY = re.compile(rb"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
BLOCKS, BLOCK_SIZE = (re.compile(rb'\b%s="(\d+)"' % name) for name in (b"num_gpu_blocks", b"block_size"))
PREFIX_CACHING = re.compile(rb'^vllm:cache_config_info\{.*enable_prefix_caching="(\w+)"', re.MULTILINE)

COUNTED_WITHIN = 2.0
"""s after an answer, within which its tokens are in the metrics."""


async def version(upstream: Upstream) -> str | None:
    try:
        return str(orjson.loads(await upstream.get("/version"))["version"])
    except (EngineError, orjson.JSONDecodeError, KeyError):
        return None


async def load(upstream: Upstream) -> Load:
    """Requests and prompt tokens over all the engine's replicas, and the share of KV memory in use of the fullest."""
    gauges: dict[bytes, list[float]] = {}
    page = await upstream.get("/metrics")
    for name, value in GAUGES.findall(page):
        gauges.setdefault(name, []).append(float(value))
    sources = by_source(page)
    hits = sources.get(FOUND, sum(gauges.get(b"prefix_cache_hits_total", ())))
    if not gauges:
        raise NotThisEngine(f"{upstream.url}: its /metrics has no vllm: metric; start it without --disable-log-stats")
    with speaking(upstream.url, "vLLM"):
        return Load(
            running=round(sum(gauges[b"num_requests_running"])),
            waiting=round(sum(gauges[b"num_requests_waiting"])),
            kv_usage=max(gauges.get(b"kv_cache_usage_perc", ()), default=None),
            prefix_hits=hits if FOUND in sources or b"prefix_cache_hits_total" in gauges else None,
            prompt_tokens=sum(sources.values()) if sources else None,
        )


def by_source(page: bytes) -> dict[bytes, float]:
    """Prompt tokens over all replicas since the start, by where their KV came from; empty where it does not say."""
    tokens: dict[bytes, float] = {}
    for source, value in BY_SOURCE.findall(page):
        tokens[source] = tokens.get(source, 0.0) + float(value)
    return tokens


async def memory(upstream: Upstream) -> tuple[bool, int | None]:
    """Whether it caches prefixes, and the tokens of its KV memory, over all its replicas, if it says so."""
    page = await upstream.get("/metrics")
    caches = PREFIX_CACHING.search(page)
    tokens = 0
    for labels in KV_MEMORY.findall(page):
        blocks, size = BLOCKS.search(labels), BLOCK_SIZE.search(labels)
        tokens += int(blocks[1]) * int(size[1]) if blocks and size else 0
    return caches is not None and caches[1] == b"True", tokens or None


async def fetched(upstream: Upstream, *, beyond: float = -1.0) -> float:
    """Prompt tokens whose KV came from another engine, once they are more than `beyond` or have had their time."""
    deadline = time.monotonic() + COUNTED_WITHIN
    while True:
        tokens = by_source(await upstream.get("/metrics")).get(FETCHED, 0.0)
        if tokens > beyond or time.monotonic() > deadline:
            return tokens
        await asyncio.sleep(0.05)
