"""From a scenario and a number of engines to the laws of its requests' times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fluidgate.arguments import checked
from fluidgate.batching import DISCIPLINES, Batching, BatchingName
from fluidgate.errors import FluidgateError
from fluidgate.model import AnyScenario, Array, Scenario
from fluidgate.planning import check_gpus
from fluidgate.policies import PlacedPolicy, Policy
from fluidgate.tails.budget import BudgetQueue
from fluidgate.tails.density import POINTS, UNBOUNDED, Grid, Time, mixture
from fluidgate.tails.discipline import LEAST, Discipline
from fluidgate.tails.doubts import NEAR, doubts_of
from fluidgate.tails.load import Load
from fluidgate.tails.modulated import Phase, phases_of
from fluidgate.tails.operating import Engine, Operating, drifted, operating, serves
from fluidgate.tails.order import order_of
from fluidgate.tails.pool import PoolQueue
from fluidgate.tails.prediction import ClassPrediction, Prediction
from fluidgate.tails.times import times_of
from fluidgate.tails.tpot import Spread, gaps_of, tpot_masses
from fluidgate.wording import all_worded, named

_HALVINGS = 10
_QUIET = 0.8
"""Share of what can be served at which a queue is short beside the fluid before it."""
_BRINK = 0.97
"""Share beyond which a phase, or a drift of the batch, ends before the queue is that of ever."""
_FAR = 0.75
"""Share of what can be served below which queues end soon."""
_SLOWER = 2.5
"""Times that decodes last until a batch has followed; fitted."""
_DRIFT = 0.03
"""Of the load of prompts, that counts."""
_NODES = np.polynomial.hermite_e.hermegauss(3)[0]
_WEIGHTS = np.polynomial.hermite_e.hermegauss(3)[1] / math.sqrt(2.0 * math.pi)


@checked
def predict(
    scenario: AnyScenario,
    engines: int | None = None,
    *,
    batching: BatchingName | None = None,
    policy: str | Policy | PlacedPolicy | None = None,
) -> Prediction:
    """The laws of TTFT, TPOT and latency of a scenario on `engines` engines, without simulating it.

    Args:
        scenario: cluster and load; a cluster's load is shared by that many engines.
        engines: n, as `simulate` counts GPUs: a tensor-parallel group is one; by default those of [cluster].
        batching: how a GPU forms its batch; the policy's, or the scenario's, or single prefill if None.
        policy: a name of `fluidgate policies` or a policy, which says where requests wait; None for one line before
            all engines, first come, first served.

    Raises:
        FluidgateError: the number, the policy or a trace of lengths is wrong, or the loop is closed.
    """
    scenario = Scenario.of(scenario)
    option = named("--gpus", "engines")
    engines = scenario.cluster_gpus if engines is None else engines
    if engines is None:
        raise FluidgateError(f"{option}: missing, and the scenario names no [cluster] gpus; say how many")
    check_gpus(engines, option)
    if scenario.arrivals.closed:
        raise FluidgateError(
            f"scenario '{scenario.name}': arrivals.process: times of a closed loop are not predicted; simulate it"
        )
    scenario = scenario.for_gpus(engines)
    discipline = Discipline.of(scenario, batching, policy)
    load, engine = Load.of(scenario), engine_of(scenario, discipline.batching)
    cluster = Cluster(scenario, discipline, engine, engines)
    if scenario.arrivals.process in ("mmpp", "daily"):
        return cluster.modulated(load)
    return cluster.steady(load)


def engine_of(scenario: Scenario, batching: Batching) -> Engine:
    """A GPU of a scenario under a way of batching."""
    gpu, known = scenario.gpu, DISCIPLINES[batching]
    tokens = scenario.engine.max_batched_tokens
    if tokens is None or known.by_policy:
        tokens = known.default_tokens(gpu.batch_size, gpu.chunk_size)
    load = Load.of(scenario)
    context, _ = load.decoding(0 if known.by_policy else 1)
    largest = load.longest if batching == Batching.PREFILL_FIRST else float(tokens)
    memory = scenario.engine.kv_tokens
    most = float(gpu.batch_size)
    if memory is not None and context > 0.0:
        most = min(most, max(memory / context, 0.5))
    return Engine(
        times=times_of(gpu, round(context, 3), largest, load.longest),
        batching=batching,
        tokens=tokens,
        batch_size=gpu.batch_size,
        most=most,
        ranks=scenario.engine.data_parallel,
    )


Queues = tuple[list[PoolQueue | BudgetQueue], Array]
"""Queues, one of which a request finds, and with what chance."""


@dataclass(frozen=True, eq=False)
class Cluster:
    """Engines under a discipline."""

    scenario: Scenario
    discipline: Discipline
    engine: Engine
    engines: int

    def steady(self, load: Load) -> Prediction:
        """Under a load that stands."""
        point = self._point(load)
        return self._prediction(load, point, self._classes(load, point) if point.stable else self._none(load))

    def modulated(self, load: Load) -> Prediction:
        """Under a load whose rate changes: in each phase as if it stood, and the fluid beyond what is served."""
        point = self._point(load)
        if not point.stable:
            return self._prediction(load, point, self._none(load))
        capacity = self._capacity(load)
        absorbed = self._absorbed(load, point, capacity)
        phases = [each.less(absorbed) for each in phases_of(self.scenario.arrivals, capacity) if each.weight > 0.0]
        quiet = self._at(load, _QUIET * capacity)
        each = [self._at(load, min(phase.level, _BRINK * capacity)) for phase in phases]
        weights = np.array([phase.weight for phase in phases])
        found = []
        for k in range(len(load.rate)):
            parts = [_in_phase(phase, own[k], quiet[k]) for phase, own in zip(phases, each, strict=True)]
            found.append(
                ClassPrediction(
                    parts[0].name,
                    mixture([part.ttft for part in parts], weights),
                    mixture([part.tpot for part in parts], weights),
                    mixture([part.latency for part in parts], weights),
                    parts[0].several,
                )
            )
        return self._prediction(load, point, tuple(found))

    def _absorbed(self, load: Load, point: Operating, capacity: float) -> float:
        """Seconds of an overload's work that leave no queue: until decodes are as many, prompts are read faster."""
        decode = load.decoding(self.engine.skipped)[1] * point.tpot
        return max(1.0 / (point.load * capacity) - 1.0, 0.0) * decode

    def _point(self, load: Load) -> Operating:
        square = self.discipline.arrival_square(self.scenario.arrivals.cv**2, self.engines)
        return operating(load, self.engine, self.discipline.pooled(self.engines), square)

    def _near(self, load: Load, point: Operating) -> bool:
        """Whether hardly more load could be served."""
        return point.stable and not self.serves(load.at(1.0 / NEAR))

    @property
    def _balanced(self) -> int:
        """Engines over which decodes are balanced."""
        return self.engines if self.discipline.placement in LEAST else self.discipline.pooled(self.engines)

    def serves(self, load: Load) -> bool:
        """Whether all that arrives can be served."""
        return serves(load, self.engine, self.discipline.pooled(self.engines))

    def _at(self, load: Load, factor: float) -> tuple[ClassPrediction, ...]:
        own = load.at(factor)
        return self._classes(own, self._point(own))

    def _capacity(self, load: Load, high: float = 1e6) -> float:
        """How many times its load the cluster could serve, at most `high`."""
        low, most = 1.0, high
        high = min(2.0, most)
        while high < most and self.serves(load.at(high)):
            low, high = high, 2.0 * high
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.serves(load.at(middle)) else (low, middle)
        return low

    def _classes(self, load: Load, point: Operating) -> tuple[ClassPrediction, ...]:
        square = self.discipline.arrival_square(self.scenario.arrivals.cv**2, self.engines)
        pooled = self.discipline.pooled(self.engines)
        order = order_of(self.scenario, self.discipline, self.engines)
        queues, shares = self._by_placement(load, self._in_the_long_run(load, point, square), square, order)
        spread = Spread.of(load, self.engine, point, square, pooled)
        front = self.scenario.engine.front_end + self.scenario.engine.front_end_first
        found = []
        for k, (requests, name) in enumerate(zip(load.requests, self.scenario.class_names, strict=True)):
            longest = max(queue.longest(k) for queue in queues)
            if math.isinf(longest):
                return self._none(load)
            grid = Grid.up_to(longest + front)
            ttft = sum((w * queue.ttft(k, grid) for w, queue in zip(shares, queues, strict=True)), np.zeros(POINTS))
            if front > 0.0:
                ttft = grid.sum_of(ttft, grid.at(np.array([front])))
            sums, chance, _ = spread.sums(*gaps_of(requests))
            long = Grid.up_to(grid.times[-1] + float(sums.max()))
            latency = long.sum_of(long.at(grid.times, ttft), long.at(sums, chance))
            fine = Grid.up_to(8.0 * point.tpot + spread.most)
            masses = tpot_masses(spread, requests, fine)
            several = float((requests.output > 1.0).mean())
            tpot = Time(fine, fine.at(np.zeros(1)) if masses is None else masses)
            found.append(ClassPrediction(name, Time(grid, ttft), tpot, Time(long, latency), several))
        return tuple(found)

    def _queues(self, load: Load, point: Operating, pooled: int, square: float, order: Array | None) -> Queues:
        """The queue, or several with their weights where the batch drifts so far that the load of prompts does too."""
        drift = math.sqrt(point.batch_variance(square, self._balanced))
        far = drifted(load, self.engine, point, point.decodes + _NODES[-1] * drift, _BRINK)
        if far.load - point.load < _DRIFT:
            return [self._queue(load, point, pooled, square, order)], np.ones(1)
        points = [drifted(load, self.engine, point, point.decodes + z * drift, _BRINK) for z in _NODES]
        return [self._queue(load, each, pooled, square, order) for each in points], _WEIGHTS

    def _by_placement(self, load: Load, point: Operating, square: float, order: Array | None) -> Queues:
        """As `_queues`; of requests that go where the fewest are half are taken as in one line, half as in turn."""
        pooled = self.discipline.pooled(self.engines)
        queues, weights = self._queues(load, point, pooled, square, order)
        if self.discipline.placement not in LEAST or self.engines == 1:
            return queues, weights
        whole = self.scenario.arrivals.cv**2
        others, shares = self._queues(load, point, self.engines, whole, order)
        return [*queues, *others], np.append(0.5 * weights, 0.5 * shares)

    def _in_the_long_run(self, load: Load, point: Operating, square: float) -> Operating:
        """Where a GPU stands while a queue lasts: near saturation long enough for its batch to follow.

        While prompts wait no iteration is without one, and decodes become more until the load of prompts is that over
        what can be served at all. A queue lasts about `S (c_a^2 + c_s^2)/(n (1 - load)^2)`, a decode `D t`.
        """
        if self.engine.batching == Batching.PREFILL_FIRST or self.serves(load.at(1.0 / _FAR)):
            return point
        true = 1.0 / self._capacity(load, 1.0 / _FAR)
        mean = load.prompt_rate / load.total
        spread = sum(r * each.reading_square for r, each in zip(load.rate, load.requests, strict=True))
        prompt = float(load.rate @ point.prompts) / load.total
        squares = square + spread / load.total / mean**2 - 1.0
        lasts = prompt * squares / self._balanced / max(1.0 - true, 0.01) ** 2
        decode = load.decoding(self.engine.skipped)[1] * point.tpot
        most = point.load + max(true - point.load, 0.0) * lasts / (lasts + _SLOWER * decode)
        return drifted(load, self.engine, point, float(self.engine.batch_size), most)

    def _queue(
        self, load: Load, point: Operating, pooled: int, square: float, order: Array | None
    ) -> PoolQueue | BudgetQueue:
        if self.engine.budgeted:
            return BudgetQueue.of(load, self.engine, point, pooled, square, self._balanced)
        return PoolQueue.of(load, self.engine, point, pooled, square, order)

    def _none(self, load: Load) -> tuple[ClassPrediction, ...]:
        names = zip(self.scenario.class_names, load.requests, strict=True)
        return tuple(
            ClassPrediction(name, UNBOUNDED, UNBOUNDED, UNBOUNDED, float((each.output > 1.0).mean()))
            for name, each in names
        )

    def _prediction(self, load: Load, point: Operating, classes: tuple[ClassPrediction, ...]) -> Prediction:
        targets = zip(self.scenario.ttft_targets, self.scenario.tpot_targets, strict=True)
        bounded = all(each.ttft.masses is not None for each in classes)
        return Prediction(
            scenario=self.scenario.name,
            engines=self.engines,
            batching=str(self.discipline.batching),
            classes=classes,
            rate=load.rate,
            targets=tuple((math.inf if a is None else a, math.inf if b is None else b) for a, b in targets),
            load=point.load if bounded else max(point.load, 1.0),
            slots=point.slots,
            decodes=point.decodes,
            doubts=all_worded(doubts_of(self.scenario, self.discipline, self.engine, point, self._near(load, point))),
        )


def _in_phase(phase: Phase, own: ClassPrediction, quiet: ClassPrediction) -> ClassPrediction:
    """The class in a phase: those who find fluid wait for it, the others as if the phase stood."""
    if phase.empty >= 1.0:
        return own
    ttft = _behind(phase, own.ttft, quiet.ttft)
    return ClassPrediction(own.name, ttft, own.tpot, _behind(phase, own.latency, quiet.latency), own.several)


def _behind(phase: Phase, own: Time, quiet: Time) -> Time:
    """A time where some wait for fluid before."""
    if quiet.masses is None:
        return UNBOUNDED
    grid = Grid.up_to(phase.longest + float(quiet.grid.times[-1]))
    waits = Time(grid, grid.sum_of(phase.masses(grid), grid.at(quiet.grid.times, quiet.masses)))
    return mixture([own, waits], np.array([phase.empty, 1.0 - phase.empty]))
