"""What an engine says of itself, as far as it does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from fluidgate.calibration.live_probe.client import Client
from fluidgate.errors import FluidgateError, nearest
from fluidgate.shown import Brief

RUNNING = re.compile(
    rb"^(?:vllm:num_requests_(?:running|waiting)|sglang:num_(?:running|queue)_reqs"
    rb"|llamacpp:requests_(?:processing|deferred))(?:\{[^}\n]*\})? (\S+)",
    re.MULTILINE,
)
"""Requests that an engine works on, and those that wait."""

CACHE = re.compile(rb"^vllm:cache_config_info\{([^\n]*)\}", re.MULTILINE)
LABEL = re.compile(rb'(\w+)="([^"]*)"')
VLLM_KEYS = {
    "tensor_parallel": re.compile(r"tensor_parallel_size[\"']?[=:] ?(\d+)"),
    "dtype": re.compile(r"\bdtype[\"']?[=:] ?[\"']?(?:torch\.)?(\w+)"),
    "chunk_size": re.compile(r"max_num_batched_tokens[\"']?[=:] ?(\d+)"),
    "batch_size": re.compile(r"max_num_seqs[\"']?[=:] ?(\d+)"),
}
"""In the text of vLLM's `/server_info`, which only some of its servers show."""


@dataclass(frozen=True, repr=False)
class Facts(Brief):
    """An engine, as its pages tell.

    Attributes:
        model: that is asked.
        engine: its name and version; empty where unknown.
        max_model_len: most tokens of prompt and answer; None where unknown, as the next ones.
        kv_tokens: that its KV memory holds.
        batch_size: most requests in a batch.
        chunk_size: prompt tokens of an iteration, or tokens of it.
        tensor_parallel, dtype: how it runs the model.
        block_size: tokens of a block of KV memory.
        extra: keys that its completions need.
        counts: whether it tells how many requests it has.
    """

    model: str
    engine: str = ""
    max_model_len: int | None = None
    kv_tokens: int | None = None
    batch_size: int | None = None
    chunk_size: int | None = None
    tensor_parallel: int | None = None
    dtype: str = ""
    block_size: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    counts: bool = False


async def look(client: Client, model: str) -> Facts:
    """Ask an engine's pages.

    Args:
        model: to be asked; empty for the first that the engine names.

    Raises:
        FluidgateError: it does not answer, or has no such model.
    """
    entries = await client.models()
    names = [entry["id"] for entry in entries]
    if not names:
        raise FluidgateError(f"--url: {client.url} serves no model; load one")
    if model and model not in names:
        hint = nearest(model, names) or f"; it has {', '.join(names[:6])}"
        raise FluidgateError(f"--model: {client.url} has no {model!r}{hint}")
    entry = next(each for each in entries if not model or each["id"] == model)
    known: dict[str, Any] = {"max_model_len": _whole(entry.get("max_model_len"))}
    page = await client.page("/metrics")
    known["counts"] = page is not None and RUNNING.search(page) is not None
    for ask in (_llama_cpp, _sglang, _vllm):
        if (found := await ask(client, page or b"")) is not None:
            known |= {key: value for key, value in found.items() if value is not None}
            break
    return Facts(model=entry["id"], **known)


async def load(client: Client) -> int | None:
    """Requests that the engine has, running or waiting; None where it does not say."""
    found = RUNNING.findall(await client.page("/metrics") or b"")
    try:
        return round(sum(float(value) for value in found)) if found else None
    except ValueError:
        return None


async def _vllm(client: Client, page: bytes) -> dict[str, Any] | None:
    version = _json(await client.page("/version"))
    if "version" not in version and b"vllm:" not in page:
        return None
    labels = dict(LABEL.findall(found[1])) if (found := CACHE.search(page)) else {}
    blocks, size = _whole(labels.get(b"num_gpu_blocks")), _whole(labels.get(b"block_size"))
    known: dict[str, Any] = {
        "engine": f"vLLM {version.get('version', '')}".strip(),
        "block_size": size,
        "kv_tokens": blocks * size if blocks and size else None,
    }
    text = (await client.page("/server_info") or b"").decode("utf-8", "replace")
    for key, pattern in VLLM_KEYS.items():
        if stated := pattern.search(text):
            known[key] = stated[1] if key == "dtype" else int(stated[1])
    return known


async def _sglang(client: Client, page: bytes) -> dict[str, Any] | None:
    info = _json(await client.page("/server_info") or await client.page("/get_server_info"))
    if "chunked_prefill_size" not in info:
        return None
    return {
        "engine": f"SGLang {info.get('version', '')}".strip(),
        "kv_tokens": _whole(info.get("max_total_num_tokens")),
        "batch_size": _whole(info.get("max_running_requests")),
        "chunk_size": _whole(info.get("chunked_prefill_size")),
        "tensor_parallel": _whole(info.get("tp_size")),
        "dtype": info.get("dtype") if info.get("dtype") != "auto" else None,
        "block_size": _whole(info.get("page_size")),
        "max_model_len": _whole(info.get("context_length")),
    }


async def _llama_cpp(client: Client, page: bytes) -> dict[str, Any] | None:
    about = _json(await client.page("/props"))
    settings = about.get("default_generation_settings")
    if not isinstance(settings, dict):
        return None
    slots, length = _whole(about.get("total_slots")), _whole(settings.get("n_ctx"))
    return {
        "engine": f"llama.cpp {about.get('build_info', '')}".strip(),
        "batch_size": slots,
        "max_model_len": length,
        "kv_tokens": slots * length if slots and length else None,
        "extra": {"timings_per_token": True, "cache_prompt": False},
    }


def _json(page: bytes | None) -> dict[str, Any]:
    try:
        read = orjson.loads(page or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return read if isinstance(read, dict) else {}


def _whole(value: Any) -> int | None:
    """A whole number above 0, or None."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 else None
