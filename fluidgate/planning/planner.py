"""From a scenario to its plan."""

from __future__ import annotations

from typing import get_args

from fluidgate.arguments import checked
from fluidgate.batching import Batching, BatchingName
from fluidgate.errors import FluidgateError, InfeasiblePlanError, nearest
from fluidgate.model import AnyScenario, Array, Indicators, Scenario, Scheme
from fluidgate.planning.batches.instance import BatchInstance
from fluidgate.planning.batches.program import BatchProgram
from fluidgate.planning.batches.reading import read_plan as read_batches
from fluidgate.planning.batches.solve import least_limit, solve
from fluidgate.planning.infeasible import explain
from fluidgate.planning.instance import Instance
from fluidgate.planning.linear_program import Vertex
from fluidgate.planning.partition import check_gpus
from fluidgate.planning.plan import Plan
from fluidgate.planning.program import FluidProgram
from fluidgate.planning.reading import read_plan
from fluidgate.planning.ties import settle_ties
from fluidgate.planning.tpot import Tangent, best_mixed_fraction


class Planner:
    """Solves the fluid programs of many related scenarios, each from the last one's basis."""

    def __init__(self) -> None:
        self._program = FluidProgram()
        self._batches = BatchProgram()

    @checked
    def solve(
        self,
        scenario: AnyScenario,
        *,
        gpus: int | None = None,
        scheme: Scheme | None = None,
        allow_decode_buffer: bool = True,
        with_indicators: bool = True,
        batching: BatchingName | None = None,
        by_iterations: bool = False,
    ) -> Plan:
        """The optimal plan of a scenario, ties settled as model.md, section 3, says; see `plan`."""
        scenario = Scenario.of(scenario)
        check_scheme(scheme)
        if gpus is not None:
            check_gpus(gpus)
            scenario = scenario.for_gpus(gpus)
        indicators = scenario.indicators if with_indicators else Indicators()
        scheme = scheme or scenario.pricing.scheme
        how = Batching(batching or scenario.engine.batching or Batching.SINGLE_PREFILL)
        try:
            if has_full_chunks(scenario, how, by_iterations):
                return self._in_occupancies(Instance.of(scenario, scheme, indicators, allow_decode_buffer), gpus)
            return self._in_batches(BatchInstance.of(scenario, scheme, indicators, how, allow_decode_buffer), gpus)
        except ArithmeticError as error:
            raise FluidgateError(f"scenario '{scenario.name}': {error}") from None

    @checked
    def least_limit(self, scenario: Scenario, name: str) -> float | None:
        """The least that a limit of the scenario can be, the others as they are, where its program counts the batch
        that runs; None for [LDHZ]'s own program.

        Raises:
            InfeasiblePlanError: there is no plan even without the limit.
        """
        batching = Batching(scenario.engine.batching or Batching.SINGLE_PREFILL)
        if has_full_chunks(scenario, batching):
            return None
        others = scenario.indicators.model_copy(update={name: None, "tpot_weight": 0.0})
        instance = BatchInstance.of(scenario, scenario.pricing.scheme, others, batching, False)
        return least_limit(self._batches, instance, name, solve(self._batches, instance))

    def _in_occupancies(self, instance: Instance, gpus: int | None) -> Plan:
        try:
            return _plan_of(self._program, instance, gpus)
        except ArithmeticError:
            self._program = FluidProgram()
        return _plan_of(FluidProgram(careful=True), instance, gpus)

    def _in_batches(self, instance: BatchInstance, gpus: int | None) -> Plan:
        try:
            return read_batches(instance, solve(self._batches, instance), gpus)
        except ArithmeticError:
            self._batches = BatchProgram()
        return read_batches(instance, solve(self._batches, instance), gpus)


def has_full_chunks(scenario: Scenario, batching: Batching, by_iterations: bool = False) -> bool:
    """Whether [LDHZ]'s own program holds: three numbers for the law, one prefill in chunks that are full, no memory.

    Else a plan counts the batch that runs. Chunks that their prompts don't fill are taken as full where the scenario
    says no more than the model does, so that nothing is known of the lengths but their means, unless it is to be held
    against iterations; and where the law gives a chunk that is not full no time.
    """
    law, shortest = scenario.gpu.iteration, float(scenario.reading.min())
    filled = shortest >= scenario.gpu.chunk_size or law.alpha + law.beta * shortest <= 0.0
    return (
        not law.by_batch
        and batching == Batching.SINGLE_PREFILL
        and scenario.engine.kv_tokens is None
        and (filled or not (by_iterations or scenario.goes_beyond_the_model))
    )


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


@checked
def plan(
    scenario: AnyScenario,
    *,
    gpus: int | None = None,
    scheme: Scheme | None = None,
    allow_decode_buffer: bool = True,
    with_indicators: bool = True,
    batching: BatchingName | None = None,
    by_iterations: bool = False,
) -> Plan:
    """The optimal steady state of the fluid model: [LDHZ] (40), (42), with indicators (49).

    Where the law of an iteration has more than the three numbers of [LDHZ], chunks are not full or memory ends, the
    program counts the batch that runs (`fluidgate.planning.batches`).

    Args:
        scenario: cluster and load.
        gpus: share the scenario's load among that many GPUs (where it is a cluster's) and add the partition.
        scheme: scheme of the objective, if not the scenario's own.
        allow_decode_buffer: whether prefilled requests may wait, `q_d > 0`; a hard limit forbids it anyhow.
        with_indicators: whether limits and penalties count.
        batching: how batches are formed, if not as the scenario's engine or, where that leaves it open, in single
            prefills.
        by_iterations: count chunks as their prompts fill them, even where the scenario says no more than the model.

    Raises:
        InfeasiblePlanError: classes that never leave exceed the capacity, or a limit cannot be met.
    """
    return Planner().solve(
        scenario,
        gpus=gpus,
        scheme=scheme,
        allow_decode_buffer=allow_decode_buffer,
        with_indicators=with_indicators,
        batching=batching,
        by_iterations=by_iterations,
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
