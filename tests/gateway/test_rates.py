"""Rates between two readings of a gateway, and the quantiles of its histograms."""

from __future__ import annotations

import math

import pytest

from fluidgate.gateway.rates import INTERVALS, History, quantile, rates_between
from tests.reports.gateway import metrics, reading


def test_counters_that_grew_are_rates() -> None:
    old = reading(100.0, metrics(chat={"completed": 5.0, "cancelled": 1.0}, refused={"queue_full": 2.0}))
    new = reading(
        104.0,
        metrics(
            chat={"completed": 13.0, "cancelled": 4.0},
            code={"timeout": 1.0},
            refused={"queue_full": 2.0, "no_key": 3.0},
        ),
    )
    rates = rates_between(old, new)
    chat, code = rates.classes["chat"], rates.classes["code"]
    assert (rates.seconds, chat.completions, chat.output_tokens, chat.revenue) == (4.0, 2.0, 20.0, 5.0)
    assert rates.revenue == pytest.approx(5.0)
    assert (chat.outcomes, code.outcomes) == ({"cancelled": 3}, {"timeout": 1}), "what did not happen is left out"
    assert rates.refusals == {"no_key": 3}
    assert (chat.ttft.p50, chat.ttft.p90) == pytest.approx((0.15, 0.19))
    assert (code.ttft.p50, chat.tpot.p50) == (None, None)
    assert rates.to_dict()["classes"]["chat"]["completions"] == 2.0  # type: ignore[index]


def test_history_is_of_one_life_of_the_gateway() -> None:
    history = History()
    assert (history.last, history.rates) == (None, None)
    for k in range(INTERVALS + 5):
        history.add(reading(float(k), uptime=float(k)))
    assert history.rates is not None
    assert history.rates.seconds == INTERVALS
    history.add(reading(100.0, uptime=0.5))
    assert history.rates is None
    assert history.last is not None


def test_quantiles_are_linear_within_a_bucket() -> None:
    buckets = {0.1: 0.0, 0.2: 10.0, 0.4: 20.0, math.inf: 20.0}
    assert quantile(buckets, 0.25) == pytest.approx(0.15)
    assert quantile(buckets, 0.5) == pytest.approx(0.2)
    assert quantile(buckets, 0.9) == pytest.approx(0.36)
    assert quantile({0.1: 1.0, math.inf: 10.0}, 0.9) == pytest.approx(0.1)
    assert quantile({0.1: 0.0, math.inf: 0.0}, 0.5) is None
    assert quantile({}, 0.5) is None


def test_arrivals_are_what_ended_and_what_was_added() -> None:
    counts = {"prefill": 0, "mixed_decode": 1, "solo_decode": 3, "prefill_queue": 2, "decode_queue": 0}
    old = reading(0.0, metrics(chat={"completed": 1.0}), classes={"chat": counts})
    more = {"chat": counts | {"prefill_queue": 5}, "new": counts}
    new = reading(2.0, metrics(chat={"completed": 4.0, "queue_full": 1.0}), classes=more)
    rates = rates_between(old, new)
    assert rates.classes["chat"].arrivals == (3 + 1 + 3) / 2.0
    assert rates.classes["new"].arrivals == 6 / 2.0
    fewer = reading(2.0, metrics(chat={"completed": 1.0}), classes={"chat": counts | {"solo_decode": 2}})
    assert rates_between(old, fewer).classes["chat"].arrivals == 0.0, "one that has left its stage but not ended yet"


def test_classes_of_another_model_are_not_counted() -> None:
    both = metrics(chat={"completed": 3.0}) + metrics(chat={"completed": 9.0}, model="another")
    rates = rates_between(reading(0.0), reading(1.0, both))
    assert rates.classes["chat"].completions == 3.0
