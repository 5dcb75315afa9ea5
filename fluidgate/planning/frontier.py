"""What a service level costs: the best objective against one limit, [LDHZ] section 6.4 and Figure 8."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError, InfeasiblePlanError, UnitWarning, nearest
from fluidgate.model import AnyScenario, Array, Indicators, Pricing, Scenario
from fluidgate.planning.partition import check_gpus
from fluidgate.planning.plan import Plan
from fluidgate.planning.planner import Planner
from fluidgate.shown import Drawn, rate, several
from fluidgate.unit_doubts import LONGEST, milliseconds

if TYPE_CHECKING:
    import pandas as pd

Limit = Literal["max_prefill_gap", "max_solo_gap", "max_tpot"]
LIMITS: tuple[Limit, ...] = get_args(Limit)
MOST_POINTS = 10_000

_STEP = 1e-5
"""Step of the finite differences, of the range."""

_SLACK = 1e-4
"""How far a price may lie outside the two differences, of the larger; it covers the bend over one step."""

_SOLVED = 1e-11
"""Relative accuracy of an objective; a smaller difference is rounding."""

_ZERO = 1e-9
"""A least limit under it is 0, as the values of a plan are."""

_HALVED = 1e-10
"""Accuracy of the limit that stops binding, of the loosest limit."""


@dataclass(frozen=True, eq=False, repr=False)
class Frontier(Drawn):
    """The Pareto frontier of a plan's objective against one limit; arrays of shape (points,).

    For the gaps (43), (45) the limit is a right-hand side of the program: the frontier is concave and piecewise
    linear, the price falls in steps. In (47) the limit multiplies `B - X`, so that it bounds `X = sum x` by a
    hyperbola in the limit: between breakpoints the price changes smoothly too. For `kappa > 1` that frontier is
    still concave; for `kappa < 1` its pieces bend upwards.

    Attributes:
        scenario: name of the scenario.
        indicator: `max_prefill_gap`, `max_solo_gap` (both per GPU) or `max_tpot` (s).
        limit: right-hand sides eta, ascending.
        objective: revenue less penalties, money/s per GPU.
        revenue_rate: money/s per GPU.
        value: the indicator in the plan; under its limit where that does not bind.
        shadow_price: d objective / d limit, from the program's dual.
        price_below: `(objective(limit) - objective(limit - step)) / step`; NaN where that limit cannot be met.
        price_above: `(objective(limit + step) - objective(limit)) / step`.
        step: of the differences, in the limit's unit.
        least_limit: the least limit that can be met.
        free_limit: from this limit on it costs nothing.
        unlimited_objective: without the limit. More than the frontier's top where a decode buffer pays, since
            each limit comes with `q_d = 0`.
        warnings: what a reader of the plans should know.
    """

    scenario: str
    indicator: Limit
    limit: Array
    objective: Array
    revenue_rate: Array
    value: Array
    shadow_price: Array
    price_below: Array
    price_above: Array
    step: float
    least_limit: float
    free_limit: float
    unlimited_objective: float
    warnings: tuple[str, ...] = ()

    def headline(self) -> str:
        ends = f"{rate(float(self.limit[0]))} to {rate(float(self.limit[-1]))}"
        return f"'{self.scenario}' against {self.indicator}: {several(len(self.limit), 'limit')} from {ends}"

    @property
    def price_confirmed(self) -> NDArray[np.bool_]:
        """Whether each price lies between its two differences, shape (points,).

        They differ at a breakpoint, where any price between them is a dual. At the least limit there is no
        difference below, and any price from the one above upwards is a dual.
        """
        first = np.isnan(self.price_below)
        below = np.where(first, np.inf, self.price_below)
        low, high = np.minimum(below, self.price_above), np.maximum(below, self.price_above)
        slope = np.maximum(np.abs(self.price_above), np.where(first, 0.0, np.abs(self.price_below)))
        slack = _SLACK * slope + _SOLVED * np.abs(self.objective).max() / self.step
        return np.asarray((low - slack <= self.shadow_price) & (self.shadow_price <= high + slack))

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON: the attributes, and `points`, one object each; a NaN is None."""
        return {
            "schema": 1,
            "scenario": self.scenario,
            "indicator": self.indicator,
            "least_limit": self.least_limit,
            "free_limit": self.free_limit,
            "unlimited_objective": self.unlimited_objective,
            "step": self.step,
            "points": self._records(),
            "warnings": list(self.warnings),
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each limit."""
        import pandas as pd

        return pd.DataFrame(self._columns())

    def to_csv(self) -> str:
        """`to_dataframe` as CSV, with the columns `schema`, `scenario` and `indicator` before."""
        frame = self.to_dataframe()
        frame.insert(0, "schema", 1)
        frame.insert(1, "scenario", self.scenario)
        frame.insert(2, "indicator", self.indicator)
        return frame.to_csv(index=False, lineterminator="\n")

    def _columns(self) -> dict[str, NDArray[Any]]:
        return {
            "limit": self.limit,
            "objective": self.objective,
            "revenue_rate": self.revenue_rate,
            "value": self.value,
            "shadow_price": self.shadow_price,
            "price_below": self.price_below,
            "price_above": self.price_above,
            "price_confirmed": self.price_confirmed,
        }

    def _records(self) -> list[dict[str, Any]]:
        columns = {name: values.tolist() for name, values in self._columns().items()}
        columns["price_below"] = [None if np.isnan(price) else price for price in self.price_below.tolist()]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@checked
def frontier(
    scenario: AnyScenario,
    indicator: str,
    *,
    low: float | None = None,
    high: float | None = None,
    points: int = 25,
    gpus: int | None = None,
    planner: Planner | None = None,
) -> Frontier:
    """The best objective against a limit, [LDHZ] (49) and Figure 8; the scenario's other indicators stay.

    Args:
        scenario: cluster and load; its own limit of this indicator is left out.
        indicator: `max_prefill_gap`, `max_solo_gap` or `max_tpot`.
        low: first limit; by default the least that can be met, found by minimising the indicator.
        high: last limit; by default the least that costs nothing, found by bisection on the shadow price.
        points: limits, evenly spaced, from 2 to 10,000.
        gpus: share the scenario's load among that many GPUs, where it is a cluster's.
        planner: to solve with.

    Raises:
        FluidgateError: an argument is out of range, the scenario has no prices, or the limit never binds and no range
            is given.
        InfeasiblePlanError: there is no plan even without the limit, or none at `low`.
    """
    scenario = Scenario.of(scenario)
    scenario.need_prices("a frontier")
    name = _checked(indicator, points)
    for end, limit in (("--from", low), ("--to", high)):
        if name == "max_tpot" and limit is not None and LONGEST["tpot"] <= limit < np.inf:
            warnings.warn(milliseconds(end, limit), UnitWarning, stacklevel=2)
    if gpus is not None:
        check_gpus(gpus)
        scenario = scenario.for_gpus(gpus)
    limited = _Limited(scenario, name, planner or Planner())
    unlimited = limited.plan(None)
    least = limited.least()
    free = limited.free(least)
    first, last = _range(name, low, high, least, free)
    limits = np.linspace(first, last, points)
    step = _STEP * (last - first)
    plans = [limited.plan(limit) for limit in limits]
    objective = np.array([plan.objective for plan in plans])
    below = np.array([limited.plan(x - step).objective if x - step >= least else np.nan for x in limits])
    above = np.array([limited.plan(x + step).objective for x in limits])
    return Frontier(
        scenario=scenario.name,
        indicator=name,
        limit=limits,
        objective=objective,
        revenue_rate=np.array([plan.revenue_rate for plan in plans]),
        value=np.array([plan.indicators[name]["value"] for plan in plans]),
        shadow_price=np.array([plan.indicators[name]["shadow_price"] for plan in plans]),
        price_below=_slope(below, objective, step),
        price_above=_slope(objective, above, step),
        step=float(step),
        least_limit=least,
        free_limit=free,
        unlimited_objective=unlimited.objective,
        warnings=tuple(dict.fromkeys(warning for plan in (unlimited, *plans) for warning in plan.warnings)),
    )


def _slope(left: Array, right: Array, step: float) -> Array:
    """The differences over `step`; 0 where they are rounding."""
    rise = right - left
    return np.where(np.abs(rise) <= _SOLVED * np.nanmax(np.abs(right)), 0.0, rise) / step


@dataclass(frozen=True)
class _Limited:
    """A scenario under any value of one limit."""

    scenario: Scenario
    name: Limit
    planner: Planner

    def plan(self, limit: float | None) -> Plan:
        indicators = self.scenario.indicators.model_copy(update={self.name: limit})
        return self.planner.solve(self.scenario.replace(indicators=indicators))

    def loosest(self) -> float:
        """A limit that never binds: `x <= 1`, `y_s <= B`, and (47) at either end of `X`."""
        gpu = self.scenario.gpu
        everything: dict[Limit, float] = {
            "max_prefill_gap": 1.0,
            "max_solo_gap": float(gpu.batch_size),
            "max_tpot": max(gpu.tau, gpu.solo),
        }
        return everything[self.name]

    def least(self) -> float:
        """The least value of the indicator: the least penalty of weight 1 where nothing else has a price."""
        known = self.planner.least_limit(self.scenario, self.name)
        if known is not None:
            return known
        indicators = self.scenario.indicators
        others: dict[str, Any] = {name: getattr(indicators, name) for name in LIMITS if name != self.name}
        weight = {f"{self.name.removeprefix('max_')}_weight": 1.0}
        unpriced = self.scenario.replace(
            pricing=Pricing(scheme="bundled", prompt=0.0, output=0.0), indicators=Indicators(**others, **weight)
        )
        least = self.planner.solve(unpriced, allow_decode_buffer=False).penalty
        if least < _ZERO:
            return 0.0
        try:
            self.plan(least)
        except InfeasiblePlanError:
            return least * (1.0 + 1e-9)
        return least

    def free(self, least: float) -> float:
        """The least limit of price 0, by bisection between `least` and the loosest."""
        low, high = least, self.loosest()
        if self._price(low) == 0:
            return low
        accuracy = _HALVED * high
        while high - low > accuracy:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._price(middle) > 0 else (low, middle)
        return high

    def _price(self, limit: float) -> float:
        return self.plan(limit).indicators[self.name]["shadow_price"]


def _checked(indicator: str, points: int) -> Limit:
    known = next((limit for limit in LIMITS if limit == indicator), None)
    if known is None:
        hint = nearest(indicator, list(LIMITS)) or f"; give one of {', '.join(LIMITS)}"
        raise FluidgateError(f"--indicator: no limit is named '{indicator}'{hint}")
    if not 2 <= points <= MOST_POINTS:
        raise FluidgateError(f"--points: must be from 2 to {MOST_POINTS}, but is {points}; give another number")
    return known


def _range(name: Limit, low: float | None, high: float | None, least: float, free: float) -> tuple[float, float]:
    for end, value in (("--from", low), ("--to", high)):
        if value is not None and not 0 <= value < np.inf:
            raise FluidgateError(f"{end}: must be at least 0 and finite, but is {value:g}; give another limit")
    if low is None and high is None and free <= least:
        raise FluidgateError(
            f"--indicator: {name} costs nothing from the least limit that can be met ({least:.6g}) on; "
            f"give another, or a range (--from, --to) to see the flat frontier"
        )
    first = least if low is None else low
    last = free if high is None else high
    if not first < last:
        least_one = f"the least limit that can be met, {first:.9g},"
        begin = least_one if low is None else f"--from {first:.9g}"
        raise FluidgateError(f"--to: {last:.9g} is not above {begin}; give a larger limit")
    return first, last
