"""Results made by hand: numbers that a reader of a report finds again."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from fluidgate.planning import Plan
from fluidgate.simulation import SimulationResult, Statistic
from fluidgate.simulation.iteration.measure import Distribution, bin_edges
from fluidgate.simulation.iteration.results import RequestClassResult, RequestResult, TimeStatistic
from fluidgate.simulation.options import Options
from fluidgate.simulation.results import ClassResult
from fluidgate.trajectory import Trajectory

NOTHING = Statistic(None, None, None, (float("nan"),))
RUN = Options(gpus=10, horizon=500.0, warmup=50.0, replications=3, seed=0)


def value(mean: float, half: float | None = None) -> Statistic:
    """A mean, with half of its interval where there is one."""
    if half is None:
        return Statistic(mean, None, None, (mean,))
    return Statistic(mean, half, (mean - half, mean + half), (mean - half, mean, mean + half))


def observed(*seconds: float) -> TimeStatistic:
    """Times of one replication."""
    bins = np.searchsorted(bin_edges(), seconds, side="right") - 1
    counts = np.bincount(bins, minlength=len(bin_edges()) - 1)
    return TimeStatistic.of([Distribution(counts, float(sum(seconds)))])


def class_result(name: str, **given: Statistic) -> ClassResult:
    """Zeros, but for what is given."""
    names = [f.name for f in fields(ClassResult) if f.name != "name"]
    return ClassResult(name, **{quantity: given.get(quantity, value(0.0)) for quantity in names})


def simulated(policy: str = "gate-and-route", revenue: Statistic | None = None, **given: Any) -> SimulationResult:
    """Of two classes, `chat` and `code`."""
    earned = value(200.0, 4.0) if revenue is None else revenue
    defaults: dict[str, Any] = {
        "scenario": "small",
        "policy": policy,
        "run": RUN,
        "events": 12_345,
        "wall_seconds": 1.0,
        "revenue_rate": earned,
        "optimality_ratio": value(0.8, 0.016),
        "objective_ratio": value(0.9, 0.018),
        "classes": (
            class_result("chat", ttft=value(0.25, 0.01), tpot=value(0.03), arrival_rate=value(0.5)),
            class_result("code", completion_rate=value(0.2), arrival_rate=value(0.4), ttft=NOTHING, tpot=NOTHING),
        ),
        "plan": None,
    }
    return SimulationResult(**defaults | given)


def request_class_result(name: str, **given: Statistic) -> RequestClassResult:
    """Zeros and no observation of any time, but for what is given."""
    made = {}
    for f in fields(RequestClassResult):
        if f.name != "name":
            empty = observed() if f.type == "TimeStatistic" else value(0.0)
            made[f.name] = given.get(f.name, empty)
    return RequestClassResult(name, **made)


def served(policy: str = "vllm-round-robin", revenue: Statistic | None = None, **given: Any) -> RequestResult:
    """A simulation of requests of two classes, `chat` and `code`."""
    defaults: dict[str, Any] = {
        "scenario": "small",
        "policy": policy,
        "run": Options(gpus=10, horizon=500.0, warmup=50.0, replications=1, seed=0, fidelity="iteration"),
        "events": 12_345,
        "wall_seconds": 1.0,
        "revenue_rate": value(200.0) if revenue is None else revenue,
        "optimality_ratio": value(0.8),
        "objective_ratio": value(0.9),
        "classes": (
            request_class_result("chat", ttft=observed(0.1, 0.2, 0.4), arrival_rate=value(0.5)),
            request_class_result("code", tpot=observed(0.02)),
        ),
        "plan": None,
        "batching": "token-budget",
        "parameters": {},
        "pilot": None,
        "overall": request_class_result(
            "all", goodput=value(0.4), arrival_rate=value(0.5), prompt_token_rate=value(3_000.0),
            output_token_rate=value(250.0), preemption_rate=value(0.01),
        ),
        "gpu_time": {"idle": value(0.1), "solo": value(0.5), "mixed": value(0.3), "prefill": value(0.1)},
        "kv_tokens": value(40_000.0),
        "kv_peak": 65_536.0,
        "iterations": 1_000,
        "window": 450.0,
        "gpu_hours": value(1.25),
        "availability": value(1.0),
    }  # fmt: skip
    return RequestResult(**defaults | given)


def path(points: int = 3, classes: int = 2) -> Trajectory:
    """Time 0, 1, ... s; each stage of each class has heights of its own: 100 by stage, 10 by class, 1 by point."""
    heights = 10.0 * np.arange(classes) + np.arange(points)[:, None]
    stages = ("prefill_queue", "prefill", "decode_queue", "mixed_decode", "solo_decode")
    return Trajectory(np.arange(float(points)), **{stage: 100.0 * k + heights for k, stage in enumerate(stages)})


def heights(plan: Plan, stage: str) -> list[float]:
    return np.asarray(getattr(plan, stage)).tolist()
