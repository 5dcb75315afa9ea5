"""The metrics, fed with requests that have ended."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fluidgate.gateway.ended import RefusedRequest
from fluidgate.gateway.metrics import Metrics
from fluidgate.model import Pricing
from tests.gateway.fakes import ended_request, waited_in_vain

SNAPSHOT: dict[str, Any] = {
    "model": "m",
    "classes": {"chat": {"prefill": 1, "decode_queue": 0}},
    "engines": [
        {
            "url": "u",
            "state": "up",
            "downs": {},
            "role": "mixed",
            "prefills": 1,
            "decodes": 2,
            "foreign": 0,
            "kv_usage": None,
            "prefixes": {"believed_tokens": 96, "told_tokens": 80, "blocks": 7, "bytes": 4096, "room": 1000.0},
        },
        {
            "url": "v",
            "state": "down",
            "downs": {"late": 2},
            "role": "down",
            "prefills": 0,
            "decodes": 0,
            "foreign": 0,
            "kv_usage": 0.5,
            "prefixes": None,
        },
    ],
    "indicators": {"solo_gap": {"limit": 2.0, "value": 1.9}, "tpot": {"limit": None, "value": None}},
    "prefixes": {"hash_seconds": 0.25},
    "draining": True,
    "plan": None,
}


def metrics() -> Metrics:
    made = Metrics(lambda: [SNAPSHOT])
    made.expect("m", ("chat", "code"))
    return made


def samples(of: Metrics) -> dict[tuple[str, ...], float]:
    """Values by name and labels but the model, in the order of the labels' names."""
    return {
        (
            sample.name.removeprefix("fluidgate_"),
            *(value for name, value in sorted(sample.labels.items()) if name != "model"),
        ): sample.value
        for family in text_string_to_metric_families(of.scrape().decode())
        for sample in family.samples
    }


def test_a_completed_request() -> None:
    made = metrics()
    made.ended(ended_request(attempts=3, lost_kv=1))
    seen = samples(made)
    assert seen["requests_total", "chat", "completed"] == 1
    assert (seen["prompt_tokens_total", "chat"], seen["output_tokens_total", "chat"]) == (100, 5)
    assert seen["revenue_total", "chat"] == pytest.approx(0.1 * 100 + 0.2 * 5)
    assert (seen["retries_total", "chat"], seen["kv_lost_total", "chat"]) == (2, 1)
    assert seen["ttft_seconds_sum", "chat"] == pytest.approx(1.0)
    assert seen["tpot_seconds_sum", "chat"] == pytest.approx(0.2)
    assert seen["latency_seconds_sum", "chat"] == pytest.approx(1.8)
    assert seen["prefill_wait_seconds_sum", "chat"] == pytest.approx(0.25)
    assert seen["decode_wait_seconds_sum", "chat"] == pytest.approx(0.25)


def test_one_that_left_the_queue_has_waited_for_nothing_that_is_measured() -> None:
    made = metrics()
    made.ended(waited_in_vain())
    seen = samples(made)
    assert seen["requests_total", "chat", "wait_limit"] == 1
    counted = {name: value for (name, *_), value in seen.items() if not name.startswith("prefix_")}
    assert all(value == 0 for name, value in counted.items() if name.endswith(("_count", "tokens_total")))
    assert seen["revenue_total", "chat"] == 0


@pytest.mark.parametrize(("scheme", "earned"), [("bundled", 0.0), ("separate", 10.0)])
def test_a_prompt_that_was_read_earns_only_where_it_is_sold_alone(scheme: str, earned: float) -> None:
    made = metrics()
    pricing = Pricing(scheme=scheme, prompt=0.1, output=0.2)  # type: ignore[arg-type]
    made.ended(ended_request(outcome="client_gone", pricing=pricing))
    assert samples(made)["revenue_total", "chat"] == pytest.approx(earned)


def test_refusals_and_the_cluster_now() -> None:
    made = metrics()
    made.refused(RefusedRequest(429, "queue_full"))
    seen = samples(made)
    assert seen["refusals_total", "queue_full"] == 1
    assert seen["requests_now", "chat", "prefill"] == 1
    assert (seen["engine_up", "u"], seen["engine_up", "v"]) == (1, 0)
    assert (seen["engine_requests", "u", "decodes"], seen["engine_kv_usage", "v"]) == (2, 0.5)
    assert (seen["prefix_believed_tokens_total", "u"], seen["prefix_told_tokens_total", "u"]) == (96, 80)
    assert (seen["prefix_blocks", "u"], seen["prefix_room_tokens", "u"]) == (7, 1000)
    assert ("prefix_blocks", "v") not in seen
    assert seen["prefix_hash_seconds_total",] == 0.25
    assert seen["draining",] == 1
    assert ("plans_solved",) not in seen
    assert seen["requests_total", "code", "completed"] == 0, "there from the first scrape on"
