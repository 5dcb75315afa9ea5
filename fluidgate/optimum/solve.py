"""The optimal policy of a small cluster: a Markov decision process, solved by relative value iteration.

Decisions are due after every arrival, completion and abandonment: any number of prefill starts, each on any GPU with a
free slot and no prefill, and of decodes placed on any GPU with a free slot; or none. No partition is imposed, and
nothing in service is interrupted. So the optimum bounds the policies of section 4 of the model, and any other.

Limits keep the states finite: an arrival to a full queue is lost, and of the decodes that do not fit into the buffer
one is placed or dropped. A policy without limits can imitate both, so the optimum within limits is a lower bound of the
one without, and near it where the limits are rarely met.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError
from fluidgate.model import AnyScenario, Array, Scenario
from fluidgate.optimum import kernel
from fluidgate.optimum.cluster import checked_gpus
from fluidgate.optimum.result import TRUNCATION, Optimum, PolicyTable, Yardstick, worth_of_all
from fluidgate.optimum.space import Counts, Integers, Size, Space, Tables
from fluidgate.planning import Planner
from fluidgate.progress import Progress
from fluidgate.replanning import AnyPolicies
from fluidgate.simulation import compare

log = logging.getLogger("fluidgate")

MAX_STATES = 2_000_000
ACCURACY = 1e-6
MAX_SWEEPS = 20_000
SWEEPS_PER_CHECK = 10
STALLED = 10
"""Checks without progress after which the gain is corrected more gently."""
NOTICE = 300_000
"""States from which on a notice says that it takes a while."""
TAILS = (1e-6, 1e-5, 1e-4, 1e-3)
"""Chances to stand at a queue's limit, whatever the policy: the first that fits is taken."""
PATIENT_LIMIT = 20
"""Where the search for the queue limit of a class that never leaves begins, where no such bound holds; it is doubled
while the policy stands there."""
ENDLESS = 0.6
"""A queue that stands at twice the limit this share of the time that it stood at the limit, or more, has no end: at its
capacity it would be half, below less."""
BUFFER_LIMIT = 3
"""Where the search for a buffer limit begins; it is doubled while the policy stands there."""
COARSE = 1e-3
"""Accuracy of the search."""
FIRST_LOOK = 500
"""Sweeps after which the policy is looked at first, where somebody never leaves."""
USEFUL = 4
"""Shorter queue limits are not suggested: they would be met too often."""
TIE = 1e-9
"""Values closer than this, relatively, are equal: the policy then acts rather than holds."""
SETTLED = 1e-13


@checked
def optimum(
    scenario: AnyScenario,
    *,
    gpus: int | None = None,
    queue_limit: int | None = None,
    buffer_limit: int | None = None,
    accuracy: float = ACCURACY,
    max_states: int = MAX_STATES,
) -> Optimum:
    """The policy that earns most on a small cluster, and what it earns; indicators are left out.

    Args:
        scenario: cluster and load.
        gpus: number of GPUs n; the scenario's own number if it has one.
        queue_limit: most requests of each class that wait for prefill; by default so many that a queue which is
            never served stands there a millionth of the time (a thousandth if only that fits `max_states`), and of a
            class that never leaves 20, doubled like the buffer's unless its queue has no end.
        buffer_limit: most requests that wait for decode, all classes together; by default 3, doubled as long as the
            optimal policy stands there more than a ten-thousandth of the time and `max_states` allows.
        accuracy: largest relative distance of the certified bounds of the revenue.
        max_states: larger systems are refused.

    Raises:
        FluidgateError: an option is wrong, or the system is too large; the message says what would fit.
    """
    scenario = Scenario.of(scenario)
    scenario.need_prices("the optimum")
    gpus = checked_gpus(scenario, gpus, "the optimum")
    for name, limit in (("--queue-limit", queue_limit), ("--buffer-limit", buffer_limit)):
        if limit is not None and limit < 1:
            raise FluidgateError(f"{name}: must be at least 1, but is {limit}")
    if not 0 < accuracy < 1:
        raise FluidgateError(f"--accuracy: must be between 0 and 1, but is {accuracy:g}")
    patient = PATIENT_LIMIT if queue_limit is None else queue_limit
    buffer = BUFFER_LIMIT if buffer_limit is None else buffer_limit
    size = fitting_size(scenario, gpus, queue_limit, buffer, max_states, patient)
    scenario = scenario.for_gpus(gpus)
    fluid = Planner().solve(scenario, with_indicators=False).revenue_rate
    solution = _Solution(scenario, size)
    solution.improve(max(accuracy, COARSE))
    endless: tuple[int, ...] = ()
    while True:
        before = solution.patient_limit_chances
        longer = queue_limit is None and any(c > TRUNCATION for i, c in before.items() if i not in endless)
        fuller = buffer_limit is None and solution.buffer_limit_chance > TRUNCATION
        if not (longer or fuller) or solution.is_all_there_is(accuracy):
            break
        patient, buffer = patient * (2 if longer else 1), buffer * (2 if fuller else 1)
        wider = _with_buffer(scenario, gpus, queue_limit, buffer, max_states, patient)
        if wider is None:
            break
        solution = _Solution(scenario, wider)
        solution.improve(max(accuracy, COARSE))
        if longer:
            after = solution.patient_limit_chances
            endless = tuple(i for i, chance in after.items() if chance > max(ENDLESS * before[i], TRUNCATION))
    if accuracy < COARSE:
        solution.improve(accuracy)
    return solution.optimum(fluid, endless)


