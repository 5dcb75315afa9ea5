"""Random small instances of the iteration model, and a run of each by kernel and by reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import SFC64, Generator, SeedSequence

from fluidgate.batching import Batching
from fluidgate.compiled import entry_point
from fluidgate.engine_table import EngineModel
from fluidgate.errors import FluidgateError
from fluidgate.iteration_time import IterationTime, SoloTable, TimeTable
from fluidgate.policies import Policy, Tables, find_policy
from fluidgate.policies.decisions import gate as gate_module
from fluidgate.policies.decisions import router as router_module
from fluidgate.policies.decisions.placement import Criteria
from fluidgate.policies.decisions.tables import RouteRule
from fluidgate.replanning.estimates import ESTIMATE
from fluidgate.simulation.iteration.engine import Engine, Pools
from fluidgate.simulation.iteration.fleet import Move
from fluidgate.simulation.iteration.kernel.cluster import Placement
from fluidgate.simulation.iteration.kernel.fleet import CLOSE, FAIL, OPEN
from fluidgate.simulation.iteration.law import linear_law, linear_terms, table_law
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.rules import ChangingDecisions, Decisions, Placements
from fluidgate.simulation.iteration.run import Rules, Run, run_requests
from fluidgate.workloads.streams import NO_SCRIPT, REQUEST, Script
from tests.oracles.edpp import PlainEdpp
from tests.simulation.iteration.reference import Reference

_gate, _route, _refill = gate_module.gate, router_module.route, router_module.refill


@entry_point
def ask_gate(view, tables):  # type: ignore[no-untyped-def]
    return _gate(view, tables)


@entry_point
def ask_route(view, tables, cls, draw):  # type: ignore[no-untyped-def]
    return _route(view, tables, cls, draw)


@entry_point
def ask_refill(view, tables, group, draw):  # type: ignore[no-untyped-def]
    return _refill(view, tables, group, draw)


@dataclass(frozen=True)
class Coefficients:
    """An iteration's time, for kernel and reference apart."""

    alpha: float
    beta: float
    delta: float
    epsilon: float
    solo: tuple[float, float, float]
    zeta: float = 0.0

    def law(self) -> Any:
        terms = {"delta": self.delta, "epsilon": self.epsilon, "zeta": self.zeta}
        return linear_law(self.alpha, self.beta, **terms, solo=self.solo)

    def on_grid(self) -> Coefficients:
        alpha, beta, delta, epsilon, zeta, *solo = map(
            float, map(on_grid, (self.alpha, self.beta, self.delta, self.epsilon, self.zeta, *self.solo))
        )
        return Coefficients(alpha, beta, delta, epsilon, (solo[0], solo[1], solo[2]), zeta)

    def seconds(self, chunk: int, decodes: int, context: int, read: int) -> float:
        if chunk > 0:
            return self.alpha + self.beta * chunk + self.delta * decodes + self.epsilon * context + self.zeta * read
        return self.solo[0] + self.solo[1] * decodes + self.solo[2] * context


@dataclass(frozen=True)
class Measured:
    """Measured times, compiled for the kernel and not for the reference."""

    time: IterationTime

    def on_grid(self) -> Coefficients:
        """A law without the table: between its nodes no time is on a grid."""
        alpha, beta = float(on_grid(self.time.alpha)), float(on_grid(self.time.beta))
        return Coefficients(alpha, beta, 0.0, 0.0, (alpha, 0.0, 0.0))

    def law(self) -> Any:
        return table_law(self.time)

    def seconds(self, chunk: int, decodes: int, context: int, read: int) -> float:
        return self.time.mixed(chunk, decodes, context, read) if chunk > 0 else self.time.solo(decodes, context)


CRITERIA = Criteria(share=0.5, tolerance=60.0, apart=2.0, ratio=1.5, prefix_weight=2.0)


