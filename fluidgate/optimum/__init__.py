"""The most that policies earn: exactly on small clusters, and a bound of it on larger ones."""

from fluidgate.optimum.bounds.bound import bound, measured_bound
from fluidgate.optimum.bounds.result import Bound, MeasuredBound
from fluidgate.optimum.result import Action, Optimum, PolicyTable, Yardstick
from fluidgate.optimum.solve import optimum, yardstick
from fluidgate.optimum.space import GpuState, State

__all__ = [
    "Action",
    "Bound",
    "GpuState",
    "MeasuredBound",
    "Optimum",
    "PolicyTable",
    "State",
    "Yardstick",
    "bound",
    "measured_bound",
    "optimum",
    "yardstick",
]