@checked
def yardstick(
    best: Optimum,
    policies: AnyPolicies,
    *,
    horizon: float = 100_000.0,
    replications: int = 5,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | bool | None = None,
) -> Yardstick:
    """What policies earn on the cluster of an optimum, simulated without limits on the queues.

    Arguments and errors as in `compare`.
    """
    found = compare(
        best.scenario,
        policies,
        gpus=best.gpus,
        horizon=horizon,
        replications=replications,
        seed=seed,
        workers=workers,
        fidelity="markov",
        progress=progress,
    )
    return Yardstick(best, found.policies)


# ---- the size


def fitting_size(
    scenario: Scenario,
    gpus: int,
    queue_limit: int | None,
    buffer_limit: int,
    max_states: int,
    patient_limit: int = PATIENT_LIMIT,
) -> Size:
    """The shape of the state space, limits chosen where they are not given.

    Raises:
        FluidgateError: it has more than `max_states` states.
    """
    batch = scenario.gpu.batch_size
    found = _with_buffer(scenario, gpus, queue_limit, buffer_limit, max_states, patient_limit)
    if found is not None:
        return found
    asked = _sizes(scenario, gpus, batch, queue_limit, buffer_limit)[-1]
    fits = []
    fewer = [n for n in range(gpus - 1, 0, -1) if _fits(scenario, n, batch, queue_limit, buffer_limit, max_states)]
    if fewer:
        fits.append(f"--gpus {fewer[0]}")
    smaller = next(
        (
            slots
            for slots in range(min(batch - 1, 64), 0, -1)
            if _fits(scenario, gpus, slots, queue_limit, buffer_limit, max_states)
        ),
        None,
    )
    if smaller is not None:
        fits.append(f"batch_size = {smaller}")
    limits = next(
        (
            q
            for q in range(max(asked.queue_limits) - 1, USEFUL - 1, -1)
            if _fits(scenario, gpus, batch, q, 1, max_states)
        ),
        None,
    )
    if limits is not None:
        fits.append(f"--queue-limit {limits} --buffer-limit 1")
    mend = "; this would fit: " + ", or ".join(fits) if fits else "; fewer classes, GPUs and slots might fit"
    raise FluidgateError(
        f"{gpus} GPU{'s' * (gpus > 1)} of {batch} slots with {asked.classes} class{'es' * (asked.classes > 1)} have "
        f"{_count(asked.states)} states, above the limit of {max_states:,}{mend}"
    )


def _with_buffer(
    scenario: Scenario, gpus: int, queue_limit: int | None, buffer_limit: int, max_states: int, patient_limit: int
) -> Size | None:
    sizes = _sizes(scenario, gpus, scenario.gpu.batch_size, queue_limit, buffer_limit, patient_limit)
    return next((size for size in sizes if size.states <= max_states), None)


def _fits(
    scenario: Scenario, gpus: int, batch: int, queue_limit: int | None, buffer_limit: int, max_states: int
) -> bool:
    return any(s.states <= max_states for s in _sizes(scenario, gpus, batch, queue_limit, buffer_limit))


def _sizes(
    scenario: Scenario,
    gpus: int,
    batch: int,
    queue_limit: int | None,
    buffer_limit: int,
    patient_limit: int = PATIENT_LIMIT,
) -> list[Size]:
    """The sizes to try, the largest first."""
    rates = scenario.for_gpus(gpus).rates
    if queue_limit is not None:
        return [Size(gpus, batch, (queue_limit,) * len(rates.arrival), buffer_limit)]
    limits: list[Counts] = [
        tuple(
            patient_limit if theta == 0 else poisson_limit(gpus * arrival / theta, tail)
            for arrival, theta in zip(rates.arrival, rates.patience, strict=True)
        )
        for tail in TAILS
    ]
    return [Size(gpus, batch, each, buffer_limit) for each in limits]


