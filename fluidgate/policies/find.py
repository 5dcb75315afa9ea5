"""A policy by the name, or by the file, that a user gives."""

from __future__ import annotations

from fluidgate.errors import FluidgateError
from fluidgate.policies.catalogue import listed_policy
from fluidgate.policies.placed import PlacedPolicy
from fluidgate.policies.policy import Policy
from fluidgate.policies.policy_file import load_policy


def find_any_policy(name: str) -> Policy | PlacedPolicy:
    """The policy of that name or alias, or of the policy file at that path (it ends in `.toml`).

    Raises:
        FluidgateError: no policy has that name, and the message gives the nearest; or the file is wrong.
    """
    return load_policy(name) if name.endswith(".toml") else listed_policy(name)


def find_policy(name: str) -> Policy:
    """The same for policies that read a plan, which every fidelity runs.

    Raises:
        FluidgateError: as `find_any_policy`; or it is a published serving policy.
    """
    policy = find_any_policy(name)
    if isinstance(policy, PlacedPolicy):
        raise FluidgateError(
            f"policy '{name}' batches in its own way, which only the fidelity of iterations has; "
            "simulate or compare it with --fidelity iteration, or replay a trace"
        )
    return policy
