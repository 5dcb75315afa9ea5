"""One replication of one policy on the iteration model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import SeedSequence

from fluidgate.model import Scenario
from fluidgate.policies import PlacedPolicy, Policy, Tables
from fluidgate.replanning import Replanning
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.published import run_published
from fluidgate.simulation.iteration.replanned import Replanned, run_replanned
from fluidgate.simulation.iteration.run import Run, TakeLog, run_policy
from fluidgate.simulation.requests.engine import batching_of, engine_of
from fluidgate.simulation.requests.source import Source
from fluidgate.workloads.streams import Requests

log = logging.getLogger("fluidgate")

PLACEMENTS = 2
"""The place of placements among the random streams of a replication, as in the Markov network."""

Arrived = Callable[[int, float], None]
"""Called with the number of requests handed on so far and the epoch of the last, s."""


@dataclass(frozen=True)
class Job:
    """What a worker needs.

    Attributes:
        scenario: its load shared by `gpus`.
        policy: a placed one with the size of its pools.
        tables: of the policy; None for a placed one.
        replanning: when its plan is solved again; None for never.
        horizon: s; inf to go on until the last request has left.
        samples, sample_over: as in `fluidgate.simulation.iteration.run.Run`.
    """

    scenario: Scenario
    policy: Policy | PlacedPolicy
    tables: Tables | None
    source: Source
    gpus: int
    horizon: float
    warmup: float
    seed: int
    replication: int
    samples: int = 0
    sample_over: float | None = None
    audited: bool = False
    replanning: Replanning | None = None


@dataclass(frozen=True)
class Outcome:
    """What a job gave.

    Attributes:
        replanned: the same run with the looks at its load; None where the plan stands.
    """

    measurement: IterationMeasurement
    replanned: Replanned | None = None


def replicate(job: Job, arrived: Arrived | None = None, take_log: TakeLog | None = None) -> Outcome:
    """Run a job; `arrived` is told of the requests as they are handed on."""
    requests = job.source.requests(job.replication)
    return _run(job, requests if arrived is None else counted(requests, arrived), take_log)


def counted(blocks: Iterator[Requests], arrived: Arrived) -> Iterator[Requests]:
    """The same blocks; `arrived` is called when one has been used up."""
    count = 0
    for block in blocks:
        yield block
        count += len(block)
        arrived(count, float(block["arrival"][-1]))


def prepare(jobs: Sequence[Job]) -> None:
    """Compile the shipped kernels before the work is handed out, so that every process finds them on disk."""
    from fluidgate.simulation.iteration.builds import placed, single

    first: dict[str, Job] = {}
    for job in jobs:
        placing = isinstance(job.policy, PlacedPolicy)
        if isinstance(job.policy, Policy) and not job.policy.is_data:
            log.info("compiling the policy '%s', some 20 s ...", job.policy.name)
        else:
            first.setdefault("placed" if placing else "single", job)
    for kind, job in first.items():
        announce(placed if kind == "placed" else single)
        _run(replace(job, replanning=None), iter(()), None)


def announce(kernel: Any) -> None:
    """Say that a shipped kernel is about to be compiled, where it is."""
    from fluidgate.simulation.iteration.builds import needs_compilation

    if needs_compilation(kernel):
        log.info("compiling the simulation kernel (once, it is kept), some 20 s ...")


def _run(job: Job, requests: Iterator[Requests], take_log: TakeLog | None) -> Outcome:
    engine = engine_of(job.scenario, batching_of(job.policy))
    run = Run(
        gpus=job.gpus,
        classes=len(job.scenario.classes),
        horizon=job.horizon,
        warmup=job.warmup,
        seed=placement_seed(job.seed, job.replication),
        ttft_targets=or_none(job.scenario.ttft_targets),
        tpot_targets=or_none(job.scenario.tpot_targets),
        samples=job.samples,
        sample_over=job.sample_over,
        audited=job.audited,
    )
    if isinstance(job.policy, PlacedPolicy):
        rates = tuple(c.arrival_rate for c in job.scenario.classes)
        return Outcome(run_published(requests, engine, run, job.policy, rates=rates, take_log=take_log))
    if job.replanning is not None:
        found = run_replanned(requests, engine, run, job.policy, job.scenario, job.replanning, take_log=take_log)
        return Outcome(found.measurement, found)
    assert job.tables is not None
    return Outcome(run_policy(requests, engine, run, job.policy, job.tables, take_log=take_log))


def placement_seed(seed: int, replication: int) -> int:
    """Seed of a replication's placements and class draws, apart from that of its requests."""
    return int(SeedSequence(seed, spawn_key=(replication, PLACEMENTS)).generate_state(1, np.uint64)[0])


def or_none(targets: tuple[float | None, ...]) -> tuple[float, ...]:
    """The targets for a run, inf where there is none."""
    return tuple(math.inf if target is None else target for target in targets)
