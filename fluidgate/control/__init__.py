"""What follows the load of a running cluster: estimates of it, and plans made from them."""

from fluidgate.control.estimator import Estimate, Estimator
from fluidgate.control.replanned_policy import ReplannedPolicy, find_replanned_policy
from fluidgate.control.replanning import Replanner, Replanning, Solved, Timetable

__all__ = [
    "Estimate",
    "Estimator",
    "ReplannedPolicy",
    "Replanner",
    "Replanning",
    "Solved",
    "Timetable",
    "find_replanned_policy",
]
