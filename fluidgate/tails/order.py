"""In which order a policy takes the classes that wait."""

from __future__ import annotations

from fluidgate.errors import FluidgateError
from fluidgate.model import Array, Scenario
from fluidgate.planning import plan
from fluidgate.policies import Policy
from fluidgate.policies.decisions.tables import GateRule
from fluidgate.tails.discipline import Discipline


def order_of(scenario: Scenario, discipline: Discipline, engines: int) -> Array | None:
    """The index of each class, larger first, shape (classes,); None where they are taken as they come.

    Classes whose requests never leave, or that have TTFT targets, have none.
    """
    policy = discipline.policy
    if not isinstance(policy, Policy) or len(scenario.classes) == 1:
        return None
    if not any(c.patience_rate for c in scenario.classes) or any(t is not None for t in scenario.ttft_targets):
        return None
    try:
        solved = plan(scenario, gpus=engines, scheme=policy.program.scheme, batching=discipline.batching)
        tables = policy.tabulate(solved, engines)
    except FluidgateError:
        return None
    return tables.priority if tables.gate_rule == int(GateRule.VALUE) else None
