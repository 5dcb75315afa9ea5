"""The optimal policy of small clusters: the yardstick for every other policy."""

from fluidgate.optimum.result import Action, Optimum, PolicyTable, Yardstick
from fluidgate.optimum.solve import optimum, yardstick
from fluidgate.optimum.space import GpuState, State

__all__ = ["Action", "GpuState", "Optimum", "PolicyTable", "State", "Yardstick", "optimum", "yardstick"]
