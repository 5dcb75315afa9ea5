"""What follows the load of a running cluster: estimates of it, and plans made from them."""

from fluidgate.replanning.estimator import Estimate, Estimator
from fluidgate.replanning.replanned_policy import AnyPolicies, AnyPolicy, ReplannedPolicy, find_replanned_policy
from fluidgate.replanning.replanner import Replanner, Replanning, Solved, Timetable, rule_named

__all__ = [
    "AnyPolicies",
    "AnyPolicy",
    "Estimate",
    "Estimator",
    "ReplannedPolicy",
    "Replanner",
    "Replanning",
    "Solved",
    "Timetable",
    "find_replanned_policy",
    "rule_named",
]