def poisson_limit(mean: float, tail: float) -> int:
    """The least `k` that a Poisson number of this mean reaches with a chance of at most `tail`.

    A queue that is never served, with arrivals at rate a and patience rate theta, has the mean a/theta; one that is
    served is shorter, whatever the policy.
    """
    if mean > 1e6:
        return math.ceil(mean + 6 * math.sqrt(mean))
    from scipy.stats import poisson

    return int(poisson.isf(tail, mean)) + 1


def _count(states: int) -> str:
    return f"{states:,}" if states < 10**9 else f"{states:.1e}"


# ---- the solution


class _Solution:
    """A state space, and the values and decisions found in it so far. Bounds are of the whole cluster."""

    def __init__(self, scenario: Scenario, size: Size) -> None:
        self.scenario, self.size = scenario, size
        self.space = Space(scenario, size)
        self.tables = self.space.tables
        states = self.space.states
        self.value, self.best = np.zeros(states), np.zeros(states)
        self.gain = 0.5 * float(self.tables.reward.max())
        self.lower, self.upper = -math.inf, size.gpus * worth_of_all(scenario)
        self.sweeps = 0
        self.patient = bool((self.tables.patience == 0).any())

    def improve(self, accuracy: float) -> None:
        """Sweep until the bounds are that close, then read off the policy and how much of the time it is where.

        Where somebody never leaves, values of long queues settle slowly, though they hardly matter: the policy found so
        far is looked at now and then, and is good enough if it earns as much, but for the accuracy, as anybody could.
        """
        self.settled = False
        sweeps = FIRST_LOOK if self.patient else MAX_SWEEPS
        last = self.sweeps + MAX_SWEEPS
        while not self.settled and self.sweeps < last:
            self._iterate(accuracy, min(self.sweeps + sweeps, last))
            self._read_off()
            self.settled = self.upper - self.lower <= accuracy * abs(self.upper)
            sweeps *= 2

    def _read_off(self) -> None:
        states = self.space.states
        self.after, final = np.empty(states, dtype=np.int64), np.empty(states, dtype=np.int64)
        kernel.decide(self.tables, self.value, self.best, TIE * float(np.ptp(self.value)), self.after, final)
        self.visited, self.chance = _stationary(self.tables, self.best, final)
        if self.patient:
            _, _, clusters = self._parts()
            self.lower = max(self.lower, min(float(self.chance @ self.tables.reward[clusters]), self.upper))

    def _parts(self) -> tuple[Integers, Integers, Integers]:
        """Of the visited states: the number of the queues, of the buffer, and of what is on the GPUs."""
        rest, clusters = self.visited // self.tables.clusters, self.visited % self.tables.clusters
        return rest // self.tables.buffers, rest % self.tables.buffers, clusters

    @property
    def buffer_limit_chance(self) -> float:
        _, buffers, _ = self._parts()
        return float(self.chance[self.tables.buffered[buffers].sum(axis=1) >= self.size.buffer_limit].sum())

    def is_all_there_is(self, accuracy: float) -> bool:
        """Whether the policy earns what all that arrive are worth, but for the accuracy: no queue is too short."""
        return self.lower >= (1 - accuracy) * self.size.gpus * worth_of_all(self.scenario)

    @property
    def patient_limit_chances(self) -> dict[int, float]:
        """Of each class that never leaves: share of the time that its queue stands at its limit."""
        queues, _, _ = self._parts()
        full = self.tables.waiting[queues] >= np.array(self.size.queue_limits)
        return {i: float(self.chance[full[:, i]].sum()) for i in np.flatnonzero(self.tables.patience == 0).tolist()}

    def optimum(self, fluid_rate: float, endless: tuple[int, ...] = ()) -> Optimum:
        """What there is to tell; `endless`: the classes whose queues have no end."""
        queues, _, clusters = self._parts()
        waiting = self.tables.waiting[queues]
        full = (waiting >= np.array(self.size.queue_limits)).any(axis=1)
        held = (np.diff(self.tables.start_from)[clusters] > 0) & (waiting.sum(axis=1) > 0)
        gpus = self.size.gpus
        return Optimum(
            scenario=self.scenario,
            gpus=gpus,
            revenue_rate=float(self.chance @ self.tables.reward[clusters]) / gpus,
            lower=self.lower / gpus,
            upper=self.upper / gpus,
            fluid_rate=fluid_rate,
            queue_limits=self.size.queue_limits,
            buffer_limit=self.size.buffer_limit,
            queue_limit_chance=float(self.chance[full].sum()),
            buffer_limit_chance=self.buffer_limit_chance,
            endless=tuple(self.scenario.classes[i].name for i in endless),
            settled=self.settled,
            states=self.space.states,
            visited=len(self.visited),
            iterations=self.sweeps,
            holding_chance=float(self.chance[held].sum()),
            policy=PolicyTable(self.space, self.value, self.after, self.visited, self.chance),
        )

    def _iterate(self, accuracy: float, last: int) -> None:
        """Sweep until the bounds are that close, or `last` sweeps have been.

        Gauss-Seidel sweeps go on with a guess of the gain. Where it is off, all values soon drift alike in each sweep,
        up if the guess is too low; it is corrected by the drift, gently where that is slow to settle. The bounds hold
        for any values; nobody earns more than all that arrive are worth.
        """
        tables, value, best, found = self.tables, self.value, self.best, np.zeros(2)
        correction = float(tables.arrival.sum())
        if self.sweeps == 0 and len(value) > NOTICE:
            log.info("solving for %s states ...", f"{len(value):,}")
        drift, patience, gap, least = 0.0, 0, math.inf, math.inf
        while self.sweeps < last:
            for k in range(SWEEPS_PER_CHECK):
                before = value[0]
                kernel.sweep(tables, value, best, self.gain, k % 2 == 1)
                drift = float(value[0] - before)
            self.sweeps += SWEEPS_PER_CHECK
            value -= value[0]
            kernel.bounds(tables, value, best, found)
            self.lower, self.upper = max(self.lower, float(found[0])), min(self.upper, float(found[1]))
            if self.upper - self.lower <= accuracy * abs(self.upper):
                return
            self.gain = min(max(self.gain + correction * drift, self.lower), self.upper)
            patience += 1
            if self.upper - self.lower < 0.9 * gap or abs(drift) < 0.9 * least:
                gap, least, patience = min(gap, self.upper - self.lower), min(least, abs(drift)), 0
            elif patience == STALLED:
                correction, gap, least, patience = correction / 2, self.upper - self.lower, abs(drift), 0


