"""Plan, simulate and control LLM inference clusters with heterogeneous workloads.

Public names are imported when they are first used, so that `import fluidgate` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fluidgate.extras import tell_missing as _tell_missing
from fluidgate.scenario_reader import use_length_reader as _use_length_reader
from fluidgate.scenario_reader import use_reader as _use_reader
from fluidgate.scenario_reader import use_writer as _use_writer
from fluidgate.shown import use_reports as _use_reports

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pathlib import Path

    from fluidgate.calibration import (
        BatchCalibration,
        Calibration,
        Measurements,
        calibrate,
        calibrate_batches,
        read_measurements,
    )
    from fluidgate.errors import FluidgateError, InfeasiblePlanError
    from fluidgate.fitting import LogCalibration, calibrate_from_log
    from fluidgate.fluid import FluidState, fluid_trajectory
    from fluidgate.model import Gpu, Indicators, IterationTime, Pricing, RequestClass, Scenario
    from fluidgate.optimum import Bound, MeasuredBound, Optimum, Yardstick, bound, measured_bound, yardstick
    from fluidgate.planning import Frontier, HeatMap, Plan, Planner, Sweep, frontier, heat_map, plan, sweep
    from fluidgate.policies import PlacedPolicy, Policy, find_any_policy, find_policy, list_policies, load_policy
    from fluidgate.profiles import Profile, find_profile, list_profiles, load_profile, write_profile
    from fluidgate.simulation import Comparison, SimulationResult, compare, simulate
    from fluidgate.simulation.iteration.replay import replay
    from fluidgate.simulation.iteration.results import ReplayComparison, RequestResult
    from fluidgate.sizing import Sizing, size
    from fluidgate.tails import Prediction, predict
    from fluidgate.trajectory import Trajectory
    from fluidgate.tuning import Tuning, tune
    from fluidgate.workloads import Trace, Workload, read_trace, workload

_HOMES = {
    "BatchCalibration": "calibration",
    "Bound": "optimum",
    "Calibration": "calibration",
    "Comparison": "simulation",
    "FluidState": "fluid",
    "FluidgateError": "errors",
    "Frontier": "planning",
    "Gpu": "model",
    "HeatMap": "planning",
    "Indicators": "model",
    "InfeasiblePlanError": "errors",
    "IterationTime": "model",
    "LogCalibration": "fitting",
    "MeasuredBound": "optimum",
    "Measurements": "calibration",
    "Optimum": "optimum",
    "PlacedPolicy": "policies",
    "Plan": "planning",
    "Planner": "planning",
    "Policy": "policies",
    "Prediction": "tails",
    "Pricing": "model",
    "Profile": "profiles",
    "ReplayComparison": "simulation.iteration.results",
    "RequestClass": "model",
    "RequestResult": "simulation.iteration.results",
    "Scenario": "model",
    "SimulationResult": "simulation",
    "Sizing": "sizing",
    "Sweep": "planning",
    "Trace": "workloads",
    "Trajectory": "trajectory",
    "Tuning": "tuning",
    "Workload": "workloads",
    "Yardstick": "optimum",
    "bound": "optimum",
    "calibrate": "calibration",
    "calibrate_batches": "calibration",
    "calibrate_from_log": "fitting",
    "compare": "simulation",
    "find_any_policy": "policies",
    "find_policy": "policies",
    "find_profile": "profiles",
    "fluid_trajectory": "fluid",
    "frontier": "planning",
    "heat_map": "planning",
    "list_policies": "policies",
    "list_profiles": "profiles",
    "load_policy": "policies",
    "load_profile": "profiles",
    "measured_bound": "optimum",
    "plan": "planning",
    "predict": "tails",
    "read_measurements": "calibration",
    "read_trace": "workloads",
    "replay": "simulation.iteration.replay",
    "simulate": "simulation",
    "size": "sizing",
    "sweep": "planning",
    "tune": "tuning",
    "workload": "workloads",
    "write_profile": "profiles",
    "yardstick": "optimum",
}

__all__ = [
    "BatchCalibration",
    "Bound",
    "Calibration",
    "Comparison",
    "FluidState",
    "FluidgateError",
    "Frontier",
    "Gpu",
    "HeatMap",
    "Indicators",
    "InfeasiblePlanError",
    "IterationTime",
    "LogCalibration",
    "MeasuredBound",
    "Measurements",
    "Optimum",
    "PlacedPolicy",
    "Plan",
    "Planner",
    "Policy",
    "Prediction",
    "Pricing",
    "Profile",
    "ReplayComparison",
    "RequestClass",
    "RequestResult",
    "Scenario",
    "SimulationResult",
    "Sizing",
    "Sweep",
    "Trace",
    "Trajectory",
    "Tuning",
    "Workload",
    "Yardstick",
    "bound",
    "calibrate",
    "calibrate_batches",
    "calibrate_from_log",
    "compare",
    "find_any_policy",
    "find_policy",
    "find_profile",
    "fluid_trajectory",
    "frontier",
    "heat_map",
    "list_policies",
    "list_profiles",
    "load_policy",
    "load_profile",
    "measured_bound",
    "plan",
    "predict",
    "read_measurements",
    "read_trace",
    "replay",
    "simulate",
    "size",
    "sweep",
    "tune",
    "workload",
    "write_profile",
    "yardstick",
]


def _read_scenario(path: "str | Path") -> "Scenario":
    from fluidgate.scenario_file import load_scenario

    return load_scenario(path)


def _scenario_text(scenario: Any) -> str:
    from fluidgate.scenario_file import dump_scenario

    return dump_scenario(scenario)


def _read_trace_lengths(scenario: "Scenario") -> Any:
    from fluidgate.workloads.streams import trace_lengths

    return trace_lengths(scenario)


def _reports() -> Any:
    return import_module("fluidgate.reports.results")


_tell_missing()
_use_reader(_read_scenario)
_use_writer(_scenario_text)
_use_length_reader(_read_trace_lengths)
_use_reports(_reports)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        from fluidgate.errors import nearest

        mend = "" if name.startswith("_") else nearest(name, __all__)
        raise AttributeError(f"module 'fluidgate' has no attribute '{name}'{mend}")
    return getattr(import_module(f"fluidgate.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
