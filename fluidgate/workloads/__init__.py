"""From request traces to the classes of a scenario."""

from fluidgate.workloads.build import Statistic, Workload, workload
from fluidgate.workloads.classes import TraceClass, classes_of
from fluidgate.workloads.exponentiality import Exponentiality, divergence, exponentiality, quantiles
from fluidgate.workloads.traces import Trace, read_trace

__all__ = [
    "Exponentiality",
    "Statistic",
    "Trace",
    "TraceClass",
    "Workload",
    "classes_of",
    "divergence",
    "exponentiality",
    "quantiles",
    "read_trace",
    "workload",
]
