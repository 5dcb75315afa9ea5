"""Degenerate networks against M/M/c and Erlang A.

Confidence: 20 replications with fixed seeds, five standard errors.
"""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate import Scenario, simulate
from fluidgate.simulation import Statistic
from tests.oracles.closed_forms import erlang_a, mmc
from tests.scenarios import station

SIGMAS = 5.0


def close(seen: Statistic, truth: float) -> bool:
    assert seen.mean is not None
    assert seen.std is not None
    assert seen.std < 0.2 * truth  # otherwise the comparison says little
    return abs(seen.mean - truth) < SIGMAS * seen.std / np.sqrt(len(seen.values))


@pytest.mark.parametrize(
    ("gpus", "arrival", "service", "patience"), [(1, 0.7, 1.0, 0.5), (4, 1.3, 1.0, 0.2), (30, 1.1, 1.0, 0.1)]
)
def test_prefill_stage_is_erlang_a(gpus: int, arrival: float, service: float, patience: float) -> None:
    scenario = station(arrival=arrival, service=service, patience=patience)
    result = simulate(scenario, "fi-wsp", gpus=gpus, horizon=60_000 / gpus, replications=20, seed=3)
    exact = erlang_a(gpus * arrival, service, gpus, patience)
    only = result.classes[0]
    assert close(only.prefill_queue, exact.queue / gpus)
    assert close(only.prefill, exact.busy / gpus)
    assert close(only.prefill_completion_rate, exact.throughput / gpus)
    assert close(only.prefill_abandonment_rate, exact.abandonment_rate / gpus)
    assert close(only.ttft, exact.wait + 1 / service)


def test_without_patience_limits_it_is_mmc() -> None:
    scenario = station(arrival=0.8, service=1.0, patience=0.0)
    result = simulate(scenario, "fi-wsp", gpus=5, horizon=30_000, replications=20, seed=4)
    exact = mmc(5 * 0.8, 1.0, 5)
    only = result.classes[0]
    assert close(only.prefill_queue, exact.queue / 5)
    assert close(only.prefill, exact.busy / 5)
    assert close(only.ttft, exact.wait + 1.0)
    assert only.prefill_abandonment_rate.mean == 0.0


def test_revenue_counts_completed_requests(two_class: Scenario) -> None:
    result = simulate(two_class, "gate-and-route", gpus=10, horizon=500, replications=3)
    value = two_class.rates.bundled_value
    for r in range(3):
        done = [c.completion_rate.values[r] for c in result.classes]
        assert result.revenue_rate.values[r] == pytest.approx(float(np.dot(value, done)))
    separate = two_class.replace(pricing=two_class.pricing.model_copy(update={"scheme": "separate"}))
    apart = simulate(separate, "gate-and-route", gpus=10, horizon=500, replications=3)
    rates = two_class.rates
    for r in range(3):
        done = np.array([c.completion_rate.values[r] for c in apart.classes])
        read = np.array([c.prefill_completion_rate.values[r] for c in apart.classes])
        earned = float(rates.prompt_value @ read + rates.output_value @ done)
        assert apart.revenue_rate.values[r] == pytest.approx(earned)
        assert done == pytest.approx([c.completion_rate.values[r] for c in result.classes])
