"""The plans of a scenario, each solved once."""

from __future__ import annotations

from fluidgate.batching import Batching
from fluidgate.errors import InfeasiblePlanError
from fluidgate.model import Scenario
from fluidgate.planning import Plan, Planner
from fluidgate.planning.advice import advice
from fluidgate.policies import Policy


class Plans:
    """The plans of one scenario that a simulation reads.

    Each of them raises InfeasiblePlanError where there is none.
    """

    def __init__(self, scenario: Scenario, gpus: int, *, by_iterations: bool = False) -> None:
        """
        Args:
            by_iterations: whether they are held against iterations, whose chunks are as full as their prompts.
        """
        self._scenario, self._by_iterations = scenario, by_iterations
        self._gpus = gpus
        self._planner = Planner()
        self._known: dict[object, Plan] = {}

    def of(self, policy: Policy) -> Plan:
        """The plan that feeds `policy`."""
        scheme, allow_decode_buffer = policy.program.key(self._scenario)
        return self._solve(scheme=scheme, allow_decode_buffer=allow_decode_buffer, batching=Batching(policy.batching))

    def own(self, batching: str = Batching.SINGLE_PREFILL) -> Plan:
        """The plan of the scenario as it is, for GPUs that batch in one way."""
        return self._solve(batching=Batching(batching))

    def own_if_feasible(self, batching: str = Batching.SINGLE_PREFILL) -> Plan | None:
        """The same; None where there is none."""
        try:
            return self.own(batching)
        except InfeasiblePlanError:
            return None

    def unconstrained(self, batching: str = Batching.SINGLE_PREFILL) -> Plan:
        """The plan without indicators: its revenue is R*."""
        return self._solve(with_indicators=False, batching=Batching(batching))

    def unconstrained_if_feasible(self, batching: str = Batching.SINGLE_PREFILL) -> Plan | None:
        """The same; None where there is none."""
        try:
            return self.unconstrained(batching)
        except InfeasiblePlanError:
            return None

    @property
    def advice(self) -> tuple[str, ...]:
        """What a plan of the scenario would warn of, whatever its number of GPUs, and whether there is one."""
        return advice(self._scenario, None)

    def _solve(self, **program: object) -> Plan:
        key = tuple(sorted(program.items()))
        if key not in self._known:
            self._known[key] = self._planner.solve(
                self._scenario,
                gpus=self._gpus,
                by_iterations=self._by_iterations,
                **program,  # type: ignore[arg-type]
            )
        return self._known[key]
