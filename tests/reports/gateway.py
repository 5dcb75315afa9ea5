"""What a gateway would say of itself, made by hand."""

from __future__ import annotations

from typing import Any

from fluidgate.gateway.rates import Reading
from fluidgate.gateway.samples import Samples

MODEL = "served"
COUNTS = {"prefill": 1, "mixed_decode": 2, "solo_decode": 3, "prefill_queue": 4, "decode_queue": 5}
PLAN: dict[str, Any] = {
    "age": 30.0,
    "solved": 3,
    "mixed_engines": 1,
    "revenue_rate": 123.4,
    "targets": {name: dict.fromkeys(COUNTS, 1.25) for name in ("chat", "code")},
    "estimates": {name: {"arrival_rate": 0.75} for name in ("chat", "code")},
}


def engine(role: str = "mixed", **given: Any) -> dict[str, Any]:
    held = {"url": "http://host:1", "prefills": 1, "decodes": 2, "foreign": 0, "kv_usage": None}
    return {"role": role, **held, **given}


def state(**given: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "model": MODEL,
        "scenario": "live",
        "policy": "gate-and-route",
        "binding": "late",
        "batch_size": 8,
        "uptime": 100.0,
        "draining": False,
        "plan": PLAN,
        "classes": {"chat": COUNTS, "code": COUNTS},
        "engines": [engine(), engine("solo", url="http://host:2")],
    }
    return defaults | given


def metrics(
    chat: dict[str, float] | None = None,
    code: dict[str, float] | None = None,
    refused: dict[str, float] | None = None,
    model: str = MODEL,
) -> str:
    """Requests that ended, by class and outcome; each completed one brought 10 tokens and 2.5, after 0.15 s or so."""
    lines = ["# TYPE fluidgate_requests counter"]
    outcomes = {"chat": chat or {}, "code": code or {}}
    for cls, counts in outcomes.items():
        lines += [
            f'fluidgate_requests_total{{model="{model}",class="{cls}",outcome="{outcome}"}} {count}'
            for outcome, count in counts.items()
        ]
    for name, each in (("revenue", 2.5), ("output_tokens", 10.0)):
        lines.append(f"# TYPE fluidgate_{name} counter")
        lines += [
            f'fluidgate_{name}_total{{model="{model}",class="{cls}"}} {each * counts.get("completed", 0.0)}'
            for cls, counts in outcomes.items()
        ]
    lines.append("# TYPE fluidgate_ttft_seconds histogram")
    for cls, counts in outcomes.items():
        for bound, share in (("0.1", 0.0), ("0.2", 1.0), ("+Inf", 1.0)):
            count = share * counts.get("completed", 0.0)
            lines.append(f'fluidgate_ttft_seconds_bucket{{model="{model}",class="{cls}",le="{bound}"}} {count}')
    lines.append("# TYPE fluidgate_refusals counter")
    lines += [f'fluidgate_refusals_total{{reason="{reason}"}} {count}' for reason, count in (refused or {}).items()]
    return "\n".join([*lines, ""])


def reading(at: float = 0.0, text: str = "", **given: Any) -> Reading:
    return Reading(at, state(**given), Samples.parsed(text))
