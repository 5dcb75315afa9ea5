"""One run of the iteration model: a stream of requests through a cluster, to its end or to a horizon."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.random import SeedSequence

from fluidgate.compiled import by_reference, records
from fluidgate.compiled.random import stream
from fluidgate.errors import FluidgateError
from fluidgate.policies.decisions.board import FAULT, Functions
from fluidgate.policies.decisions.edpp import Edpp
from fluidgate.policies.decisions.tables import Tables
from fluidgate.policies.policy import Policy
from fluidgate.simulation import pauses
from fluidgate.simulation.invariants import InvariantError
from fluidgate.simulation.iteration.changes import Changes, Resize
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.fleet import Changing, Fleet, FleetPlan
from fluidgate.simulation.iteration.fleet_changes import FleetChanges, check_fleet
from fluidgate.simulation.iteration.kernel.cluster import (
    CURSOR,
    ENDED,
    LOGGED,
    NOW,
    NUMBER,
    REQUEST_STATE,
    SEGMENT,
    SEGMENTS,
    TOTAL_EVENTS,
    UNTIL,
    USERS,
    Cluster,
    empty_cluster,
    with_more_records,
    with_more_room,
)
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.requests import checked, checked_script
from fluidgate.workloads.streams import NO_SCRIPT, REQUEST, Requests, Script

SLICE = 2_000_000
"""Events between two looks at Ctrl-C."""
LOG_ROWS = 65_536
"""Rows of the request log between two calls of its taker."""

STANDSTILL = 500_000
"""Requests of a closed loop at one epoch, beside those that all users send, that show that time stands still."""

Progress = Callable[[int, float], None]
"""Called now and then with the requests that have arrived and the simulated time, s."""

SEGMENT_ROWS = 65_536
"""The same of the log of what ran, besides one for each GPU."""

TakeLog = Callable[[Any], None]
"""Called with finished requests, dtype LOG, in the order in which they ended; the array is its own to keep."""


TakeSegments = Callable[[Any], None]
"""Called with what ran, dtype SEGMENT, in the order in which it ended; the array is its own to keep."""


@dataclass(frozen=True)
class Run:
    """How long is simulated and what is measured.

    Attributes:
        gpus: n.
        classes: number of request classes.
        horizon: s; inf to go on until the last request has left.
        warmup: s; what is measured falls into [warmup, horizon].
        seed: of the policy's draws.
        ttft_targets, tpot_targets: s, one a class, for goodput; no targets if empty.
        samples: how many times the occupancies are recorded, evenly.
        sample_over: s, from 0, over which they are; the horizon if None. It must be finite where there are samples.
        audited: check every invariant after every event (slow: for tests of policies).
        users: of a closed loop: the next request of the stream is sent when one of them is free, and the stream's own
            epochs are not read; 0 for requests that come by themselves.
        script: what the requests refer to.
        fleet: which GPUs are up, and when; None for all, always.
    """

    gpus: int
    classes: int
    horizon: float = math.inf
    warmup: float = 0.0
    seed: int = 0
    ttft_targets: tuple[float, ...] = ()
    tpot_targets: tuple[float, ...] = ()
    samples: int = 0
    sample_over: float | None = None
    audited: bool = False
    users: int = 0
    script: Script = NO_SCRIPT
    fleet: FleetPlan | None = None

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.classes < 1:
            raise FluidgateError("a run has at least one GPU and one class")
        if not (self.horizon > 0 and 0 <= self.warmup < self.horizon):
            raise FluidgateError(f"a run of {self.horizon:g} s can't have a warm-up of {self.warmup:g} s")
        if self.samples > 0 and not 0 < self.sampled_seconds < math.inf:
            raise FluidgateError("occupancies are recorded over a finite time; give a finite horizon")
        if self.users < 0:
            raise FluidgateError(f"a run can't have {self.users} users; give at least 1, or 0 for none")
        for targets in (self.ttft_targets, self.tpot_targets):
            if targets and len(targets) != self.classes:
                raise FluidgateError(f"{len(targets)} targets for {self.classes} classes; give one a class")

    @property
    def sampled_seconds(self) -> float:
        """Time over which occupancies are recorded, s."""
        return self.horizon if self.sample_over is None else self.sample_over


class Start(NamedTuple):
    """A run about to begin.

    Attributes:
        kernel: compiled; called with the cluster, `fixed`, requests and a budget of events.
        cluster: idle.
        fixed: arguments that stay for now: the law, and the tables where there are some.
        changes: pauses for other arguments; None for none.
        policy: that decides, for a failure to name.
        resize: its tables where another number of GPUs is up; None to keep those that there are.
    """

    kernel: Any
    cluster: Cluster
    fixed: tuple[Any, ...]
    changes: Changes | None = None
    policy: Policy | None = None
    resize: Resize | None = None


class Rules(Protocol):
    """What decides in a run; `fluidgate.simulation.iteration.rules` has those that there are."""

    def start(self, engine: Engine, run: Run, *, log: bool) -> Start:
        """A run of so many of these engines, with a log of the requests or without."""


def run_requests(
    blocks: Iterable[Requests],
    engine: Engine,
    run: Run,
    rules: Rules,
    *,
    take_log: TakeLog | None = None,
    take_segments: TakeSegments | None = None,
    progress: Progress | None = None,
    fleet: Changing | None = None,
) -> IterationMeasurement:
    """Run a stream of requests through a cluster.

    Args:
        blocks: requests in order of arrival, arrays of dtype REQUEST; read as they are needed.
        rules: what decides about them.
        take_log: takes the finished requests, a block at a time.
        take_segments: takes what ran, a block at a time.
        progress: told how far the run is, some times a second.
        fleet: decides which GPUs are up; None to go by what the run says of them.

    Raises:
        FluidgateError: a request is wrong, the engine does not batch as the rules need it, or a decision function can't
            be compiled.
        InvariantError: the audit found a broken invariant.
    """
    start = rules.start(engine, replace(run, script=checked_script(run.script, run.classes)), log=take_log is not None)
    if take_segments is not None:
        start = start._replace(cluster=start.cluster._replace(segments=np.zeros(SEGMENT_ROWS + run.gpus, SEGMENT)))
    if fleet is None and run.fleet is not None:
        fleet = Fleet(run.fleet, run.gpus, ranks=engine.keys.data_parallel, warmup=run.warmup)
    if fleet is not None:
        start = _with_fleet(start, fleet, run)
    measured, cluster = _run(start, blocks, run, take_log, take_segments, progress)
    if fleet is None:
        return measured
    return replace(measured, fleet=fleet.times(float(cluster.clock[NOW]), cluster))


def _with_fleet(start: Start, fleet: Changing, run: Run) -> Start:
    check_fleet(start.cluster)
    changes = FleetChanges(fleet, start.fixed, run.horizon, start.changes, start.resize)
    cluster, fixed = changes.begin(start.cluster)
    return start._replace(cluster=cluster, fixed=fixed, changes=changes)


def new_cluster(
    engine: Engine,
    run: Run,
    log: bool,
    thresholds: Sequence[int] = (),
    *,
    tables: Tables | None = None,
    functions: Functions | None = None,
    edpp: Edpp | None = None,
    **options: Any,
) -> Cluster:
    """The idle cluster of a run; `tables`, `functions` and `edpp` of its policy, `options` as in `Engine.settings`."""
    settings = engine.settings(
        run.gpus,
        warmup=run.warmup,
        horizon=run.horizon,
        sample_interval=run.sampled_seconds / (run.samples - 1) if run.samples > 1 else math.inf,
        accumulate=len(thresholds) > 0,
        **options,
    )
    targets = np.full((2, run.classes), np.inf)
    for row, given in enumerate((run.ttft_targets, run.tpot_targets)):
        if given:
            targets[row] = given
    return empty_cluster(
        settings,
        run.classes,
        draws=stream(SeedSequence(run.seed)),
        functions=functions or Functions(),
        mixed_gpus=None if tables is None else int(tables.mixed_gpus),
        reserve=tables is not None and bool(tables.reserve),
        ranked=tables is not None and bool(tables.fewest),
        targets=targets,
        thresholds=thresholds or None,
        samples=run.samples,
        log=LOG_ROWS if log else 0,
        users=run.users,
        edpp=edpp,
        script=run.script,
    )


def _run(
    start: Start,
    blocks: Iterable[Requests],
    run: Run,
    take_log: TakeLog | None,
    take_segments: TakeSegments | None,
    progress: Progress | None,
) -> tuple[IterationMeasurement, Cluster]:
    from fluidgate.policies.decisions.own import describe_fault
    from fluidgate.simulation.iteration.builds import audit, close
    from fluidgate.simulation.iteration.kernel.audit import MESSAGES

    kernel, cluster, fixed, changes, policy, _ = start
    requests = checked(blocks, run.classes, run.script)
    block = records(np.zeros(0, REQUEST))
    state, parts = by_reference(cluster), tuple(map(by_reference, fixed))
    kernel(state, *parts, block, 0)
    slice_events, wall = (1 if run.audited else SLICE), 0.0
    standstill = Standstill()
    while True:
        if changes is not None:
            cluster.clock[UNTIL] = changes.next
        began = time.perf_counter()
        code = kernel(state, *parts, block, slice_events)
        wall += time.perf_counter() - began
        if run.audited and code == pauses.PAUSED and (broken := audit(state)) != 0:
            raise InvariantError(_located(MESSAGES[broken], cluster, policy))
        if progress is not None:
            progress(int(cluster.tally[NUMBER]), float(cluster.clock[NOW]))
        if code == pauses.DONE:
            break
        if code == pauses.REACHED and changes is not None:
            before = cluster
            cluster, fixed = changes.at(float(cluster.clock[UNTIL]), cluster)
            parts = tuple(map(by_reference, fixed))
            state = state if cluster is before else by_reference(cluster)
        elif code == pauses.BLOCK_READ:
            standstill.look(cluster)
            block = records(_next_block(cluster, requests, block))
        elif code == pauses.FULL:
            cluster = with_more_room(cluster, len(cluster.live))
            state = by_reference(cluster)
        elif code == pauses.RECORDS_FULL:
            cluster = with_more_records(cluster, len(cluster.cached))
            state = by_reference(cluster)
        elif code == pauses.LOG_FULL:
            _flush(cluster, take_log, take_segments)
        elif code == pauses.FAILED:
            assert policy is not None
            fault = describe_fault(int(cluster.board.round[FAULT]), policy.functions)
            raise InvariantError(_located(fault, cluster, policy))
    close(state)
    _flush(cluster, take_log, take_segments)
    return IterationMeasurement.of(cluster, wall), cluster


def _located(what: str, cluster: Cluster, policy: Policy | None) -> str:
    name = "" if policy is None else f", {policy.name}"
    return f"{what} (event {cluster.tally[TOTAL_EVENTS]}{name})"


def _next_block(cluster: Cluster, stream: Iterator[Requests], block: Requests) -> Requests:
    following = next(stream, None)
    if following is None:
        cluster.tally[ENDED] = 1
        return block
    cluster.tally[CURSOR] = 0
    return following


class Standstill:
    """Finds a closed loop in which every request is rejected at once: its users would send for ever at one epoch."""

    def __init__(self) -> None:
        self._epoch = -math.inf
        self._number = 0

    def look(self, cluster: Cluster) -> None:
        """
        Raises:
            FluidgateError: so many requests have come since the clock has last moved that it never will.
        """
        now, number = float(cluster.clock[NOW]), int(cluster.tally[NUMBER])
        if now > self._epoch:
            self._epoch, self._number = now, number
        elif (users := int(cluster.tally[USERS])) > 0 and number - self._number > STANDSTILL + 2 * users:
            raise FluidgateError(
                "engine.kv_tokens: holds none of the requests of the closed loop, and no time passes while they are "
                "rejected; raise it, or give a think time"
            )


def _flush(cluster: Cluster, take_log: TakeLog | None, take_segments: TakeSegments | None) -> None:
    for take, rows, count in ((take_log, cluster.log, LOGGED), (take_segments, cluster.segments, SEGMENTS)):
        if take is not None and cluster.tally[count] > 0:
            take(rows[: cluster.tally[count]].copy())
            cluster.tally[count] = 0


LIVE_BYTES = REQUEST_STATE.itemsize + 4
"""Memory of a request in the cluster: its row and its place among the timers."""
