"""Policies: tables read off a plan, and the decisions taken with them.

The decision functions (`gate`, `route`, `refill`) are the same in the simulators and in a live gateway. They are
compiled, so they are imported from their own modules, late.
"""

from fluidgate.policies.catalogue import ALIASES, POLICIES, find_policy, tables_of
from fluidgate.policies.policy import Policy, Program
from fluidgate.policies.tables import GateRule, RefillRule, RouteRule, Tables

__all__ = [
    "ALIASES",
    "POLICIES",
    "GateRule",
    "Policy",
    "Program",
    "RefillRule",
    "RouteRule",
    "Tables",
    "find_policy",
    "tables_of",
]
