"""Which GPUs are up: what changes that on the way of a run, when, and what it costs in GPU time.

A run asks one thing: the epoch of the next change, and what is to be done then. So whoever starts and drains engines by
rules of its own has the same two members as `Fleet`, which goes by a timetable and by failures.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.random import Generator, SeedSequence

from fluidgate.errors import FluidgateError
from fluidgate.model import Failures, Scenario, Step
from fluidgate.simulation.iteration.kernel.cluster import Cluster
from fluidgate.simulation.iteration.kernel.fleet import CLOSE, FAIL, FORGET, OPEN

FAILURES = 5
"""The place of failures among the random streams of a replication."""


class Move(NamedTuple):
    """What is done to a GPU.

    Attributes:
        kind: CLOSE (it takes nothing new), OPEN (it does again), FAIL (it is closed), FORGET (it is closed and empty,
            and has kept nothing of prompts).
    """

    kind: int
    gpu: int


class Changing(Protocol):
    """Whoever decides which GPUs are up.

    Attributes:
        next: epoch of the next change, s; inf for none.
        up: GPUs that take requests.
        away: of the others, how many may come back; 0 where none ever will.
    """

    @property
    def next(self) -> float: ...

    @property
    def up(self) -> int: ...

    @property
    def away(self) -> int: ...

    def apply(self, epoch: float, cluster: Cluster) -> Sequence[Move]:
        """What is done at `epoch`, in order; it moves `next` beyond. The cluster is to be read only."""

    def times(self, now: float, cluster: Cluster) -> FleetTimes | None:
        """What the run has cost by its end; None where nobody counts."""


@dataclass(frozen=True)
class FleetTimes:
    """GPU seconds in the window of a run.

    Attributes:
        paid: of GPUs that are up, start, or finish what they have.
        up: of GPUs that take requests.
        wanted: of GPUs that are meant to.
    """

    paid: float
    up: float
    wanted: float


@dataclass(frozen=True)
class FleetPlan:
    """What is said ahead of which GPUs are up.

    Attributes:
        failures: at random and at given times; None for none.
        schedule: how many GPUs are meant to be up, from when on; all if empty, and before its first step.
        seed: of the failures, as entropy and spawn key.
    """

    failures: Failures | None = None
    schedule: tuple[Step, ...] = ()
    seed: tuple[int, int] = (0, 0)


def fleet_plan(scenario: Scenario, seed: int, replication: int) -> FleetPlan | None:
    """Of a scenario, for one replication; None where all GPUs are up all the time."""
    return FleetPlan(scenario.failures, scenario.schedule, (seed, replication)) if scenario.has_fleet else None


def named_gpus(scenario: Scenario) -> int:
    """The fewest GPUs among which are all that failures at given times and the schedule name."""
    failing = [each.gpu + 1 for each in scenario.failures.at] if scenario.failures is not None else []
    return max([1, *failing, *(step.gpus for step in scenario.schedule)])


def check_fleet_plan(scenario: Scenario, gpus: int) -> None:
    """Refuse failures of GPUs that there are not, and more GPUs than there are.

    Raises:
        FluidgateError: naming the key and the mend.
    """
    for k, each in enumerate(scenario.failures.at if scenario.failures is not None else ()):
        if each.gpu >= gpus:
            raise FluidgateError(
                f"failures.at[{k}]: gpu: GPU {each.gpu} of {gpus}, which are numbered from 0; "
                f"give at most {gpus - 1}, or more GPUs"
            )
    ranks = scenario.engine.data_parallel
    for k, step in enumerate(scenario.schedule):
        if step.gpus > gpus:
            raise FluidgateError(
                f"schedule[{k}]: gpus: {step.gpus} of {gpus} GPUs; give at most {gpus}, or more GPUs with --gpus"
            )
        if step.gpus % ranks != 0:
            raise FluidgateError(
                f"schedule[{k}]: gpus: {step.gpus} is no whole number of groups of {ranks} ranks; "
                f"give a multiple of {ranks}"
            )


UP, DRAINING, STARTING, DOWN, OFF = range(5)
PAID = (UP, DRAINING, STARTING)
WANTED = (UP, STARTING, DOWN)

REPAIRED, READY, STEP, FAILURE = range(4)
"""In this order at one epoch."""


class Fleet:
    """GPUs that fail and are repaired, and that are started and drained by a timetable: the first so many are up.

    A GPU that fails takes nothing until it is repaired, and is not paid for meanwhile. One that is drained finishes
    what it has, and is given back when its last iteration has ended; before that it is up again as soon as it is
    wanted again. Where GPUs step together, they are in one state.
    """

    def __init__(self, plan: FleetPlan, gpus: int, *, ranks: int = 1, warmup: float = 0.0) -> None:
        self._plan, self._gpus, self._ranks, self._warmup = plan, gpus, ranks, warmup
        self._state = [UP] * gpus
        self._since = [0.0] * gpus
        self._until = [0.0] * gpus  # repaired, or started
        self._seconds = [0.0] * len(("up", "draining", "starting", "down", "off"))
        self._events: list[tuple[float, int, int, Any]] = []
        self._steps = len(plan.schedule)
        for k, step in enumerate(plan.schedule):
            self._push(step.time, STEP, k, step)
        failures = plan.failures
        self._unit = 1 if failures is None else -(-failures.units // ranks) * ranks
        self._random: dict[int, Iterator[tuple[float, float]]] = {}
        if failures is not None:
            for k, each in enumerate(failures.at):
                self._push(each.time, FAILURE, k, (each.gpu // self._unit, each.duration, False))
            if failures.mtbf is not None:
                for unit in range(-(-gpus // self._unit)):
                    self._random[unit] = breakdowns(failures, (*plan.seed, unit))
                    self._next_breakdown(unit)

    @property
    def next(self) -> float:
        return self._events[0][0] if self._events else math.inf

    @property
    def up(self) -> int:
        return self._state.count(UP)

    @property
    def away(self) -> int:
        down = [g for g in range(self._gpus) if self._state[g] == DOWN and self._until[g] < math.inf]
        return self._state.count(STARTING) + len(down) + self._steps

    def apply(self, epoch: float, cluster: Cluster) -> list[Move]:
        moves: list[Move] = []
        while self._events and self._events[0][0] <= epoch:
            _, kind, _, what = heapq.heappop(self._events)
            if kind == STEP:
                self._steps -= 1
                moves += self._follow(what, epoch, cluster)
            elif kind == FAILURE:
                unit, seconds, drawn = what
                moves += self._break_down(unit, epoch, seconds, cluster)
                if drawn:
                    self._next_breakdown(unit)
            elif self._until[what] <= epoch and self._state[what] == (DOWN if kind == REPAIRED else STARTING):
                moves += self._open(what, epoch)
        return moves

    def times(self, now: float, cluster: Cluster) -> FleetTimes:
        for g in range(self._gpus):
            self._look_if_empty(g, now, cluster)
            self._become(g, self._state[g], now)
        total = self._seconds
        return FleetTimes(
            paid=math.fsum(total[state] for state in PAID),
            up=total[UP],
            wanted=math.fsum(total[state] for state in WANTED),
        )

    def _push(self, epoch: float, kind: int, number: int, what: Any) -> None:
        if epoch < math.inf:
            heapq.heappush(self._events, (epoch, kind, number, what))

    def _next_breakdown(self, unit: int) -> None:
        epoch, seconds = next(self._random[unit])
        given = 0 if self._plan.failures is None else len(self._plan.failures.at)
        self._push(epoch, FAILURE, given + unit, (unit, seconds, True))

    def _become(self, g: int, state: int, epoch: float) -> None:
        self._seconds[self._state[g]] += max(epoch, self._warmup) - max(self._since[g], self._warmup)
        self._state[g], self._since[g] = state, epoch

    def _open(self, g: int, epoch: float) -> list[Move]:
        self._become(g, UP, epoch)
        return [Move(OPEN, g)]

    def _break_down(self, unit: int, epoch: float, seconds: float, cluster: Cluster) -> list[Move]:
        gpus = range(unit * self._unit, min((unit + 1) * self._unit, self._gpus))
        closed = [Move(CLOSE, g) for g in gpus if self._state[g] == UP]
        failed = [Move(FAIL, g) for g in gpus if self._state[g] in (UP, DRAINING)]
        for g in gpus:
            if self._state[g] == DRAINING:
                self._look_if_empty(g, epoch, cluster)
                self._become(g, OFF, epoch)
            elif self._state[g] != OFF:
                self._until[g] = max(self._until[g] if self._state[g] == DOWN else 0.0, epoch + seconds)
                self._become(g, DOWN, epoch)
                self._push(self._until[g], REPAIRED, g, g)
        return closed + failed

    def _follow(self, step: Step, epoch: float, cluster: Cluster) -> list[Move]:
        moves: list[Move] = []
        for g in range(self._gpus):
            self._look_if_empty(g, epoch, cluster)
            state = self._state[g]
            if g >= step.gpus and state == UP:
                self._become(g, DRAINING, epoch)
                moves.append(Move(CLOSE, g))
            elif g >= step.gpus and state != DRAINING:
                self._become(g, OFF, epoch)
            elif g < step.gpus and state == DRAINING:
                moves += self._open(g, epoch)
            elif g < step.gpus and state == OFF:
                moves.append(Move(FORGET, g))
                moves += self._start(g, step.start_up, epoch)
        return moves

    def _start(self, g: int, seconds: float, epoch: float) -> list[Move]:
        if seconds == 0.0:
            return self._open(g, epoch)
        self._become(g, STARTING, epoch)
        self._until[g] = epoch + seconds
        self._push(self._until[g], READY, g, g)
        return []

    def _look_if_empty(self, g: int, epoch: float, cluster: Cluster) -> None:
        """A GPU that was drained has been given back when its last iteration had ended."""
        if self._state[g] == DRAINING and is_empty(cluster, g):
            self._become(g, OFF, min(max(self._since[g], last_end(cluster, g)), epoch))


def breakdowns(failures: Failures, seed: tuple[int, ...]) -> Iterator[tuple[float, float]]:
    """Epochs at which a unit fails, and the seconds until it is repaired, for ever."""
    assert failures.mtbf is not None
    assert failures.mttr is not None
    draws = Generator(np.random.SFC64(SeedSequence(seed[0], spawn_key=(seed[1], FAILURES, *seed[2:]))))
    epoch = 0.0
    while True:
        epoch += failures.mtbf * draws.standard_exponential()
        seconds = failures.mttr * draws.standard_exponential()
        yield epoch, seconds
        epoch += seconds


def is_empty(cluster: Cluster, g: int) -> bool:
    """Whether `g`, which is closed, and the ranks in step with it hold nobody any more."""
    ranks = cluster.set.keys.data_parallel
    if cluster.set.by_policy or cluster.set.gated:
        first = g - g % ranks
        return bool((cluster.gpu["occupied"][first : first + ranks] == cluster.batch_size).all())
    return bool(cluster.loads.load[g // ranks] == 0)


def last_end(cluster: Cluster, g: int) -> float:
    """End of the last iteration of `g`, which stands still, s."""
    here = cluster.gpu[g]
    return float(here["origin"] + _span(float(here["first"]), float(here["step"]), int(here["length"])))


def _span(first: float, step: float, iterations: int) -> float:
    """As `law.span`, which compiled code alone can call."""
    return iterations * first + step * (0.5 * iterations * (iterations - 1.0))
