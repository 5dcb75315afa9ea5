"""Policies that other installed packages bring: entry points of the group `fluidgate.policies`."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import replace

from fluidgate.errors import FluidgateError
from fluidgate.plugins import POLICIES, Plugin, plugins, warn_of
from fluidgate.policies.placed import PlacedPolicy
from fluidgate.policies.policy import Policy

NAME = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)


def brought_policy(name: str) -> Policy | PlacedPolicy | None:
    """The policy that the first package brings under that name; None where none does.

    Raises:
        FluidgateError: it can't be loaded, or is no policy.
    """
    return next((_policy(each) for each in plugins(POLICIES) if each.name == name), None)


def brought_names() -> list[str]:
    """Their names, without loading any."""
    return [each.name for each in plugins(POLICIES)]


def brought_policies(taken: Container[str]) -> dict[str, Policy | PlacedPolicy]:
    """All of them by name; a warning for each that can't be loaded, or whose name is taken."""
    found: dict[str, Policy | PlacedPolicy] = {}
    for each in plugins(POLICIES):
        try:
            if each.name in taken or each.name in found:
                owner = found[each.name].origin if each.name in found else "fluidgate"
                raise each.wrong(f"is left out: {owner} has a policy of that name")
            found[each.name] = _policy(each)
        except FluidgateError as error:
            warn_of(error)
    return found


def _policy(plugin: Plugin) -> Policy | PlacedPolicy:
    if not NAME.fullmatch(plugin.name):
        raise plugin.wrong("has no name for a policy; letters, digits, '-' and '_' make one")
    policy = plugin.load()
    if not isinstance(policy, Policy | PlacedPolicy):
        raise plugin.wrong(f"is no policy but of type {type(policy).__name__}")
    return replace(policy, name=plugin.name, origin=plugin.package)
