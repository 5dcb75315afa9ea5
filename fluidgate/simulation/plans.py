"""The plans of a scenario, each solved once."""

from __future__ import annotations

from fluidgate.errors import InfeasiblePlanError
from fluidgate.model import Scenario
from fluidgate.planning import Plan, Planner
from fluidgate.policies import Policy


class Plans:
    """The plans of one scenario that a simulation reads.

    Each of them raises InfeasiblePlanError where there is none.
    """

    def __init__(self, scenario: Scenario, gpus: int) -> None:
        self._scenario = scenario
        self._gpus = gpus
        self._planner = Planner()
        self._known: dict[object, Plan] = {}

    def of(self, policy: Policy) -> Plan:
        """The plan that feeds `policy`."""
        scheme, allow_decode_buffer = policy.program.key(self._scenario)
        return self._solve(scheme=scheme, allow_decode_buffer=allow_decode_buffer)

    @property
    def own(self) -> Plan:
        """The plan of the scenario as it is."""
        return self._solve()

    @property
    def own_if_feasible(self) -> Plan | None:
        """The same; None where there is none."""
        try:
            return self.own
        except InfeasiblePlanError:
            return None

    @property
    def unconstrained(self) -> Plan:
        """The plan without indicators: its revenue is R*."""
        return self._solve(with_indicators=False)

    @property
    def unconstrained_if_feasible(self) -> Plan | None:
        """The same; None where there is none."""
        try:
            return self.unconstrained
        except InfeasiblePlanError:
            return None

    def _solve(self, **program: object) -> Plan:
        key = tuple(sorted(program.items()))
        if key not in self._known:
            self._known[key] = self._planner.solve(self._scenario, gpus=self._gpus, **program)  # type: ignore[arg-type]
        return self._known[key]
