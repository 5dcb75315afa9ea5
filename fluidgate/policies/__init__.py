"""Policies: tables read off a plan, and the decisions taken with them.

The decision functions (`gate`, `route`, `refill`) are the same in the simulators and in a live gateway. They are
compiled, so they are imported from their own modules, late.
"""

from fluidgate.policies.catalogue import ALIASES, LISTED, POLICIES, REPLAN, all_policies, tables_of
from fluidgate.policies.decisions.tables import GateRule, RefillRule, RouteRule, Tables
from fluidgate.policies.find import find_any_policy, find_policy, planned_policy
from fluidgate.policies.listing import PolicyList, list_policies
from fluidgate.policies.placed import PLACED, PlacedPolicy
from fluidgate.policies.policy import Parameter, Policy, Program
from fluidgate.policies.policy_file import load_policy, write_policy
from fluidgate.policies.tuned import Tuned

__all__ = [
    "ALIASES",
    "LISTED",
    "PLACED",
    "POLICIES",
    "REPLAN",
    "GateRule",
    "Parameter",
    "PlacedPolicy",
    "Policy",
    "PolicyList",
    "Program",
    "RefillRule",
    "RouteRule",
    "Tables",
    "Tuned",
    "all_policies",
    "find_any_policy",
    "find_policy",
    "list_policies",
    "load_policy",
    "planned_policy",
    "tables_of",
    "write_policy",
]