@dataclass(frozen=True)
class Instance:
    requests: Any
    engine: Engine
    time: Coefficients | Measured
    run: Run
    placement: Placement = Placement.ROUND_ROBIN
    criteria: Criteria = CRITERIA
    pools: Pools | None = None
    thresholds: tuple[int, ...] = ()
    policy: Policy | None = None
    tables: Tables | None = None
    changes: tuple[tuple[float, Tables], ...] = ()
    plan: Any = None
    fleet: tuple[tuple[float, tuple[Move, ...]], ...] = ()
    script: Script = NO_SCRIPT

    def by_kernel(self, block: int = 7) -> tuple[IterationMeasurement, Any]:
        """What the audited kernel measured, and its log by number; the requests come in blocks of `block`."""
        logs: list[Any] = []
        blocks = [self.requests[k : k + block] for k in range(0, len(self.requests), block)]
        run = replace(self.run, script=self.script)
        fleet = Told(self.run.gpus, self.fleet) if self.fleet else None
        measured = run_requests(blocks, self.engine, run, self.rules, take_log=logs.append, fleet=fleet)
        log = np.concatenate(logs) if logs else np.zeros(0)
        return measured, {int(row["number"]): row for row in log}

    @property
    def rules(self) -> Rules:
        if self.policy is None or self.tables is None:
            return Placements(self.placement, self.pools, self.thresholds, self.criteria)
        if self.changes:
            return ChangingDecisions(self.policy, TableChanges(self.tables, self.changes))
        return Decisions(self.policy, self.tables)

    @property
    def drift(self) -> PlainEdpp | None:
        """EDPP's rule, where it decides."""
        if self.pools is None or self.pools.transfer_price is None:
            return None
        keys, run = self.engine.keys, self.run
        return PlainEdpp(
            run.gpus,
            self.pools.prompt_gpus,
            self.engine.tokens,
            self.pools.transfer_price,
            linear_terms(self.engine.law, self.engine.tokens, self.engine.batch_size),
            keys.transfer_latency,
            0.0 if keys.transfer_bandwidth is None else 1.0 / keys.transfer_bandwidth,
            list(zip(run.ttft_targets, run.tpot_targets, strict=True)),
        )

    def by_reference(self) -> Reference:
        policy = None if self.tables is None else (self.tables, ask_gate, ask_route, ask_refill)
        return Reference(
            self.requests,
            self.engine,
            self.time.seconds,
            gpus=self.run.gpus,
            classes=self.run.classes,
            placement=self.placement.name,
            criteria=self.criteria,
            drift=self.drift,
            pools=(self.pools.prompt_gpus, self.pools.queue_tokens) if self.pools else (0, 0),
            thresholds=self.thresholds,
            policy=policy,
            draws=Generator(SFC64(SeedSequence(self.run.seed))),
            horizon=self.run.horizon,
            warmup=self.run.warmup,
            changes=self.changes,
            fleet=self.fleet,
            users=self.run.users,
            script=self.script,
        ).run()


class TableChanges:
    """Tables that come into force at given epochs."""

    rows = np.zeros(0, ESTIMATE)

    def __init__(self, tables: Tables, changes: tuple[tuple[float, Tables], ...]) -> None:
        self.tables = tables
        self._left = list(changes)

    @property
    def next_look(self) -> float:
        return self._left[0][0] if self._left else math.inf

    def look(self, now: float) -> None:
        self.tables = self._left.pop(0)[1]


def coefficients(rng: Generator) -> Coefficients | Measured:
    """A law with every term, a table over some axes, or the paper's law.

    Iterations of the paper's law take the same time everywhere, so that boundaries of several GPUs coincide. Its times
    are multiples of 2^-16 s, as are those of the requests: sums are exact, and both sides see the same ties.
    """
    alpha, beta = rng.uniform(0.01, 0.03), rng.uniform(1e-4, 3e-3)
    if rng.random() < 0.25:
        return Coefficients(on_grid(alpha), on_grid(beta), 0.0, 0.0, (on_grid(rng.uniform(0.008, 0.03)), 0.0, 0.0))
    delta, epsilon = rng.uniform(0.0, 3e-3), rng.uniform(0.0, 2e-4)
    solo = (alpha * rng.uniform(0.6, 1.0), delta * rng.uniform(0.5, 1.0), epsilon * rng.uniform(0.5, 1.0))
    zeta = float(rng.choice([0.0, rng.uniform(0.0, 1e-4)]))
    law = Coefficients(alpha, beta, delta, epsilon, solo, zeta)
    if rng.random() < 0.6:
        return law
    table = measured(rng, law)
    while not takes_time(table):
        table = measured(rng, law)
    return table


