"""Plan, simulate and control LLM inference clusters with heterogeneous workloads.

Public names are imported when they are first used, so that `import fluidgate` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fluidgate.scenario_reader import use_length_reader as _use_length_reader
from fluidgate.scenario_reader import use_reader as _use_reader

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pathlib import Path

    from fluidgate.errors import FluidgateError, InfeasiblePlanError
    from fluidgate.fluid import FluidState, fluid_trajectory
    from fluidgate.model import Gpu, Indicators, IterationTime, Pricing, RequestClass, Scenario
    from fluidgate.planning import Plan, Planner, plan
    from fluidgate.policies import Policy, find_policy, load_policy
    from fluidgate.simulation import Comparison, SimulationResult, compare, simulate
    from fluidgate.sizing import Sizing, size
    from fluidgate.trajectory import Trajectory
    from fluidgate.tuning import Tuning, tune
    from fluidgate.workloads import Workload, workload

_HOMES = {
    "Comparison": "simulation",
    "FluidState": "fluid",
    "Trajectory": "trajectory",
    "FluidgateError": "errors",
    "Gpu": "model",
    "Indicators": "model",
    "InfeasiblePlanError": "errors",
    "IterationTime": "model",
    "Plan": "planning",
    "Planner": "planning",
    "Policy": "policies",
    "Pricing": "model",
    "RequestClass": "model",
    "Scenario": "model",
    "SimulationResult": "simulation",
    "Sizing": "sizing",
    "Tuning": "tuning",
    "Workload": "workloads",
    "compare": "simulation",
    "find_policy": "policies",
    "fluid_trajectory": "fluid",
    "load_policy": "policies",
    "plan": "planning",
    "simulate": "simulation",
    "size": "sizing",
    "tune": "tuning",
    "workload": "workloads",
}

__all__ = [
    "Comparison",
    "FluidState",
    "FluidgateError",
    "Gpu",
    "Indicators",
    "InfeasiblePlanError",
    "IterationTime",
    "Plan",
    "Planner",
    "Policy",
    "Pricing",
    "RequestClass",
    "Scenario",
    "SimulationResult",
    "Sizing",
    "Trajectory",
    "Tuning",
    "Workload",
    "compare",
    "find_policy",
    "fluid_trajectory",
    "load_policy",
    "plan",
    "simulate",
    "size",
    "tune",
    "workload",
]


def _read_scenario(path: "str | Path") -> "Scenario":
    from fluidgate.scenario_file import load_scenario

    return load_scenario(path)


def _read_trace_lengths(scenario: "Scenario") -> Any:
    from fluidgate.workloads.streams import trace_lengths

    return trace_lengths(scenario)


_use_reader(_read_scenario)
_use_length_reader(_read_trace_lengths)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fluidgate' has no attribute '{name}'")
    return getattr(import_module(f"fluidgate.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
