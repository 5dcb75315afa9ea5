"""Service rates of a scenario, for who knows one rate of each kind: the Markov network and what is exact on it."""

from __future__ import annotations

from fluidgate.batching import Batching
from fluidgate.errors import InfeasiblePlanError
from fluidgate.model import Rates, Scenario
from fluidgate.planning.planner import Planner, has_full_chunks

ALL_LEAVE = 1.0
"""Patience rate that classes which never leave are given where they exceed what a GPU can do, 1/s."""


def service_rates(scenario: Scenario, planner: Planner | None = None) -> Rates:
    """(4), at the operating point of the scenario's plan without indicators where its program counts the batch that
    runs, else as they are.

    Where classes that never leave exceed what a GPU can do, they are let go to find it.
    """
    if has_full_chunks(scenario, Batching.SINGLE_PREFILL):
        return scenario.rates
    solver = planner or Planner()
    try:
        found = solver.solve(scenario, with_indicators=False, batching=Batching.SINGLE_PREFILL).rates
    except InfeasiblePlanError:
        classes = tuple(c.model_copy(update={"patience_rate": c.patience_rate or ALL_LEAVE}) for c in scenario.classes)
        relaxed = scenario.replace(classes=classes)
        found = solver.solve(relaxed, with_indicators=False, batching=Batching.SINGLE_PREFILL).rates
    return found.of_demand(scenario.rates)