def measured(rng: Generator, law: Coefficients) -> Measured:
    """Times by a law, with noise, at some nodes; one context or several, what was read before or not."""

    def nodes(low: int, high: int, most: int) -> Any:
        return np.sort(rng.choice(np.arange(low, high), int(rng.integers(1, most + 1)), replace=False)).tolist()

    def noisy(seconds: Any) -> Any:
        return (seconds * rng.uniform(0.99, 1.01, seconds.shape)).tolist()

    apart = rng.random() < 0.5
    chunks, batches = nodes(1 if apart else 0, 40, 4), nodes(0, 10, 4)
    contexts, reads = (
        (nodes(0, 60, 4) if rng.random() < 0.7 else [30]),
        (nodes(0, 60, 3) if rng.random() < 0.6 else [0]),
    )
    c, b, k, r = np.meshgrid(chunks, batches, contexts, reads, indexing="ij")
    seconds = noisy(law.alpha + law.beta * c + law.delta * b + law.epsilon * b * k + law.zeta * c * r)
    shape = [len(chunks), len(batches), *(len(axis) for axis in (contexts, reads) if len(axis) > 1)]
    solo = None
    if apart:
        alone, held = nodes(0, 10, 4), nodes(0, 80, 4)
        b, k = np.meshgrid(alone, held, indexing="ij")
        shape_alone = [len(alone)] if len(held) == 1 else [len(alone), len(held)]
        times = np.array(noisy(law.solo[0] + law.solo[1] * b + law.solo[2] * b * k)).reshape(shape_alone)
        solo = SoloTable(batch_sizes=alone, contexts=held, seconds=times.tolist())
    table = TimeTable(
        chunk_sizes=chunks,
        batch_sizes=batches,
        contexts=contexts,
        read_before=reads,
        seconds=np.array(seconds).reshape(shape).tolist(),
        solo=solo,
    )
    slopes = {"epsilon": 0.01 * law.epsilon, "solo_epsilon": 0.02 * law.solo[2], "zeta": 0.1 * law.zeta}
    overhead = {"overhead": 0.01, "overhead_per_decode": float(rng.uniform(0.0, 1e-3))}
    return Measured(IterationTime(alpha=law.alpha, beta=law.beta, table=table, **slopes, **overhead))


def takes_time(measured: Measured) -> bool:
    """Whether every iteration does, one with little context too."""
    try:
        measured.law()
    except FluidgateError:
        return False
    return True


GRID = 2.0**-16


def on_grid(seconds: Any) -> Any:
    return np.ceil(seconds / GRID) * GRID


def requests(rng: Generator, count: int, classes: int, seconds: float) -> Any:
    """Requests that arrive over `seconds`, some of them in bursts, some of them impatient."""
    block = np.zeros(count, REQUEST)
    arrival = np.sort(rng.uniform(0.0, seconds, count))
    if rng.random() < 0.4:
        arrival[1:][rng.random(count - 1) < 0.3] = 0.0
        arrival = np.maximum.accumulate(arrival)
    block["arrival"] = on_grid(arrival)
    block["cls"] = rng.integers(0, classes, count)
    block["prompt"] = np.ceil(rng.exponential(rng.uniform(5, 60), count))
    block["output"] = np.ceil(rng.exponential(rng.uniform(2, 25), count))
    impatient = rng.random(count) < rng.choice([0.0, 0.3, 1.0])
    block["patience"] = np.where(impatient, on_grid(rng.exponential(0.5, count)), np.inf)
    return block


def memory(rng: Generator, stream: Any, *, may_cache: bool) -> dict[str, Any]:
    """Keys of [engine]: no limit, or so little memory that decodes are preempted, and some requests rejected."""
    if rng.random() < 0.35:
        return {}
    longest = np.sort(stream["prompt"] + stream["output"])[-1 if rng.random() < 0.8 else -2]
    size = int(rng.choice([1, 4, 16]))
    tokens = int(longest * rng.uniform(1.05, 2.5)) + size
    swap = bool(rng.random() < 0.3)
    caching = bool(rng.random() < 0.6) and may_cache and not swap
    reservation = int(rng.choice([0, 0, 5, 40]))
    return {
        "kv_tokens": tokens,
        "kv_block": size,
        "kv_reservation": reservation,
        "kv_caching": caching,
        "preemption": "swap" if swap else "recompute",
        "swap_seconds": float(on_grid(rng.uniform(0.0, 1e-3))) if swap else 0.0,
    }


def drift_instance(seed: int, batching: Batching) -> Instance:
    """Pools under EDPP, every class with both targets."""
    rng = np.random.default_rng([seed, 17])
    instance = placed_instance(seed, batching, Placement.POOLS)
    assert instance.pools is not None
    price = float(rng.uniform(0.0, 2.0))
    targets = {
        f"{name}_targets": tuple(float(t) for t in rng.uniform(*span, instance.run.classes))
        for name, span in (("ttft", (0.05, 2.0)), ("tpot", (0.02, 0.3)))
    }
    pools = Pools(instance.pools.prompt_gpus, 0, price)
    return replace(instance, pools=pools, run=replace(instance.run, **targets))


