"""A batch size that no batch reaches is not seen: the same requests, times and draws to the last digit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fluidgate.batching import Batching
from fluidgate.model import IterationTime, TimeTable
from fluidgate.policies import POLICIES
from fluidgate.policies.decisions.tables import Placement
from fluidgate.simulation.iteration.law import table_law
from tests.simulation.iteration.instances import Instance, placed_instance, policy_instance

PLACED = [(batching, rule) for batching in Batching if batching != Batching.SINGLE_PREFILL for rule in Placement]
SECONDS = [[0.01, 0.02, 0.1], [0.02, 0.035, 0.12], [0.05, 0.07, 0.2]]
TABLE = TimeTable(chunk_sizes=[0, 16, 64], batch_sizes=[1, 16, 256], seconds=SECONDS, context=10.0)
MEASURED = table_law(IterationTime(alpha=0.01, beta=1e-3, epsilon=1e-6, table=TABLE))
"""Decodes cost more in larger batches: what is read at the batch size would show."""


@pytest.mark.parametrize("law", ["linear", "table"])
@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_placed_requests(batching: Batching, rule: Placement, law: str) -> None:
    for seed in range(4):
        same_with_any(placed_instance(seed, batching, rule), law)


@pytest.mark.parametrize("law", ["linear", "table"])
@pytest.mark.parametrize("policy", list(POLICIES))
def test_policies_whose_tables_are_given(policy: str, law: str) -> None:
    """Tables read the plan, which may know the batch size: here they stay, but for what counts slots of the cluster."""
    for seed in range(4):
        instance = policy_instance(seed, policy)
        assert instance.tables is not None
        held = np.zeros_like(instance.tables.hold)  # slots to be left free, of all that there are
        same_with_any(replace(instance, tables=instance.tables._replace(hold=held)), law)


def same_with_any(instance: Instance, law: str) -> None:
    runs = [with_batch_size(instance, size, law).by_kernel() for size in (130, 512)]
    (one, log), (other, logged) = runs
    np.testing.assert_equal(rows(log), rows(logged))
    assert (one.histograms == other.histograms).all()
    assert (one.mode_seconds == other.mode_seconds).all()
    assert (one.occupancy == other.occupancy).all()


def with_batch_size(instance: Instance, size: int, law: str) -> Instance:
    """At most 120 requests come, so that neither 130 nor 512 is ever reached."""
    assert len(instance.requests) <= 120
    tokens = instance.engine.tokens if instance.engine.discipline.by_policy else 600
    engine = replace(instance.engine, batch_size=size, tokens=tokens)
    return replace(instance, engine=engine if law == "linear" else replace(engine, law=MEASURED))


def rows(log: dict[int, Any]) -> dict[int, Any]:
    return {number: row.item() for number, row in log.items()}
