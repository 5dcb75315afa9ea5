"""Confidence from one run: a trace is what it is, so its parts, one after the other, take the place of replications."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.simulation.iteration.behaviour import IterationOutcome
from fluidgate.simulation.iteration.job import IterationJob, replicate
from fluidgate.simulation.iteration.kernel.cluster import COMPLETED
from fluidgate.sizing.targets import QUANTILES, Target

PARTS = 10
"""Of a trace, of as many requests each."""


@dataclass(frozen=True)
class Outcome:
    """What a replication gave.

    Attributes:
        parts: of each target by part, shape (targets, parts), nan where nothing was observed; None where replications
            are independent.
    """

    run: IterationOutcome
    parts: Array | None = None


@dataclass(frozen=True)
class Whole:
    """Runs a job as it is."""

    def __call__(self, job: IterationJob) -> Outcome:
        return Outcome(replicate(job))


@dataclass(frozen=True)
class InParts:
    """Runs a job and reads its targets part by part, in order of arrival."""

    targets: tuple[Target, ...]

    def __call__(self, job: IterationJob) -> Outcome:
        blocks: list[Any] = []
        run = replicate(job, None, blocks.append)
        if not blocks:
            return Outcome(run, np.full((len(self.targets), PARTS), np.nan))
        log = np.concatenate(blocks)
        parts = np.array_split(log[np.argsort(log["arrival"], kind="stable")], PARTS)
        return Outcome(run, np.array([[_value(each, part, job.scenario) for part in parts] for each in self.targets]))


Work = Whole | InParts


def _value(target: Target, log: Any, scenario: Scenario) -> float:
    """What a target comes to over some requests."""
    if target.cls is not None:
        log = log[log["cls"] == scenario.class_names.index(target.cls)]
    done = log["outcome"] == COMPLETED
    if target.measure == "served":
        return float(done.mean()) if len(log) else np.nan
    first, tokens = log["first_token"] - log["arrival"], log["output"]
    with np.errstate(invalid="ignore", divide="ignore"):
        each = (log["last_token"] - log["first_token"]) / (tokens - 1)
    if target.measure == "goodput":
        limits = [_limits(values, log["cls"]) for values in (scenario.ttft_targets, scenario.tpot_targets)]
        good = done & (first <= limits[0]) & ((tokens < 2) | (each <= limits[1]))
        return float(good.mean()) if len(log) else np.nan
    seen = {
        "ttft": first[np.isfinite(first)],
        "tpot": each[done & (tokens > 1)],
        "latency": (log["last_token"] - log["arrival"])[done],
    }[target.measure]
    if len(seen) == 0:
        return np.nan
    return float(seen.mean() if target.statistic == "mean" else np.quantile(seen, QUANTILES[target.statistic]))


def _limits(values: Sequence[float | None], cls: Array) -> Array:
    return np.asarray(np.array([np.inf if value is None else value for value in values])[cls])