def window(rng: Generator, seconds: float) -> tuple[float, float]:
    """Warm-up and horizon."""
    if rng.random() < 0.5:
        return 0.0, math.inf
    return float(rng.uniform(0.0, 0.5 * seconds)), float(rng.uniform(0.6, 1.3) * seconds)


def placed_instance(seed: int, batching: Batching, placement: Placement) -> Instance:
    rng = np.random.default_rng([seed, list(Batching).index(batching), placement])
    gpus, classes, count = int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(20, 120))
    time = coefficients(rng)
    seconds = count * rng.uniform(0.02, 0.25) / gpus
    stream = requests(rng, count, classes, seconds)
    batch_size = int(rng.integers(1, 9))
    tokens = batch_size + int(rng.integers(1, 60))
    warmup, horizon = window(rng, seconds)
    keys = memory(rng, stream, may_cache=True)
    pools, thresholds = None, ()
    if placement == Placement.POOLS:
        gpus = max(gpus, 2)
        pools = Pools(int(rng.integers(1, gpus)), int(rng.choice([0, 1, 60, 300])))
        keys |= some_transfer(rng)
    elif rng.random() < 0.3:
        thresholds = tuple(int(n) for n in rng.integers(1, 6, classes))
    deadline = float(rng.uniform(0.02, 0.6))
    keys["async_scheduling"] = batching == Batching.TOKEN_BUDGET and seed % 2 == 1
    engine = Engine(time.law(), batch_size, tokens, batching, EngineModel(**keys), deadline)
    run = Run(gpus, classes, horizon, warmup, seed, audited=True)
    return Instance(stream, engine, time, run, placement, pools=pools, thresholds=thresholds)


def some_transfer(rng: Generator) -> dict[str, float]:
    """Keys of [engine]: KV that takes no time to another GPU, or some."""
    if rng.random() < 0.5:
        return {}
    latency, seconds = float(on_grid(rng.uniform(0.0, 0.05))), float(on_grid(rng.uniform(0.0, 1e-3)))
    return {"transfer_latency": latency} | ({"transfer_bandwidth": 1.0 / seconds} if seconds > 0 else {})


def policy_instance(seed: int, policy: str) -> Instance:
    rng = np.random.default_rng([seed, *policy.encode()])
    gpus, classes, count = int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(20, 100))
    time = coefficients(rng)
    seconds = count * rng.uniform(0.05, 0.4) / gpus
    stream = requests(rng, count, classes, seconds)
    transfer = some_transfer(rng)
    warmup, horizon = window(rng, seconds)
    engine = Engine(
        time.law(),
        int(rng.integers(1, 7)),
        int(rng.integers(1, 40)),
        Batching.SINGLE_PREFILL,
        EngineModel(**(memory(rng, stream, may_cache=False) | transfer)),
    )
    run = Run(gpus, classes, horizon, warmup, seed, audited=True)
    chosen = find_policy(policy)
    drawn = plan_for(rng, stream, run, engine)
    return Instance(stream, engine, time, run, policy=chosen, tables=chosen.tabulate(drawn, gpus), plan=drawn)


def gated_instance(seed: int, policy: str, batching: Batching) -> Instance:
    """Of GPUs that form their own batches, without a limit to their memory, under a gate."""
    instance = policy_instance(seed, policy)
    assert instance.tables is not None
    size = instance.engine.batch_size
    rng = np.random.default_rng([seed, 2])
    tokens = size + int(rng.integers(1, 60))
    engine = replace(instance.engine, batching=batching, tokens=tokens, keys=EngineModel())
    tables = instance.tables._replace(mixed_gpus=instance.run.gpus, fewest=seed % 3 > 0)
    assert instance.policy is not None
    return replace(instance, engine=engine, policy=replace(instance.policy, takes_any_batching=True), tables=tables)


def in_step(instance: Instance, ranks: int) -> Instance:
    """The same of ranks that step together, in as many groups as there were GPUs, two at the most."""
    gpus = ranks * min(instance.run.gpus, 2)
    keys = instance.engine.keys.model_copy(update={"data_parallel": ranks})
    run = replace(instance.run, gpus=gpus)
    engine = replace(instance.engine, keys=keys)
    if instance.policy is None or instance.tables is None:
        return replace(instance, run=run, engine=engine)
    tables = instance.policy.tabulate(instance.plan, gpus)
    if not engine.discipline.by_policy:
        tables = tables._replace(mixed_gpus=gpus, fewest=bool(instance.tables.fewest))
    return replace(instance, run=run, engine=engine, tables=tables)


