"""The gateway's dispatcher against exact stationary distributions, and its bookkeeping under everything that happens.

Confidence: 8 replications with fixed seeds; a mean may lie seven standard errors from the exact value (under one in
2,000 for a Student t with 7 degrees of freedom), and no error is above 12 % of the slots.
"""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.policies import POLICIES
from tests.gateway.dispatch.network import STAGES, replicated
from tests.oracles.tables import tables_for
from tests.oracles.tiny import TINY_SYSTEMS, TinySystem

SMALLEST = {
    policy: min(
        (s for s in TINY_SYSTEMS if s.policy == policy and not s.large and s.gpus > 1), key=lambda s: len(s.name)
    )
    for policy in POLICIES
    if any(s.policy == policy and not s.large and s.gpus > 1 for s in TINY_SYSTEMS)
}


@pytest.mark.parametrize("system", SMALLEST.values(), ids=lambda s: s.name)
def test_agrees_with_the_stationary_distribution(system: TinySystem) -> None:
    exact = system.solve()
    rates, tables = system.scenario.rates, tables_for(system)
    batch = system.scenario.gpu.batch_size
    seen = replicated(range(8), rates=rates, tables=tables, gpus=system.gpus, batch_size=batch, events=2500)
    error = seen.std(axis=0, ddof=1) / np.sqrt(len(seen))
    truth = np.array([getattr(exact, stage) for stage in STAGES])
    assert (error[:3] < 0.12 * batch).all()
    assert (np.abs(seen.mean(axis=0) - truth) < 7 * error + 1e-3).all(), (seen.mean(axis=0), truth, error)
