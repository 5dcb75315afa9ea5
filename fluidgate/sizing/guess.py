"""Where a search begins: the fewest engines that keep the targets by the theory of tails."""

from __future__ import annotations

import math

from fluidgate.errors import FluidgateError
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.load import Load
from fluidgate.sizing.targets import QUANTILES, Target
from fluidgate.tails import Prediction, predict

FULL = 0.9
"""Share of a fleet's capacity that a search begins with where nothing is predicted."""
STEPS = 24


def guessed(choice: Choice, load: Load, least: int, ranks: float, most: int) -> int:
    """A number of engines from `least` to `most`; `ranks` is what the load needs at least, as a fraction."""
    plain = min(max(least, math.ceil(ranks / choice.ranks / FULL)), max(most, least))
    try:
        return _predicted(choice, load, least, most) or plain
    except (FluidgateError, ArithmeticError):
        return plain


def _predicted(choice: Choice, load: Load, least: int, most: int) -> int | None:
    """The least that keeps all that is predicted; None where none does."""
    low, high, step = least - 1, least, 1
    for _ in range(STEPS):
        if _keeps(choice, load, high):
            break
        if high >= most:
            return None
        low, high, step = high, min(high + step, most), 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _keeps(choice, load, middle) else (middle, high)
    return high


def _keeps(choice: Choice, load: Load, engines: int) -> bool:
    names = choice.scenario.class_names
    prediction = predict(choice.scenario, engines * choice.ranks, policy=choice.policy)
    if not prediction.stable:
        return False
    for target in load.targets:
        value = _value(prediction, target, None if target.cls is None else names.index(target.cls))
        if value is not None and not target.keeps(value):
            return False
    return True


def _value(prediction: Prediction, target: Target, cls: int | None) -> float | None:
    """What a target comes to; None where that is not predicted."""
    if target.measure == "served":
        return None
    if target.measure == "goodput":
        return prediction.goodput(cls)
    time = prediction.time(target.measure, cls)  # type: ignore[arg-type]
    return time.mean if target.statistic == "mean" else time.quantile(QUANTILES[target.statistic])
