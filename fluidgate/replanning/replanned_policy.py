"""A policy whose plan follows the load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.policies import REPLAN, PlacedPolicy, Policy, find_any_policy
from fluidgate.replanning.replanner import Replanning


@dataclass(frozen=True)
class ReplannedPolicy:
    """A policy, and when its plan is solved again.

    Attributes:
        policy: reads the plan.
        replanning: the rule.
    """

    policy: Policy
    replanning: Replanning = field(default_factory=Replanning)

    @property
    def name(self) -> str:
        """That of the policy with `+replan`."""
        return self.policy.name + REPLAN

    def on(self, scenario: Scenario) -> ReplannedPolicy:
        """The same with the policy for the engines of a scenario."""
        return replace(self, policy=self.policy.on(scenario))

    def for_worker(self) -> ReplannedPolicy:
        """What a worker needs: the policy with its functions named, still able to make tables."""
        return replace(self, policy=replace(self.policy.for_worker(), tabulate=self.policy.tabulate))


AnyPolicy = Policy | PlacedPolicy | ReplannedPolicy
AnyPolicies = str | os.PathLike[str] | AnyPolicy | Sequence[str | os.PathLike[str] | AnyPolicy]
"""Policies, or names and paths of them, `A,B` in one text among them."""
"""What goes where a policy's name goes."""


def find_replanned_policy(name: str, replanning: Replanning) -> ReplannedPolicy:
    """The policy of a name (or alias, or policy file) with `+replan`.

    Raises:
        FluidgateError: as `find_any_policy`; or the policy reads no plan.
    """
    base = name.removesuffix(REPLAN)
    policy = find_any_policy(base)
    if not isinstance(policy, Policy):
        raise FluidgateError(f"policy '{base}' reads no plan that could follow the load; leave {REPLAN} out")
    return ReplannedPolicy(policy, replanning)
