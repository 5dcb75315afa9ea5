"""Steady-state plans: the fluid programs of [LDHZ] and what policies read off them."""

from fluidgate.planning.partition import Partition, check_gpus, partition
from fluidgate.planning.plan import Plan
from fluidgate.planning.planner import Planner, plan

__all__ = ["Partition", "Plan", "Planner", "check_gpus", "partition", "plan"]
