"""One replication of one policy on the iteration model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import SeedSequence

from fluidgate.model import Scenario
from fluidgate.simulation.iteration.behaviour import Behaviour, IterationOutcome
from fluidgate.simulation.iteration.run import Run, TakeLog
from fluidgate.simulation.iteration.scenario_engine import engine_of
from fluidgate.simulation.iteration.source import Source
from fluidgate.workloads.streams import Requests

PLACEMENTS = 2
"""The place of placements among the random streams of a replication, as in the Markov network."""

Arrived = Callable[[int, float], None]
"""Called with the number of requests handed on so far and the epoch of the last, s."""


@dataclass(frozen=True)
class IterationJob:
    """What a worker needs.

    Attributes:
        scenario: its load shared by the run's GPUs.
        behaviour: of the policy, ready.
        source: of the requests.
        run: what is simulated, with the seed of this replication's draws.
    """

    scenario: Scenario
    behaviour: Behaviour
    source: Source
    run: Run
    replication: int


def replicate(job: IterationJob, arrived: Arrived | None = None, take_log: TakeLog | None = None) -> IterationOutcome:
    """Run a job; `arrived` is told of the requests as they are handed on.

    Raises:
        FluidgateError: a request is wrong, or a decision function can't be compiled.
        InvariantError: the audit found a broken invariant.
    """
    requests = job.source.requests(job.replication)
    run = replace(job.run, script=job.source.script(job.replication))
    if arrived is not None:
        requests = counted(requests, arrived)
    engine = engine_of(job.scenario, job.behaviour.batching)
    return job.behaviour.run(requests, engine, run, job.scenario, take_log)


def counted(blocks: Iterator[Requests], arrived: Arrived) -> Iterator[Requests]:
    """The same blocks; `arrived` is called when one has been used up."""
    count = 0
    for block in blocks:
        yield block
        count += len(block)
        arrived(count, float(block["arrival"][-1]))


def prepare(jobs: Sequence[IterationJob]) -> None:
    """Compile the kernels, and a user's functions, before the work is handed out: every process finds them on disk."""
    first: dict[object, IterationJob] = {}
    for job in jobs:
        behaviour = job.behaviour
        first.setdefault((type(behaviour), behaviour.batching) if behaviour.bare.is_data else behaviour.name, job)
    for job in first.values():
        job.behaviour.warm_up(engine_of(job.scenario, job.behaviour.batching), job.run, job.scenario)


def placement_seed(seed: int, replication: int) -> int:
    """Seed of a replication's placements and class draws, apart from that of its requests."""
    return int(SeedSequence(seed, spawn_key=(replication, PLACEMENTS)).generate_state(1, np.uint64)[0])
