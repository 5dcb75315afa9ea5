"""The page of metrics: vLLM's names, and counts that are right."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.emulator.served import FAST, Client
from tests.emulator.test_api import served

NAMES = {
    *("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "num_preemptions", "cache_config_info"),
    *("prompt_tokens", "generation_tokens", "prompt_tokens_by_source", "iteration_tokens_total", "request_success"),
    *("time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds"),
    *("request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds"),
    *("admission_rejections", "nixl_xfer_time_seconds"),
}


def samples(page: str) -> dict[str, float]:
    """Sums over all labels but the bounds of buckets."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if "le" not in sample.labels:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_the_page_is_prometheus_text_with_the_names_of_vllm() -> None:
    async def test(client: Client) -> None:
        page = await client.text("/metrics")
        families = {family.name: family for family in text_string_to_metric_families(page)}
        assert {f"vllm:{name}" for name in NAMES} <= set(families)
        for family in families.values():
            for sample in family.samples:
                if family.name != "vllm:cache_config_info":
                    assert (sample.labels["model_name"], sample.labels["engine"]) == ('a"b', "0")
        config = families["vllm:cache_config_info"].samples[0].labels
        assert (config["block_size"], config["num_gpu_blocks"]) == ("16", "100")

    served(test, model='a"b', kv_tokens=1600, max_model_len=1000)


def test_counts() -> None:
    async def test(client: Client) -> None:
        await client.complete(prompt=[1] * 100, max_tokens=5)
        await client.complete(prompt=[2] * 50, max_tokens=3, stream=True)
        found = samples(await client.text("/metrics"))
        assert found["vllm:prompt_tokens_total"] == 150
        assert found["vllm:prompt_tokens_by_source_total"] == 150
        assert found["vllm:generation_tokens_total"] == 8
        assert found["vllm:request_success_total"] == 2
        assert found["vllm:iteration_tokens_total_count"] == 2 + 5 + 1 + 3
        assert found["vllm:iteration_tokens_total_sum"] == 150 + 8
        assert found["vllm:time_to_first_token_seconds_count"] == 2
        assert found["vllm:inter_token_latency_seconds_count"] == 6
        assert found["vllm:inter_token_latency_seconds_sum"] == pytest.approx(6 * 0.02 / FAST)
        assert found["vllm:request_prefill_time_seconds_sum"] == pytest.approx(
            (2 * 0.02 + 100e-4 + 0.02 + (0.02 + 50e-4) + 0.02) / FAST
        )
        assert found["vllm:request_decode_time_seconds_sum"] == pytest.approx(6 * 0.02 / FAST)
        assert found["vllm:e2e_request_latency_seconds_count"] == 2

    served(test)


def test_buckets_count_what_lies_below_them() -> None:
    async def test(client: Client) -> None:
        await client.complete(prompt=[1] * 100, max_tokens=5)
        page = await client.text("/metrics")
        (family,) = (f for f in text_string_to_metric_families(page) if f.name == "vllm:iteration_tokens_total")
        below = {s.labels["le"]: s.value for s in family.samples if "le" in s.labels}
        assert (below["1.0"], below["32.0"], below["64.0"], below["+Inf"]) == (5, 5, 7, 7)

    served(test)
