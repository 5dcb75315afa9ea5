"""From a scenario to its plan."""

from __future__ import annotations

from typing import get_args

from fluidgate.errors import FluidgateError, InfeasiblePlanError, nearest
from fluidgate.model import Array, Indicators, Scenario, Scheme
from fluidgate.planning.infeasible import explain
from fluidgate.planning.instance import Instance
from fluidgate.planning.linear_program import Vertex
from fluidgate.planning.plan import Plan
from fluidgate.planning.program import FluidProgram
from fluidgate.planning.reading import read_plan
from fluidgate.planning.ties import settle_ties
from fluidgate.planning.tpot import Tangent, best_mixed_fraction


class Planner:
    """Solves the fluid programs of many related scenarios, each from the last one's basis."""

    def __init__(self) -> None:
        self._program = FluidProgram()

    def solve(
        self,
        scenario: Scenario,
        *,
        gpus: int | None = None,
        scheme: Scheme | None = None,
        allow_decode_buffer: bool = True,
        with_indicators: bool = True,
    ) -> Plan:
        """The optimal plan of a scenario, ties settled as model.md, section 3, says; see `plan`."""
        check_scheme(scheme)
        if gpus is not None:
            scenario = scenario.for_gpus(gpus)
        indicators = scenario.indicators if with_indicators else Indicators()
        instance = Instance.of(scenario, scheme or scenario.pricing.scheme, indicators, allow_decode_buffer)
        try:
            return _plan_of(self._program, instance, gpus)
        except ArithmeticError:
            self._program = FluidProgram()
        try:
            return _plan_of(FluidProgram(careful=True), instance, gpus)
        except ArithmeticError as error:
            raise FluidgateError(f"scenario '{scenario.name}': {error}") from None


def _plan_of(program: FluidProgram, instance: Instance, gpus: int | None) -> Plan:
    """
    Raises:
        ArithmeticError: the solver got lost among numbers that lie too far apart.
    """
    program.load(instance)
    optimum, fraction = _optimum(program)
    columns = settle_ties(program, optimum, fraction)
    program.check(columns)
    return read_plan(program, optimum, columns, gpus)


def plan(
    scenario: Scenario,
    *,
    gpus: int | None = None,
    scheme: Scheme | None = None,
    allow_decode_buffer: bool = True,
    with_indicators: bool = True,
) -> Plan:
    """The optimal steady state of the fluid model: [LDHZ] (40), (42), with indicators (49).

    Args:
        scenario: cluster and load.
        gpus: share the scenario's load among that many GPUs (where it is a cluster's) and add the partition.
        scheme: scheme of the objective, if not the scenario's own.
        allow_decode_buffer: whether prefilled requests may wait, `q_d > 0`; a hard limit forbids it anyhow.
        with_indicators: whether limits and penalties count.

    Raises:
        InfeasiblePlanError: classes that never leave exceed the capacity, or a limit cannot be met.
    """
    return Planner().solve(
        scenario,
        gpus=gpus,
        scheme=scheme,
        allow_decode_buffer=allow_decode_buffer,
        with_indicators=with_indicators,
    )


def check_scheme(scheme: Scheme | None) -> None:
    """Refuse a scheme that there is not.

    Raises:
        FluidgateError: naming the schemes.
    """
    if scheme is not None and scheme not in get_args(Scheme):
        hint = nearest(str(scheme), list(get_args(Scheme))) or f"; give one of {', '.join(get_args(Scheme))}"
        raise FluidgateError(f"scheme: no pricing scheme is named {scheme!r}{hint}")


def _optimum(program: FluidProgram) -> tuple[Vertex, float | None]:
    """Step 1: an optimal vertex with its duals, and `sum x` if the TPOT penalty fixes it.

    With that penalty the vertex solves the program whose penalty is linear, of the slope at the best `sum x`.
    """
    weight, tpot = program.instance.indicators.tpot_weight, program.instance.tpot
    if not weight or not tpot.bend:
        return _solved(program, program.objective()), None

    def touch(slope: float) -> Tangent:
        vertex = _solved(program, program.objective(fraction_cost=slope))
        fraction = float(vertex.columns[program.layout.fraction])
        return Tangent(fraction, vertex.objective + slope * fraction, slope)

    fraction = best_mixed_fraction(touch, tpot, weight)
    return _solved(program, program.objective(fraction_cost=weight * tpot.slope(fraction))), fraction


def _solved(program: FluidProgram, cost: Array) -> Vertex:
    vertex = program.maximise(cost)
    if vertex is None:
        raise InfeasiblePlanError(explain(program))
    return vertex
