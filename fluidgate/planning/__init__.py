"""Steady-state plans: the fluid programs of [LDHZ] and what policies read off them."""

from fluidgate.planning.frontier import Frontier, frontier
from fluidgate.planning.operating_point import OperatingPoint
from fluidgate.planning.partition import Partition, check_gpus, partition
from fluidgate.planning.plan import Plan
from fluidgate.planning.planner import Planner, plan
from fluidgate.planning.sensitivity import HeatMap, Sweep, heat_map, sweep
from fluidgate.planning.service import service_rates

__all__ = [
    "Frontier",
    "HeatMap",
    "OperatingPoint",
    "Partition",
    "Plan",
    "Planner",
    "Sweep",
    "check_gpus",
    "frontier",
    "heat_map",
    "partition",
    "plan",
    "service_rates",
    "sweep",
]