def limited_instance(seed: int) -> Instance:
    """index-and-pool under limits that bind now and then: any graces, in one pool or kept apart."""
    instance = policy_instance(seed, "index-and-pool")
    rng = np.random.default_rng([seed, 2])
    assert instance.tables is not None
    tables, gpus, classes = instance.tables, instance.run.gpus, instance.run.classes
    time, size = instance.time, instance.engine.batch_size
    solo, mixed = time.seconds(0, 0, 0, 0), time.seconds(instance.engine.tokens, 0, 0, 0)
    limit = np.array(
        [
            gpus * rng.choice([0.0, 0.05, 0.3]),
            gpus * size * rng.choice([0.0, 0.05, 0.2]),
            solo + (mixed - solo) * rng.uniform(0.05, 0.6),
            solo + (mixed - solo) * rng.uniform(0.05, 0.6),
        ]
    )
    # a segment of several iterations counts at the pace of the first until it ends: alike where they are
    same = isinstance(time, Coefficients) and time.epsilon == time.zeta == time.solo[2] == 0.0
    alike = same and instance.engine.keys.preemption != "swap"
    limit[rng.random(4) < 0.4] = np.inf
    limit[2:] = limit[2:] if alike else np.inf
    tables = tables._replace(
        limited=True,
        limit=limit,
        grace=rng.uniform(0.01, 0.5, (4, classes)) * gpus,
        token_seconds=np.array([[mixed, 0.0], [solo, 0.0]]),
    )
    if rng.random() < 0.5:
        tables = tables._replace(
            mixed_gpus=int(rng.integers(1, gpus + 1)),
            reserve=True,
            route_rule=int(RouteRule.APART),
            ready=0,
            spare=-1,
            room=float(rng.choice([-1.0, 0.0, 0.5])),
            beside=rng.random(classes) < 0.5,
        )
    return replace(instance, tables=tables)


def closed_instance(instance: Instance, seed: int) -> Instance:
    """The same requests sent by a few users, in no time or on their way through a front end.

    All GPUs start at time 0 and keep in step: the iteration times of several are on the grid, so that both sides see
    the same ties.
    """
    rng = np.random.default_rng([seed, 3])
    stream = instance.requests.copy()
    stream["arrival"] = 0.0
    count = len(stream)
    law = seed % 3
    mean = float(rng.uniform(0.01, 0.5))
    stream["think"] = 0.0 if law == 0 else on_grid(mean) if law == 1 else on_grid(rng.exponential(mean, count))
    keys = instance.engine.keys
    if rng.random() < 0.5:
        both = on_grid(rng.uniform(0.0, 0.03, 2))
        keys = keys.model_copy(update={"front_end": float(both[0]), "front_end_first": float(both[1])})
    users = int(rng.integers(1, 3 * instance.run.gpus * instance.engine.batch_size))
    run = replace(instance.run, users=users)
    if instance.changes and run.horizon == math.inf:  # without one the run ends with its last request
        run = replace(run, horizon=1.5 * instance.changes[-1][0] + 1.0)
    time = time_on_grid(instance)
    engine = replace(instance.engine, keys=keys, law=time.law())
    return replace(instance, requests=stream, engine=engine, time=time, run=run)


def time_on_grid(instance: Instance) -> Coefficients | Measured:
    """The same time, or one like it, where several GPUs could see the same tie."""
    time = instance.time
    if isinstance(time, Measured) and instance.run.gpus > 1:
        time = Coefficients(0.02, 1e-3, 1e-3, 0.0, (0.015, 8e-4, 0.0))
    return time.on_grid() if isinstance(time, Coefficients) else time


