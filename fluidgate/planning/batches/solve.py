"""The best flows of an instance, within its limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fluidgate.errors import InfeasiblePlanError, one_line
from fluidgate.model import Array, Indicators
from fluidgate.planning.batches.infeasible import explain, is_overloaded
from fluidgate.planning.batches.instance import BatchInstance
from fluidgate.planning.batches.limits import between, first_grid, limits_at, refined
from fluidgate.planning.batches.prices import Prices
from fluidgate.planning.batches.program import BatchProgram, Limits
from fluidgate.planning.batches.running import Flows, Running, running
from fluidgate.planning.batches.ties import settle_ties
from fluidgate.planning.linear_program import Vertex
from fluidgate.planning.wording import rounded_up

_ROUNDS = 30
"""Times that limits are set anew at the iteration times of the solution before."""

_STEADY = 10
"""Rounds after which each is taken half way, so that the search settles."""

_NUDGE = 1e-6
"""By how much a limit is tightened where the solver gets lost at it."""

_HELD = 1e-7
"""Relative excess over a limit that is rounding."""

_SAME = 1e-9
"""Relative difference below which two solutions are one."""

_POINTS = 9
"""Limits on TPOT between which the best is sought where TPOT has a weight, in each of so many narrowings:"""
_NARROWINGS = 4

_FOUND = 1e-7
"""Relative width at which the search for a least limit ends, after so many halvings at most:"""
_HALVINGS = 45

_MOST_KINDS = 120
"""Numbers of decodes beyond which a grid is not refined."""


@dataclass(frozen=True, eq=False)
class Solution:
    """An optimum's objective and prices, the flows chosen among the optimal ones, and what runs.

    Attributes:
        limited: whether an indicator has a part in it.
    """

    objective: float
    prices: Prices
    flows: Flows
    running: Running
    limited: bool = False

    def values(self) -> dict[str, float]:
        """Indicators at the operating point: (43), (45), and the TPOT of the decodes."""
        return {
            "prefill_gap": float(np.ptp(self.flows.fed * self.running.prefill_seconds)),
            "solo_gap": float(np.ptp(self.flows.solo * self.running.solo_seconds)),
            "tpot": self.running.point.tpot,
        }


def solve(program: BatchProgram, instance: BatchInstance) -> Solution:
    """The best flows of an instance.

    Raises:
        InfeasiblePlanError: classes that never leave exceed what a GPU can do, or a limit cannot be met.
        ArithmeticError: the solver got lost.
    """
    if not instance.chunks_end and instance.mixed_is_faster:
        return _beside_its_bound(program, instance)
    if instance.indicators.tpot_weight:
        return _at_best_tpot(program, instance)
    free = _free(program, instance)
    if _keeps(instance.indicators, free):
        return free
    found = _limited(program, instance, free.running)
    if found is None:
        raise InfeasiblePlanError(_unmet(program, instance, free))
    return found


def _beside_its_bound(program: BatchProgram, instance: BatchInstance) -> Solution:
    """The best flows where each mixed iteration has a chunk, with the bound and its prices of the program without that
    row: only so R* never falls as chunks grow, though the law says that mixed iterations are the faster ones, or that
    smaller chunks cost less. What a request takes is counted at the prices where it runs.

    Where an indicator costs something, the row stays.
    """
    runs = solve(program, replace(instance, chunks_end=True))
    if instance.indicators.tpot_weight or not _keeps(instance.indicators, runs) or runs.limited:
        return runs
    program.load(instance)
    vertex = program.maximise(program.objective())
    assert vertex is not None, "a row less leaves it feasible"
    prices = replace(Prices.of(program, vertex), prefill=runs.prices.prefill, decode=runs.prices.decode)
    return replace(runs, objective=vertex.objective, prices=prices)


def _free(program: BatchProgram, instance: BatchInstance) -> Solution:
    """Without limits."""
    program.load(instance)
    try:
        vertex = program.maximise(program.objective())
    except ArithmeticError:
        if not is_overloaded(program):
            raise
        vertex = None
    if vertex is None:
        raise InfeasiblePlanError(explain(program))
    if not instance.chunks_end and program.has_empty_chunks(vertex.columns):
        return _beside_its_bound(program, instance)
    return _settled(program, vertex)


def _settled(program: BatchProgram, vertex: Vertex, *, alike: bool = True) -> Solution:
    prices = Prices.of(program, vertex)
    program.check(vertex.columns)
    flows = settle_ties(program, vertex, alike=alike)
    return Solution(vertex.objective, prices, flows, running(program.instance, flows))


def _keeps(indicators: Indicators, solution: Solution) -> bool:
    """Whether a solution keeps every limit, and no gap has a weight."""
    weighted = indicators.prefill_gap_weight or indicators.solo_gap_weight
    return not weighted and _holds(indicators, solution)


def _limited(
    program: BatchProgram, instance: BatchInstance, start: Running, *, any_will_do: bool = False
) -> Solution | None:
    """With limits, at the iteration times of the solution itself: a fixed point. None if they can't be met, or only by
    serving nobody.

    A limit on TPOT needs iterations with fewer decodes than there are slots, so there are kinds of them, the finer the
    nearer to those that run.

    Args:
        any_will_do: whether the first that serves somebody within the limits is enough.
    """
    limit = instance.indicators.max_tpot
    grid = None if limit is None else first_grid(instance)
    limits = limits_at(instance, start, math.inf if limit is None else limit, grid)
    before, kept, within = None, None, (grid, limits)
    for attempt in range(_ROUNDS):
        try:
            found, vertex = _at(program, instance, grid, limits)
        except ArithmeticError:
            if limit is None:
                raise
            limits = replace(limits, tpot=limits.tpot * (1.0 - _NUDGE * (attempt + 1)))
            continue
        if found is None:
            break
        if _holds(instance.indicators, found) and (kept is None or found.objective > kept.objective):
            kept, within = found, (grid, limits)
        if before is not None and _are_one(before, found):
            break
        if any_will_do and kept is not None and kept.flows.fed.any():
            break
        if grid is not None and vertex is not None and len(grid) < _MOST_KINDS:
            grid = refined(grid, program, vertex)
        tpot = _stricter(limits.tpot, limit, found) if attempt > _STEADY else limits.tpot
        fresh = limits_at(instance, found.running, tpot, grid)
        limits = (
            between(limits, fresh)
            if attempt > _STEADY and len(limits.solo_seconds) == len(fresh.solo_seconds)
            else fresh
        )
        before = found
    if kept is None or (limit is not None and not kept.flows.fed.any()):
        return None
    return replace(kept if any_will_do else _alike(program, instance, kept, *within), limited=True)


def _alike(
    program: BatchProgram, instance: BatchInstance, kept: Solution, grid: Array | None, limits: Limits
) -> Solution:
    """The solution with classes that are worth the same taken alike, where that keeps the limits too."""
    try:
        found, _ = _at(program, instance, grid, limits, alike=True)
    except ArithmeticError:
        return kept
    return found if found is not None and _holds(instance.indicators, found) else kept


def _at(
    program: BatchProgram, instance: BatchInstance, grid: Array | None, limits: Limits, *, alike: bool = False
) -> tuple[Solution | None, Vertex | None]:
    """The best flows within some limits; None where there are none.

    Raises:
        ArithmeticError: the solver got lost, as it may next to a limit that makes a class all but worthless.
    """
    program.load(instance, grid, limits)
    vertex = program.maximise(program.objective())
    return (None, None) if vertex is None else (_settled(program, vertex, alike=alike), vertex)


def _holds(indicators: Indicators, solution: Solution) -> bool:
    """Whether every limit holds at the iteration times of the solution itself."""
    limits = ((getattr(indicators, f"max_{name}"), value) for name, value in solution.values().items())
    return all(limit is None or value <= limit * (1.0 + _HELD) for limit, value in limits)


def _stricter(tpot: float, limit: float | None, found: Solution) -> float:
    """A limit for the program that makes up for what it does not see of the one that is asked for."""
    value = found.running.point.tpot
    return tpot if limit is None or value <= limit else tpot * limit / value


def _are_one(one: Solution, two: Solution) -> bool:
    if abs(one.objective - two.objective) > _SAME * abs(two.objective):
        return False
    pairs = zip(one.values().values(), two.values().values(), strict=True)
    return all(math.isclose(a, b, rel_tol=_SAME, abs_tol=1e-12) for a, b in pairs)


def _at_best_tpot(program: BatchProgram, instance: BatchInstance) -> Solution:
    """With a weight on TPOT: the limit on it whose objective less the penalty is most."""
    indicators = instance.indicators
    plain = replace(instance, indicators=indicators.model_copy(update={"tpot_weight": 0.0}))
    loosest = solve(program, plain)

    def worth(solution: Solution) -> float:
        return solution.objective - indicators.tpot_weight * solution.running.point.tpot

    high = loosest.running.point.tpot
    low, best = least_limit(program, plain, "max_tpot", loosest), loosest
    for _ in range(_NARROWINGS):
        limits = np.linspace(low, high, _POINTS)
        found = [s for s in (_under(program, plain, "max_tpot", limit, loosest) for limit in limits) if s is not None]
        if not found:
            break
        best = max(best, *found, key=worth)
        place = int(np.argmax([worth(solution) for solution in found])) + len(limits) - len(found)
        low, high = float(limits[max(place - 1, 0)]), float(limits[min(place + 1, len(limits) - 1)])
    return best


def _under(
    program: BatchProgram,
    instance: BatchInstance,
    name: str,
    limit: float,
    start: Solution,
    *,
    any_will_do: bool = False,
) -> Solution | None:
    """With a limit in the place of the instance's own, other ways as it is; see `_limited`."""
    indicators = instance.indicators.model_copy(update={name: limit})
    return _limited(program, replace(instance, indicators=indicators), start.running, any_will_do=any_will_do)


