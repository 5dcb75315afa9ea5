"""What an emulated engine says where it plays SGLang: its pages, and what a request asks of a pair."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from fluidgate import __version__
from fluidgate.emulator.bodies import Body, bad_request
from fluidgate.emulator.engine import Engine
from fluidgate.emulator.rooms import Meeting
from fluidgate.emulator.settings import EngineSettings

HISTOGRAMS = {
    "time_to_first_token_seconds": "time_to_first_token_seconds",
    "inter_token_latency_seconds": "inter_token_latency_seconds",
    "e2e_request_latency_seconds": "e2e_request_latency_seconds",
}
"""SGLang's names, and vLLM's for the same."""


class AbortBody(BaseModel):
    """`POST /abort_request`."""

    rid: str = ""


def meeting_of(settings: EngineSettings, body: Body, name: str | None) -> Meeting | None:
    """Where a request meets the other side of its pair; None on an engine that takes whole requests.

    Raises:
        ApiError: 400 where it does not say so.
    """
    if settings.role == "null":
        return None
    if body.bootstrap_room is None or body.bootstrap_host is None or body.bootstrap_port is None:
        raise bad_request("Invalid request: Disaggregated request received without bootstrap room id.")
    if len(body.prompts()) > 1:
        raise bad_request("prompt: a pair of emulated engines takes one prompt a request", "prompt")
    rid = body.rid or name or f"room-{body.bootstrap_room}"
    return Meeting(rid, body.bootstrap_host, body.bootstrap_port, body.bootstrap_room)


def server_info(settings: EngineSettings, port: int) -> dict[str, Any]:
    """`GET /server_info`, as far as somebody may want to know it. The sides of pairs meet on the engine's own port."""
    return {
        "served_model_name": settings.model,
        "disaggregation_mode": settings.role,
        "disaggregation_bootstrap_port": port,
        "disable_radix_cache": not settings.prefix_caching,
        "enable_mixed_chunk": True,
        "max_running_requests": settings.gpu.batch_size,
        "chunked_prefill_size": settings.gpu.chunk_size,
        "version": f"fluidgate {__version__}",
    }


def loads(engine: Engine) -> dict[str, Any]:
    """`GET /v1/loads`."""
    gauges = engine.gauges()
    return {
        "version": f"fluidgate {__version__}",
        "loads": [
            {
                "dp_rank": 0,
                "num_running_reqs": int(gauges["num_requests_running"]),
                "num_waiting_reqs": int(gauges["num_requests_waiting"]),
                "token_usage": gauges["kv_cache_usage_perc"],
                "max_running_requests": engine.settings.gpu.batch_size,
            }
        ],
    }


def metrics_page(engine: Engine) -> str:
    """The text of `/metrics`, under SGLang's names."""
    return "\n".join(_lines(engine)) + "\n"


def _lines(engine: Engine) -> Iterator[str]:
    mode = {"null": "unified"}.get(engine.settings.role, engine.settings.role)
    labels = f'engine_type="{mode}",model_name={json.dumps(engine.settings.model, ensure_ascii=False)},tp_rank="0"'
    gauges, waiting, metrics = engine.gauges(), engine.rooms.waiting, engine.metrics
    told = {
        "num_running_reqs": gauges["num_requests_running"],
        "num_queue_reqs": gauges["num_requests_waiting"] - waiting,
        "token_usage": gauges["kv_cache_usage_perc"],
        "num_prefill_bootstrap_queue_reqs": waiting if engine.settings.role == "prefill" else 0,
        "num_decode_transfer_queue_reqs": waiting if engine.settings.role == "decode" else 0,
    }
    for name, value in told.items():
        yield f"# TYPE sglang:{name} gauge"
        yield f"sglang:{name}{{{labels}}} {float(value)!r}"
    counted = {
        "prompt_tokens_total": sum(metrics.prompt_tokens.values()),
        "generation_tokens_total": metrics.generation_tokens,
        "cached_tokens_total": metrics.found,
        "num_transfer_failed_reqs_total": metrics.failed_transfers,
    }
    for name, value in counted.items():
        yield f"# TYPE sglang:{name} counter"
        yield f"sglang:{name}{{{labels}}} {value}"
    for name, theirs in HISTOGRAMS.items():
        yield f"# TYPE sglang:{name} histogram"
        yield from metrics.histograms[theirs].lines(f"sglang:{name}", labels)