def changing_instance(seed: int, policy: str) -> Instance:
    """The tables change now and then: groups of any size, with a reserve or without."""
    instance = policy_instance(seed, policy)
    rng = np.random.default_rng([seed, 1])
    assert instance.tables is not None
    end = float(min(instance.requests["arrival"][-1], instance.run.horizon * 0.99))
    epochs = on_grid(np.sort(rng.uniform(0.0, end, int(rng.integers(1, 12)))))
    if rng.random() < 0.5:  # at the epoch of an arrival
        epochs[0] = instance.requests["arrival"][rng.integers(0, 5)] or epochs[0]
    changes = []
    for epoch in np.unique(epochs[(epochs > 0) & (epochs < instance.run.horizon)]):
        mixed = int(rng.integers(0, instance.run.gpus + 1)) if epoch < epochs[-1] else instance.run.gpus
        reserve = bool(instance.tables.reserve) if rng.random() < 0.5 else not instance.tables.reserve
        changes.append((float(epoch), instance.tables._replace(mixed_gpus=mixed, reserve=reserve)))
    return replace(instance, changes=tuple(changes))


class Told:
    """A fleet that does what it is told: (epoch, moves), in order."""

    def __init__(self, gpus: int, orders: tuple[tuple[float, tuple[Move, ...]], ...]) -> None:
        self._orders = list(orders)
        self.up = gpus

    @property
    def next(self) -> float:
        return self._orders[0][0] if self._orders else math.inf

    @property
    def away(self) -> int:
        return sum(move.kind == OPEN for _, moves in self._orders for move in moves)

    def apply(self, epoch: float, cluster: Any) -> tuple[Move, ...]:
        moves = self._orders.pop(0)[1]
        self.up += sum((move.kind == OPEN) - (move.kind == CLOSE) for move in moves)
        return moves

    def times(self, now: float, cluster: Any) -> None:
        return None


def fleet_instance(instance: Instance, seed: int) -> Instance:
    """The same on GPUs that fail, are drained and come back, alone or several at once, all of them now and then."""
    rng = np.random.default_rng([seed, 4])
    ranks = instance.engine.keys.data_parallel
    groups = instance.run.gpus // ranks
    last = float(instance.requests["arrival"][-1])
    span = min(1.3 * max(last, 0.5), instance.run.horizon)
    epochs = on_grid(rng.uniform(0.0, span, int(rng.integers(2, 14))))
    epochs[:2] = (0.0 if rng.random() < 0.3 else epochs[0]), instance.requests["arrival"][rng.integers(0, 5)]
    out: set[int] = set()
    failed: set[int] = set()
    orders = []
    for epoch in np.unique(epochs[epochs < instance.run.horizon]):
        closes, fails, opens = [], [], []
        for group in range(groups):
            if rng.random() > 0.6:
                continue
            if group not in out:
                closes.append(group)
                if rng.random() < 0.6:
                    fails.append(group)
            elif group not in failed and rng.random() < 0.4:
                fails.append(group)
            else:
                opens.append(group)
        out = (out | set(closes)) - set(opens)
        failed = (failed | set(fails)) - set(opens)
        moves = [
            Move(kind, g * ranks + r)
            for kind, gs in ((CLOSE, closes), (FAIL, fails), (OPEN, opens))
            for g in gs
            for r in range(ranks)
        ]
        if moves:
            orders.append((float(epoch), tuple(moves)))
    return replace(plain_time(instance), fleet=tuple(orders))


def plain_time(instance: Instance) -> Instance:
    """The same without measured times, which beyond their nodes are none for all that is read again."""
    if isinstance(instance.time, Coefficients):
        return instance
    time = Coefficients(0.02, 1e-3, 1e-3, 2e-6, (0.015, 8e-4, 1e-6))
    return replace(instance, time=time, engine=replace(instance.engine, law=time.law()))


def plan_for(rng: Generator, stream: Any, run: Run, engine: Engine) -> Any:
    """The plan of a scenario that has the stream's mean lengths."""
    from fluidgate import Scenario, plan

    classes = []
    for i in range(run.classes):
        mine = stream[stream["cls"] == i]
        classes.append(
            {
                "name": f"class {i}",
                "prompt_tokens": float(mine["prompt"].mean()) if len(mine) else 10.0,
                "output_tokens": float(mine["output"].mean()) if len(mine) else 5.0,
                "arrival_rate": max(len(mine), 1) / (float(stream["arrival"][-1]) * run.gpus),
                "patience_rate": 2.0,
            }
        )
    scenario = Scenario.model_validate(
        {
            "name": "random",
            "gpu": {
                "batch_size": engine.batch_size,
                "chunk_size": engine.tokens,
                "iteration": {"alpha": 0.02, "beta": 1e-3, "gamma": float(rng.uniform(40, 80))},
            },
            "pricing": {"scheme": str(rng.choice(["bundled", "separate"])), "prompt": 0.1, "output": 0.2},
            "classes": tuple(classes),
        }
    )
    return plan(scenario)
