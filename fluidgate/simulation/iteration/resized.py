"""The tables of a policy while fewer GPUs than all are up: its plan is solved for those that share the load then."""

from __future__ import annotations

from fluidgate.errors import InfeasiblePlanError
from fluidgate.model import Scenario
from fluidgate.policies import Policy, Tables
from fluidgate.replanning.replanner import all_may_leave, with_share
from fluidgate.simulation.plans import Plans


class Resized:
    """Tables by the number of GPUs that are up, each plan solved once. Where there is none, the tables stay."""

    def __init__(self, scenario: Scenario, policy: Policy, gpus: int, tables: Tables) -> None:
        """
        Args:
            scenario: its load shared by `gpus` GPUs, for which the policy has `tables`.
        """
        self._scenario, self._policy, self._gpus = scenario, policy, gpus
        self._known = {gpus: tables}
        self._last = tables

    def __call__(self, up: int, epoch: float) -> Tables:
        if up not in self._known:
            self._known[up] = self._solved(up)
        self._last = self._known[up]
        return self._last

    def _solved(self, up: int) -> Tables:
        scenario = with_share(self._scenario, self._gpus / up)
        for load in (scenario, all_may_leave(scenario)):
            try:
                return self._policy.tabulate(Plans(load, up, by_iterations=True).of(self._policy), up)
            except InfeasiblePlanError:
                continue
        return self._last
