"""One replication of the Markov network: from an empty cluster to the horizon."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from fluidgate.compiled.random import stream
from fluidgate.model import Array, Rates, Scenario
from fluidgate.planning import service_rates
from fluidgate.policies.decisions.tables import Tables
from fluidgate.policies.policy import Policy
from fluidgate.simulation.invariants import InvariantError
from fluidgate.simulation.markov.arrivals import arrivals_of
from fluidgate.simulation.markov.network import (
    CURSOR,
    SAMPLES_TAKEN,
    TOTAL_EVENTS,
    Network,
    empty_network,
    with_more_nodes,
)

SLICE = 2_000_000  # events between two looks at the clock and at Ctrl-C


@dataclass(frozen=True)
class Job:
    """Everything a replication depends on; the arrivals depend on all but the policy."""

    scenario: Scenario
    policy: Policy
    tables: Tables
    gpus: int
    horizon: float
    warmup: float
    seed: int
    replication: int
    samples: int = 0
    audited: bool = False
    batches: int = 1
    rates: Rates | None = None
    """Service rates, where the study knows them; None for those of the scenario's plan."""


@dataclass(frozen=True)
class Measurement:
    """What one replication measured over its window (warm-up, horizon], in requests of the whole cluster.

    Attributes:
        occupancy: time averages by (stage, class), shape (6, classes); stages as in `network`.
        events: counts by (event, class), shape (7, classes).
        seconds: sums by (kind, class), shape (3, classes).
        window: s.
        total_events: arrivals, completions and abandonments since time 0.
        wall_seconds: time in the kernel.
        samples: occupancies at even epochs over the horizon, shape (samples, 6, classes).
        batches: equal parts of the window, if it was cut into several: `occupancy` and `events` of each, shapes
            (batches, 6, classes) and (batches, 7, classes).
    """

    occupancy: Array
    events: NDArray[np.int64]
    seconds: Array
    window: float
    total_events: int
    wall_seconds: float
    samples: NDArray[np.int64]
    batches: tuple[Array, NDArray[np.int64]] | None = None


def replicate(job: Job) -> Measurement:
    """Run one replication.

    Raises:
        FluidgateError: a user's decision function can't be compiled.
        InvariantError: the audit found a broken invariant, or a decision gave an answer that it may not.
    """
    network = start(job)
    warm_up_compiler(job)
    began = time.perf_counter()
    network = run(network, job)
    wall_seconds = time.perf_counter() - began
    window = job.horizon - job.warmup
    return Measurement(
        occupancy=network.area / window + network.counts,
        events=network.events,
        seconds=network.seconds,
        window=window,
        total_events=int(network.tally[TOTAL_EVENTS]),
        wall_seconds=wall_seconds,
        samples=network.samples[: network.tally[SAMPLES_TAKEN]],
        batches=batches(network) if job.batches > 1 else None,
    )


def batches(network: Network) -> tuple[Array, NDArray[np.int64]]:
    """Time averages of the counts, and events, of each batch of a network at its horizon."""
    none = np.zeros((1, *network.area.shape))
    whole = network.area + network.counts * (network.horizon - network.warmup)
    area = np.concatenate([none, network.cut_area, whole[None]])
    events = np.concatenate([np.zeros_like(network.events)[None], network.cut_events, network.events[None]])
    return np.diff(area, axis=0) / network.cut_interval, np.diff(events, axis=0)


def start(job: Job) -> Network:
    """The empty cluster of a job."""
    from fluidgate.policies.decisions.own import functions_of

    rates = job.rates or service_rates(job.scenario)
    waiting = rates.patience
    _, services, placements = seeds(job.seed, job.replication)
    return empty_network(
        gpus=job.gpus,
        batch_size=job.scenario.gpu.batch_size,
        mixed_gpus=job.tables.mixed_gpus,
        reserve=job.tables.reserve,
        ranked=job.tables.fewest,
        warmup=job.warmup,
        horizon=job.horizon,
        arrival_rates=rates.arrival * job.gpus,
        rates=np.stack([waiting, waiting, waiting, rates.prefill, rates.mixed_decode, rates.solo_decode]),
        services=stream(services),
        draws=stream(placements),
        functions=functions_of(**job.policy.functions),
        samples=job.samples,
        batches=job.batches,
    )


def seeds(seed: int, replication: int) -> list[SeedSequence]:
    """Of the random streams of a replication: arrivals, services and abandonments, placements and class draws.

    The arrivals depend on the seed and the replication only, so that policies meet the same arrivals.
    """
    return SeedSequence(seed, spawn_key=(replication,)).spawn(3)


def run(network: Network, job: Job, slice_events: int = SLICE) -> Network:
    """Run the kernel to the horizon, bringing arrivals and making room for waiting requests as they come.

    An audited run stops after every event, to have the state looked over.
    """
    from fluidgate.compiled import by_reference
    from fluidgate.policies.decisions.board import FAULT
    from fluidgate.policies.decisions.own import describe_fault
    from fluidgate.simulation import pauses
    from fluidgate.simulation.markov.audit import MESSAGES
    from fluidgate.simulation.markov.builds import audit, kernel

    rate = float(job.scenario.rates.arrival.sum()) * job.gpus
    arrivals = arrivals_of(rate, job.scenario.arrivals.gap_shape, seeds(job.seed, job.replication)[0])
    tables, state, events = by_reference(job.tables), by_reference(network), 0
    while True:
        code = kernel(state, tables, 1 if job.audited else slice_events)
        if job.audited and network.tally[TOTAL_EVENTS] > events:
            events = int(network.tally[TOTAL_EVENTS])
            if (broken := audit(state, tables)) != 0:
                raise InvariantError(_located(MESSAGES[broken], network, job))
        if code == pauses.DONE:
            return network
        if code == pauses.BLOCK_READ:
            arrivals.fill(network.arrivals)
            network.tally[CURSOR] = 0
        elif code == pauses.FULL:
            network = with_more_nodes(network, len(network.nodes))
            state = by_reference(network)
        elif code == pauses.FAILED:
            fault = int(network.board.round[FAULT])
            raise InvariantError(_located(describe_fault(fault, job.policy.functions), network, job))


def _located(what: str, network: Network, job: Job) -> str:
    return f"{what} (event {network.tally[TOTAL_EVENTS]}, {job.policy.name})"


def warm_up_compiler(job: Job) -> None:
    """Have the kernel compiled, or loaded, before its time is taken."""
    from fluidgate.compiled import by_reference
    from fluidgate.simulation.markov.builds import audit, kernel

    state, tables = by_reference(start(job)), by_reference(job.tables)
    kernel(state, tables, 0)
    if job.audited:
        audit(state, tables)
