"""The formats that are known by their columns, most particular first."""

from __future__ import annotations

from dataclasses import replace

from fluidgate.workloads.formats.documents import RUN
from fluidgate.workloads.formats.format import CLASS, STANDARD, Format

PLAIN = Format("plain", *STANDARD, unit="s", label=CLASS)
AZURE = Format("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens", unit="date")
BURSTGPT = Format("BurstGPT", "Timestamp", "Request tokens", "Response tokens", unit="s")
VIDUR = Format("Vidur", "arrived_at", "num_prefill_tokens", "num_decode_tokens", unit="s")
SPLITWISE = Format("Splitwise", "arrival_timestamp", "prompt_size", "token_size", unit="s")
BLIS = Format("BLIS", "arrival_time_us", "input_tokens", "output_tokens", unit="us")
SERVEGEN = Format("ServeGen", "timestamp", "input_tokens", "output_tokens", unit="s", marks=("request_id",))
QWEN_BAILIAN = Format(
    "Qwen-Bailian", "timestamp", "input_length", "output_length", unit="s", marks=("chat_id", "parent_chat_id")
)
MOONCAKE = Format("Mooncake", "timestamp", "input_length", "output_length", unit="ms", whole=True)
LLMSERVINGSIM = Format("LLMServingSim", "arrival_time_ns", "input_toks", "output_toks", unit="ns")
VLLM_LOG = Format(
    "vLLM log", "queued_ts", "input_toks", "output_toks", unit="s", measured=("first_token_ts", "last_token_ts")
)
VLLM_BENCH = Format(
    "vllm bench",
    "start_times",
    "input_lens",
    "output_lens",
    unit="s",
    ordered=False,
    runs=RUN,
    timeless="newer versions of `vllm bench serve --save-detailed` write them; run it again",
)
GUIDELLM = Format("guidellm", "request_start_time", "prompt_tokens", "output_tokens", unit="s", ordered=False, runs=RUN)
OLD_GUIDELLM = replace(GUIDELLM, name="guidellm before 0.3", time="start_time", marks=(RUN,))
AIPERF = Format(
    "aiperf",
    "metadata.request_start_ns",
    "metrics.input_sequence_length.value",
    "metrics.output_sequence_length.value",
    unit="ns",
    ordered=False,
)

FORMATS = (
    PLAIN,
    AZURE,
    BURSTGPT,
    VIDUR,
    SPLITWISE,
    BLIS,
    SERVEGEN,
    QWEN_BAILIAN,
    MOONCAKE,
    LLMSERVINGSIM,
    VLLM_LOG,
    VLLM_BENCH,
    GUIDELLM,
    OLD_GUIDELLM,
    AIPERF,
)


def known_formats() -> str:
    """For an error: what is known, and the way in for what is not."""
    names = ", ".join(form.name for form in FORMATS if form not in (PLAIN, OLD_GUIDELLM))
    mapped = " ".join(f"--map {standard}=COLUMN" for standard in STANDARD)
    return f"the formats are {','.join(STANDARD)} and those of {names}; {mapped} reads another"
