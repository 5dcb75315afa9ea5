"""The virtual queues of the Markov kernel, event by event, against a rendering of their rules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fluidgate import Indicators, Planner, find_policy
from fluidgate.compiled import by_reference
from fluidgate.policies.decisions.stages import MIXED_DECODE, PREFILL, PREFILL_QUEUE, SOLO_DECODE
from fluidgate.simulation import pauses
from fluidgate.simulation.markov.arrivals import arrivals_of
from fluidgate.simulation.markov.builds import audit, kernel
from fluidgate.simulation.markov.network import CURSOR, NOW, TOTAL_EVENTS
from fluidgate.simulation.markov.replication import Job, seeds, start
from tests.oracles.limits import Pace, VirtualQueues, gap_after
from tests.scenarios import two_class_scenario

LIMITS: list[dict[str, float]] = [
    {"max_prefill_gap": 0.12},
    {"max_solo_gap": 2.0},
    {"max_tpot": 0.0235},
    {"max_prefill_gap": 0.12, "max_solo_gap": 2.0, "max_tpot": 0.0235},
    {"max_prefill_gap": 0.0},
]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_every_excess_is_what_the_counts_make_it(limits: dict[str, float]) -> None:
    scenario, gpus = two_class_scenario().replace(indicators=Indicators(**limits)), 3
    policy = find_policy("index-and-pool")
    tables = policy.tabulate(Planner().solve(scenario), gpus)
    job = Job(scenario, policy, tables, gpus, math.inf, 0.0, seed=3, replication=0, audited=True)
    network = start(job)
    rate = float(scenario.rates.arrival.sum()) * gpus
    arrivals_of(rate, 1.0, seeds(3, 0)[0]).fill(network.arrivals)
    network.tally[CURSOR] = 0
    queues, state = VirtualQueues(tables, 2), by_reference(network)
    released = 0
    for _ in range(6_000):
        before, now, events = network.counts.copy(), float(network.clock[NOW]), int(network.tally[TOTAL_EVENTS])
        beside, startable = int(network.board.state.beside[0]), int(network.board.state.startable[0])
        pace = pace_of(tables, gpus, scenario.gpu.batch_size, before)
        release = math.inf
        if startable:
            release = now + queues.release(
                before[PREFILL_QUEUE], before[PREFILL], before[SOLO_DECODE], before[MIXED_DECODE], beside, pace
            )
        assert kernel(state, by_reference(tables), 1) == pauses.PAUSED
        assert audit(state, by_reference(tables)) == 0
        epoch = float(network.clock[NOW])
        queues.pass_time(epoch - now, before[PREFILL], before[SOLO_DECODE], pace)
        assert network.board.state.excess == pytest.approx(queues.excess, rel=1e-9, abs=1e-9)
        assert epoch <= release * (1.0 + 1e-12)
        if network.tally[TOTAL_EVENTS] == events:  # nothing has happened but time
            released += 1
            assert epoch == pytest.approx(release, rel=1e-12)
    assert released > 0


def pace_of(tables: Any, gpus: int, size: int, counts: Any) -> Pace:
    return Pace.of_counts(tables, gpus, size, counts[PREFILL], counts[MIXED_DECODE], counts[SOLO_DECODE])


def test_the_rendering_agrees_with_small_steps() -> None:
    """A gap's excess over a path of random counts, in steps so small that a class crosses nothing within one."""
    rng = np.random.default_rng(1)
    grace, limit, dt = [2.0, 3.0, 1.0], 1.5, 1e-4
    exact, stepped = [0.0] * 3, np.zeros(3)
    for _ in range(40):
        members, seconds = rng.integers(0, 6, 3), 0.25
        exact = gap_after(exact, [int(m) for m in members], limit, grace, seconds)
        for _ in range(round(seconds / dt)):
            potential = stepped + members * dt
            ahead = potential - potential.min()
            leaking = np.minimum(limit * dt, np.maximum(ahead - np.array(grace) / 2.0, 0.0))
            stepped = ahead - leaking
        assert exact == pytest.approx(stepped, abs=0.02)
        stepped = np.array(exact)


def test_nobody_falls_further_behind_than_the_limit() -> None:
    """Whatever the counts: the means of no two classes differ by more than the limit while neither has an excess."""
    rng = np.random.default_rng(2)
    for limit in (0.0, 0.7, 2.0):
        excess, had, total = [0.0] * 4, np.zeros(4), 0.0
        for _ in range(3_000):
            members = rng.integers(0, 5, 4) * (np.array(excess) <= 3.0)
            seconds = float(rng.exponential(0.3))
            excess = gap_after(excess, [int(m) for m in members], limit, [3.0] * 4, seconds)
            had, total = had + members * seconds, total + seconds
        assert np.ptp(had) <= limit * total + np.ptp(excess) + 1e-6
