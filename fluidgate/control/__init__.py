"""What follows the load of a running cluster: estimates of it, and plans made from them."""

from fluidgate.control.estimator import Estimate, Estimator
from fluidgate.control.replanning import Replanner, Replanning, Solved, Timetable

__all__ = ["Estimate", "Estimator", "Replanner", "Replanning", "Solved", "Timetable"]