def _stationary(tables: Tables, best: Array, final: Integers) -> tuple[Integers, Array]:
    """The states that the policy meets from the empty cluster on, and the share of the time spent in each."""
    import scipy.sparse as sp

    states, widest = len(final), 3 * len(tables.arrival) + int(np.diff(tables.event_from).max())
    place, order, ends = (np.zeros(k, dtype=np.int64) for k in (states, states, states + 1))
    to, rate = np.zeros(widest, dtype=np.int64), np.zeros(widest)
    size = kernel.reach(tables, best, final, place, order, to, rate, ends)
    columns, rates = np.zeros(ends[size], dtype=np.int64), np.zeros(ends[size])
    kernel.chain(tables, best, final, place, order, size, ends, to, rate, columns, rates)
    rows = np.repeat(np.arange(size), np.diff(ends[: size + 1]))
    moves = columns != rows
    inflow = sp.csr_matrix((rates[moves], (columns[moves], rows[moves])), shape=(size, size))
    out = np.maximum(np.bincount(rows[moves], weights=rates[moves], minlength=size), 1e-300)
    chance = np.full(size, 1.0 / size)
    begins, sources = inflow.indptr.astype(np.int64), inflow.indices.astype(np.int64)
    for _ in range(500):
        if kernel.balance(begins, sources, inflow.data, out, chance, 20) < SETTLED:
            return order[:size], chance
    return order[:size], _solved(inflow, out)


def _solved(inflow: Any, out: Array) -> Array:
    """The stationary chances of a chain that is slow to settle, by elimination: inflow and outflow balance."""
    import scipy.sparse as sp
    from scipy.sparse.linalg import spsolve

    last = len(out) - 1
    balance = (inflow - sp.diags(out)).tocsc()[:last, :]
    whole = sp.vstack([balance, sp.csr_matrix(np.ones((1, last + 1)))]).tocsc()  # they sum to 1
    chance = np.maximum(spsolve(whole, np.append(np.zeros(last), 1.0)), 0.0)
    return np.asarray(chance / chance.sum())
