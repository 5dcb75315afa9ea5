"""One replication of the Markov network: from an empty cluster to the horizon."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import SFC64, Generator, SeedSequence
from numpy.typing import NDArray

from fluidgate.errors import FluidgateError
from fluidgate.model import Array, Scenario
from fluidgate.policies.decisions.tables import Tables
from fluidgate.policies.policy import Policy
from fluidgate.simulation.markov.network import (
    AUDIT_CODE,
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
        InvariantError: the audited build found a broken invariant.
    """
    from fluidgate.simulation.markov.builds import build

    kernel = build(job.policy, audited=job.audited)
    network = start(job)
    warm_up_compiler(kernel, job)
    began = time.perf_counter()
    network = run(kernel, network, job)
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
    rates = job.scenario.rates
    waiting = rates.patience
    return empty_network(
        gpus=job.gpus,
        batch_size=job.scenario.gpu.batch_size,
        mixed_gpus=job.tables.mixed_gpus,
        reserve=job.tables.reserve,
        warmup=job.warmup,
        horizon=job.horizon,
        arrival_rates=rates.arrival * job.gpus,
        rates=np.stack([waiting, waiting, waiting, rates.prefill, rates.mixed_decode, rates.solo_decode]),
        gap_shape=job.scenario.arrivals.gap_shape,
        samples=job.samples,
        batches=job.batches,
    )


def streams(seed: int, replication: int) -> tuple[Generator, Generator, Generator]:
    """Random streams of a replication: arrivals, services and abandonments, placements and class draws.

    The arrivals depend on the seed and the replication only, so that policies meet the same arrivals.
    """
    children = SeedSequence(seed, spawn_key=(replication,)).spawn(3)
    arrivals, services, placements = (Generator(SFC64(child)) for child in children)
    return arrivals, services, placements


def run(kernel: Callable[..., int], network: Network, job: Job, slice_events: int = SLICE) -> Network:
    """Run the kernel to the horizon, making room for waiting requests as they come."""
    from fluidgate.simulation.markov.kernel import DONE, FAILED, FULL

    random = streams(job.seed, job.replication)
    while True:
        code = kernel(network, job.tables, *random, slice_events)
        if code == DONE:
            return network
        if code == FULL:
            network = with_more_nodes(network, len(network.nodes))
        elif code == FAILED:
            from fluidgate.simulation.markov.audit import MESSAGES

            raise InvariantError(
                f"{MESSAGES[network.tally[AUDIT_CODE]]} (event {network.tally[TOTAL_EVENTS]}, {job.policy.name})"
            )


def warm_up_compiler(kernel: Callable[..., int], job: Job) -> None:
    """Have the kernel compiled, or loaded, before its time is taken."""
    kernel(start(job), job.tables, *streams(0, 0), 0)


class InvariantError(FluidgateError):
    """The audited kernel found the network in a state it can't be in: a fault of the policy or of the kernel."""
