"""The formats that are known by their columns, most particular first."""

from __future__ import annotations

from dataclasses import replace

from fluidgate.workloads.formats.agent_sessions import NAME
from fluidgate.workloads.formats.brought import brought_names
from fluidgate.workloads.formats.documents import ENDED, RUN, SETTING, USERS
from fluidgate.workloads.formats.format import CLASS, FAILED, STANDARD, Format, Measured

PLAIN = Format("plain", *STANDARD, unit="s", label=CLASS, failed=(FAILED,))
AZURE = Format("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens", unit="date")
BURSTGPT = Format("BurstGPT", "Timestamp", "Request tokens", "Response tokens", unit="s")
VIDUR = Format("Vidur", "arrived_at", "num_prefill_tokens", "num_decode_tokens", unit="s")
SPLITWISE = Format("Splitwise", "arrival_timestamp", "prompt_size", "token_size", unit="s")
BLIS = Format("BLIS", "arrival_time_us", "input_tokens", "output_tokens", unit="us")
SERVEGEN = Format("ServeGen", "timestamp", "input_tokens", "output_tokens", unit="s", marks=("request_id",))
HASHES = "hash_ids"
QWEN_BAILIAN = Format(
    "Qwen-Bailian",
    "timestamp",
    "input_length",
    "output_length",
    unit="s",
    marks=("chat_id", "parent_chat_id"),
    hashes=HASHES,
    block=16,
    chat="chat_id",
    parent="parent_chat_id",
)
MOONCAKE = Format(
    "Mooncake", "timestamp", "input_length", "output_length", unit="ms", whole=True, hashes=HASHES, block=512
)
LLMSERVINGSIM = Format("LLMServingSim", "arrival_time_ns", "input_toks", "output_toks", unit="ns")
VLLM_LOG = Format(
    "vLLM log",
    "queued_ts",
    "input_toks",
    "output_toks",
    unit="s",
    measured=Measured("first_token_ts", "last_token_ts", "engine", scheduled="scheduled_ts", sent="arrival_time"),
)
VLLM_BENCH = Format(
    "vllm bench",
    "start_times",
    "input_lens",
    "output_lens",
    unit="s",
    measured=Measured("ttft", "latency", "client", durations=True),
    failed=(ENDED,),
    ordered=False,
    runs=RUN,
    setting=SETTING,
    users=USERS,
    timeless="newer versions of `vllm bench serve --save-detailed` write them; run it again",
)
GUIDELLM = Format(
    "guidellm",
    "request_start_time",
    "prompt_tokens",
    "output_tokens",
    unit="s",
    measured=Measured("info.timings.first_token_iteration", "info.timings.last_token_iteration", "client"),
    failed=(ENDED,),
    ordered=False,
    runs=RUN,
    setting=SETTING,
    users=USERS,
)
OLD_GUIDELLM = replace(
    GUIDELLM,
    name="guidellm before 0.4",
    time="start_time",
    marks=(RUN,),
    measured=Measured("first_token_time", "last_token_time", "client"),
)
AIPERF = Format(
    "aiperf",
    "metadata.request_start_ns",
    "metrics.input_sequence_length.value",
    "metrics.output_sequence_length.value",
    unit="ns",
    measured=Measured(
        "metrics.time_to_first_token.value", "metrics.request_latency.value", "client", durations=True, unit="ms"
    ),
    failed=("error", "metadata.was_cancelled"),
    warm_up="metadata.benchmark_phase",
    ordered=False,
)
INFERENCE_PERF = Format(
    "inference-perf",
    "start_time",
    "info.request_metrics.text.input_tokens",
    "info.response_metrics.output_tokens",
    unit="s",
    marks=("end_time", "info.request_metrics.text.input_tokens"),
    measured=Measured(
        "info.response_metrics.output_token_times.0", "info.response_metrics.output_token_times.-1", "client"
    ),
    failed=("error",),
    ordered=False,
)
INFERENCE_PERF_0_5 = replace(
    INFERENCE_PERF,
    name="inference-perf 0.5",
    prompt="info.input_tokens",
    output="info.response_info.output_tokens",
    marks=("end_time", "info.input_tokens"),
    measured=Measured("info.response_info.output_token_times.0", "info.response_info.output_token_times.-1", "client"),
)
OLD_INFERENCE_PERF = replace(
    INFERENCE_PERF,
    name="inference-perf before 0.5",
    prompt="info.input_tokens",
    output="info.output_tokens",
    marks=("end_time", "info.input_tokens", "info.output_tokens"),
    measured=Measured("info.output_token_times.0", "info.output_token_times.-1", "client"),
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
    INFERENCE_PERF,
    OLD_INFERENCE_PERF,
    INFERENCE_PERF_0_5,
)
VARIANTS = (OLD_GUIDELLM, OLD_INFERENCE_PERF, INFERENCE_PERF_0_5)

SUMMARIES = {
    "aiperf_version": "a summary of aiperf, without requests; give the profile_export.jsonl beside it",
    "mean_ttft_ms": "a result of `vllm bench serve` without its requests; run it with --save-detailed",
    "load_summary.count": "a summary of inference-perf, without requests; "
    "give per_request_lifecycle_metrics.json, which report.request_lifecycle.per_request = true writes",
}
"""Files beside those with requests, by a key that they have; the mend of each."""


def known_formats() -> str:
    """For an error: what is known, and the way in for what is not."""
    own = [form.name for form in FORMATS if form not in (PLAIN, *VARIANTS)]
    names = ", ".join([*own, *brought_names()])
    mapped = " ".join(f"--map {standard}=COLUMN" for standard in STANDARD)
    return f"the formats are {','.join(STANDARD)} and those of {names}, and {NAME}; {mapped} reads another"
