"""The simulator against exact stationary distributions of tiny systems, solved from their generators.

Confidence: 24 replications with fixed seeds; a mean may lie five standard errors from the exact value (under one in
25,000 for a Student t with 23 degrees of freedom), and the error of the revenue is below 1 %.
"""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate import find_policy
from fluidgate.simulation.markov.replication import Job, replicate
from fluidgate.simulation.markov.results import class_results, revenue_rates
from tests.oracles.tables import tables_for
from tests.oracles.tiny import TINY_SYSTEMS, TinySystem

REPLICATIONS = 24
EVENTS = 200_000  # a replication, about
SIGMAS = 5.0
OCCUPANCIES = ("prefill", "mixed_decode", "solo_decode", "prefill_queue", "decode_queue")
RATES = ("prefill_completion_rate", "completion_rate", "prefill_abandonment_rate", "decode_abandonment_rate")


@pytest.mark.parametrize("system", TINY_SYSTEMS, ids=lambda s: s.name)
def test_agrees_with_the_stationary_distribution(system: TinySystem) -> None:
    exact = system.solve()
    assert exact.truncation < 1e-6
    scenario, gpus = system.scenario, system.gpus
    horizon = EVENTS / (3 * gpus * float(scenario.rates.arrival.sum()))
    tables = tables_for(system)
    policy = find_policy(system.policy).for_worker()
    measured = [
        replicate(Job(scenario, policy, tables, gpus, horizon, horizon / 50, 7, r)) for r in range(REPLICATIONS)
    ]

    revenue = revenue_rates(scenario, measured, gpus)
    bundled = scenario.pricing.scheme == "bundled"
    error = revenue.std(ddof=1) / np.sqrt(REPLICATIONS)
    assert error < 0.01 * revenue.mean()
    assert abs(revenue.mean() - (exact.revenue_bundled if bundled else exact.revenue_separate)) < SIGMAS * error

    for k, result in enumerate(class_results(scenario, measured, gpus)):
        for quantity in (*OCCUPANCIES, *RATES):
            seen = np.array(getattr(result, quantity).values)
            error = seen.std(ddof=1) / np.sqrt(REPLICATIONS)
            truth = getattr(exact, quantity)[k]
            assert abs(seen.mean() - truth) < SIGMAS * error + 1e-6, (quantity, result.name)
        served = np.array(result.tpot.values) * scenario.classes[k].output_tokens
        if np.isnan(exact.decode_time[k]):
            assert result.tpot.mean is None
        else:
            error = served.std(ddof=1) / np.sqrt(REPLICATIONS)
            assert abs(served.mean() - exact.decode_time[k]) < SIGMAS * error, result.name
        if not np.isnan(exact.ttft[k]):
            times = np.array(result.ttft.values)
            error = times.std(ddof=1) / np.sqrt(REPLICATIONS)
            assert abs(times.mean() - exact.ttft[k]) < SIGMAS * error, result.name


def test_every_policy_has_a_tiny_system() -> None:
    from fluidgate.policies import POLICIES

    assert {system.policy for system in TINY_SYSTEMS} == set(POLICIES)