def least_limit(program: BatchProgram, instance: BatchInstance, name: str, loosest: Solution) -> float:
    """The least value of a limit that can be met, by bisection, up to the value at `loosest`."""
    low, high = 0.0, loosest.values()[name.removeprefix("max_")]
    if name == "max_tpot":
        low = min(high, 0.5 * instance.iterations().solo_seconds(1.0, 0.0))
    for _ in range(_HALVINGS):
        if high - low <= _FOUND * high:
            break
        middle = 0.5 * (low + high)
        met = _under(program, instance, name, middle, loosest, any_will_do=True) is not None
        low, high = (low, middle) if met else (middle, high)
    return high


def _unmet(program: BatchProgram, instance: BatchInstance, free: Solution) -> str:
    """Which limits cannot be met, and the least that can; one line."""
    limits = {name: getattr(instance.indicators, name) for name in (f"max_{value}" for value in free.values())}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    alone = {name: replace(instance, indicators=Indicators(**{name: limit})) for name, limit in given.items()}
    unmet = [name for name in given if _limited(program, alone[name], free.running) is None]
    if not unmet:
        reason = f"{' and '.join(given)} cannot be met together; loosen one or drop one"
    else:
        words = [
            f"{name} {given[name]:.9g} cannot be met: the least that can is "
            f"{rounded_up(least_limit(program, alone[name], name, free))}"
            for name in unmet
        ]
        reason = f"{', '.join(words)}; set a looser limit, or drop it"
    return one_line(f"scenario '{instance.scenario.name}': {reason}")
