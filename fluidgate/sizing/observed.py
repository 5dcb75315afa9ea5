"""What a target reads off finished requests, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.simulation.iteration.kernel.cluster import COMPLETED
from fluidgate.sizing.targets import QUANTILES, Target


def observed(target: Target, log: Any, scenario: Scenario) -> Array:
    """A time, or 1 and 0 for a share, of each request of a log; nan where the target does not look at it."""
    done = log["outcome"] == COMPLETED
    first, tokens = log["first_token"] - log["arrival"], log["output"]
    with np.errstate(invalid="ignore", divide="ignore"):
        each = (log["last_token"] - log["first_token"]) / (tokens - 1)
    if target.measure == "served":
        seen = done.astype(np.float64)
    elif target.measure == "goodput":
        within = within_limits(scenario, log["cls"], first, np.where(tokens > 1, each, np.nan))
        seen = (done & within).astype(np.float64)
    elif target.measure == "ttft":
        seen = first
    elif target.measure == "tpot":
        seen = np.where(done & (tokens > 1), each, np.nan)
    else:
        seen = np.where(done, log["last_token"] - log["arrival"], np.nan)
    if target.cls is None:
        return np.asarray(seen)
    return np.where(log["cls"] == scenario.class_names.index(target.cls), seen, np.nan)


def within_limits(scenario: Scenario, cls: Array, ttft: Array, tpot: Array) -> Array:
    """Which requests keep the TTFT and the TPOT of goodput; a TPOT of nan, of an answer of one token, does."""
    first, each = (_limits(values, cls) for values in (scenario.ttft_targets, scenario.tpot_targets))
    return np.asarray((ttft <= first) & (np.isnan(tpot) | (tpot <= each)))


def statistic(target: Target, seen: Array) -> float:
    """Of what was observed; nan where nothing was."""
    seen = seen[np.isfinite(seen)]
    if len(seen) == 0:
        return float("nan")
    return float(np.quantile(seen, QUANTILES[target.statistic]) if target.statistic in QUANTILES else seen.mean())


def _limits(values: Sequence[float | None], cls: Array) -> Array:
    return np.asarray(np.array([np.inf if value is None else value for value in values])[cls])
