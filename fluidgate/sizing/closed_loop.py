"""A closed loop to be sized: how often its users send, by Little's law, and how often they must where targets are kept.

`N` users who think for `Z` and wait for `R` send `N / (Z + R)` requests a second: the asymptotic bounds of closed
networks (Muntz and Wong 1974; Lazowska, Zahorjan, Graham, Sevcik, Quantitative System Performance, 1984, chapter 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fluidgate.model import Array, RequestClass, Scenario
from fluidgate.simulation.closed_loop import cycle, times
from fluidgate.simulation.doubts import alone_by_class
from fluidgate.sizing.targets import Target


def sent_by_users(scenario: Scenario, targets: Sequence[Target]) -> Scenario:
    """The scenario with the rates at which its users send where requests take what the targets allow.

    They say how long is simulated and where a search begins; the simulated users go by their answers.
    """
    alone = alone_by_class(scenario)
    allowed = [_allowed(targets, c, float(seconds)) for c, seconds in zip(scenario.classes, alone, strict=True)]
    return at_pace(scenario, np.array(allowed))


def at_pace(scenario: Scenario, response: Array | None = None) -> Scenario:
    """The scenario with the rates of its users, each of whose requests takes so long, by class, s; alone if None."""
    users = scenario.arrivals.users
    assert users is not None
    whole = scenario.replace(cluster_gpus=1)
    return times(whole, users / cycle(whole, response) / float(whole.session_starts.sum()))


def least_share(scenario: Scenario, targets: Sequence[Target]) -> float:
    """The share of the scenario's rates at which its users send at least where the targets are kept.

    Only the mean latency of all requests says how long a user waits on average: of a percentile, the requests beyond it
    may take any time. Nor is it known where some leave, or where sessions go on beside each other; it is then 0.
    """
    limits = [t.limit for t in targets if (t.cls, t.measure, t.statistic) == (None, "latency", "mean")]
    unknown = scenario.has_sessions or any(c.patience_rate > 0.0 for c in scenario.classes)
    users = scenario.arrivals.users
    if users is None:
        return 1.0
    if not limits or unknown:
        return 0.0
    load = float(scenario.rates.arrival.sum()) * (scenario.cluster_gpus or 1)
    return users / (scenario.arrivals.think + min(limits)) / load


def _allowed(targets: Sequence[Target], cls: RequestClass, alone: float) -> float:
    """What a request of a class may take, s, where each is as slow as a target lets it be; alone at least."""
    latency, ttft, tpot = (
        min((t.limit for t in targets if t.measure == measure and t.cls in (None, cls.name)), default=math.inf)
        for measure in ("latency", "ttft", "tpot")
    )
    allowed = min(latency, ttft + tpot * max(cls.output_tokens - 1.0, 0.0))
    return max(alone, allowed) if math.isfinite(allowed) else alone
