"""A closed loop: users each of whom sends the next request when the last has left; and what a plan takes it for."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np

from fluidgate.errors import FluidgateError, InfeasiblePlanError
from fluidgate.model import Array, Arrivals, Scenario, ThinkLaw
from fluidgate.planning import Planner
from fluidgate.simulation.doubts import alone_by_class

STEPS = 6
"""Halvings of the interval in which the largest load lies that can be served."""
LEAST = 1e-6
"""Share of a load that can be served if any can."""
MARGIN = 0.95
"""Share of that load that is planned for: ways to batch differ in what they can serve."""


def in_closed_loop(
    scenario: Scenario, users: int | None = None, think: float | None = None, think_law: ThinkLaw | None = None
) -> Scenario:
    """The scenario with these users in the place of its own arrivals; itself where nothing is given.

    Raises:
        FluidgateError: naming the option and the mend.
    """
    if users is None and think is None and think_law is None:
        return scenario
    if users is None and not scenario.arrivals.closed:
        raise FluidgateError(
            f"--{'think' if think is not None else 'think-law'}: only in a closed loop; give --users too"
        )
    if users is not None and users < 1:
        raise FluidgateError(f"--users: must be at least 1, but is {users}")
    if think is not None and not 0 <= think < math.inf:
        raise FluidgateError(f"--think: must be a time of at least 0 s, but is {think:g}")
    if think_law is not None and think_law not in get_args(ThinkLaw):
        known = " or ".join(get_args(ThinkLaw))
        raise FluidgateError(f"--think-law: must be {known}, but is '{think_law}'")
    before = scenario.arrivals
    return scenario.replace(
        arrivals=Arrivals(
            process="closed",
            users=before.users if users is None else users,
            think=before.think if think is None else think,
            think_law=before.think_law if think_law is None else think_law,
        )
    )


def planned_load(scenario: Scenario, gpus: int) -> Scenario:
    """The scenario that a plan is made for where the loop is closed; itself where it is not.

    By Little's law users go through no more than `users / (think + time of a session alone)` sessions a second, each of
    one request where the classes say no more, and more than the GPUs can serve does not come. The classes keep their
    shares.
    """
    arrivals = scenario.arrivals
    if not arrivals.closed or arrivals.users is None:
        return scenario
    share = arrivals.users / cycle(scenario) / (gpus * float(scenario.session_starts.sum()))
    return served_load(times(scenario.replace(arrivals=Arrivals()), share))


def cycle(scenario: Scenario, response: Array | None = None) -> float:
    """Seconds from a user's session to the next, on average.

    Args:
        response: s that a request takes, as its client sees it, shape (classes,); where it meets nobody if None.
    """
    engine, starts = scenario.engine, scenario.session_starts
    share = starts / starts.sum()
    turns = np.array([c.turns for c in scenario.classes])
    thinks = float((share * (turns - 1.0) * np.array([c.think_mean for c in scenario.classes])).sum())
    if response is None:
        response = alone_by_class(scenario) + engine.front_end + engine.front_end_first
    return scenario.arrivals.think + thinks + float((share * turns * response).sum())


def served_load(scenario: Scenario) -> Scenario:
    """The scenario, or as large a share of its load as can be served where classes never leave."""
    if _can_be_served(scenario):
        return scenario
    low, high = 0.0, 1.0
    while low == 0.0 and high > LEAST:
        low, high = (high / 4, high) if _can_be_served(times(scenario, high / 4)) else (0.0, high / 4)
    if low == 0.0:
        return scenario
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _can_be_served(times(scenario, middle)) else (low, middle)
    return times(scenario, MARGIN * low)


def times(scenario: Scenario, factor: float) -> Scenario:
    """The scenario at `factor` times its rates."""
    classes = tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * factor}) for c in scenario.classes)
    return scenario.replace(classes=classes)


def _can_be_served(scenario: Scenario) -> bool:
    try:
        Planner().solve(scenario, by_iterations=True, with_indicators=False)
    except InfeasiblePlanError:
        return False
    return True
