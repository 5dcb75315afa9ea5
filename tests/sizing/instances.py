"""Loads small enough to be sized in a moment."""

from __future__ import annotations

from typing import Any

from fluidgate.model import Scenario
from fluidgate.scenario_file import parse_scenario

CHAT = """
schema = 1
name = "chat"
[cluster]
gpus = 4
[gpu]
profile = "{profile}"
batch_size = {batch_size}
chunk_size = {chunk_size}
[targets]
{targets}
[cost]
gpu_hour = 2.5
[[classes]]
name = "chat"
prompt_tokens = {prompt}
output_tokens = {output}
total_arrival_rate = {rate}
patience_rate = 0.0
{more}
"""
KEYS = {
    "profile": "h100/llama-3.1-8b",
    "batch_size": 128,
    "chunk_size": 1024,
    "targets": "ttft_p99 = 0.3\ntpot_p95 = 0.025",
    "prompt": 1155,
    "output": 211,
    "rate": 60.0,
    "more": "",
}


def chat(**keys: Any) -> Scenario:
    """Chats at a fleet of Llama 3.1 8B, with some keys changed."""
    return parse_scenario(CHAT.format(**{**KEYS, **keys}))
