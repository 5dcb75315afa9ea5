"""How a policy's requests queue: in one line before all GPUs, or in one a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from fluidgate.batching import Batching
from fluidgate.model import Scenario
from fluidgate.policies import PlacedPolicy, Policy, find_any_policy

IN_TURN = ("round-robin", "least-loaded", "lmetric", "least-prefill", "precise", "power-of-two")
"""Rules of placement that keep the GPUs about as full as each other."""
LEAST = ("least-loaded",)
"""Rules by which a request goes where there is a slot, if there is one."""


@dataclass(frozen=True)
class Discipline:
    """A way of batching, and where requests wait.

    Attributes:
        batching: how a GPU forms its batch.
        placement: the rule by which a request is placed as it arrives; None where they wait in one line.
        policy: it is that of; None for none.
    """

    batching: Batching
    placement: str | None
    policy: Policy | PlacedPolicy | None

    @staticmethod
    def of(scenario: Scenario, batching: str | None, policy: str | Policy | PlacedPolicy | None) -> Discipline:
        """
        Args:
            batching: None for the policy's, or the scenario's, or single prefill.
            policy: None for one line, first come, first served.

        Raises:
            FluidgateError: no policy has that name.
        """
        found = find_any_policy(policy) if isinstance(policy, str) else policy
        found = None if found is None else found.on(scenario)
        name = batching or (found.batching if found is not None else scenario.engine.batching)
        placement = found.placement if isinstance(found, PlacedPolicy) else None
        return Discipline(Batching(name or Batching.SINGLE_PREFILL), placement, found)

    def pooled(self, engines: int) -> int:
        """Engines that share a line."""
        return engines if self.placement is None else 1

    def arrival_square(self, square: float, engines: int) -> float:
        """Squared CV of the gaps between arrivals at a line, from that of the whole.

        Of requests that go round in turn each GPU sees one gap in n, a sum of n; of others each with chance 1/n. Where
        the fewest requests are it is about half way between.
        """
        if self.placement is None:
            return square
        by_chance = 1.0 + (square - 1.0) / engines
        if self.placement in LEAST:
            return 0.5 * (by_chance + square / engines)
        return square / engines if self.placement in IN_TURN else by_chance
