"""Every invariant at every event, by the audited build; and the audit itself, which must see what is broken."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import SeedSequence

from fluidgate import Scenario, find_policy, plan, simulate
from fluidgate.compiled import by_reference
from fluidgate.policies import POLICIES, Tables
from fluidgate.policies.decisions.stages import MIXED_DECODE, PREFILL_QUEUE, SOLO_DECODE
from fluidgate.simulation import pauses
from fluidgate.simulation.events import ARRIVAL
from fluidgate.simulation.invariants import InvariantError
from fluidgate.simulation.markov.arrivals import PoissonArrivals
from fluidgate.simulation.markov.builds import audit as audit_kernel
from fluidgate.simulation.markov.builds import kernel
from fluidgate.simulation.markov.network import CURSOR, IN_WINDOW, NONE, Network
from fluidgate.simulation.markov.replication import Job, run, start
from tests.scenarios import scenarios


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    scenario=scenarios(),
    policy=st.sampled_from(list(POLICIES)),
    gpus=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_hold_at_every_event(scenario: Scenario, policy: str, gpus: int, seed: int) -> None:
    rate = 3 * gpus * float(scenario.rates.arrival.sum())
    result = simulate(
        scenario, policy, gpus=gpus, horizon=1500 / rate, warmup=200 / rate, replications=1, seed=seed, audited=True
    )
    assert result.events > 0


@pytest.fixture
def busy(two_class: Scenario) -> tuple[Network, Job]:
    """A cluster after 3,000 events."""
    policy = find_policy("gate-and-route")
    job = Job(two_class, policy, policy.tabulate(plan(two_class), 12), 12, math.inf, 0.0, 5, 0, audited=True)
    network = start(job)
    network.tally[CURSOR] = 0
    PoissonArrivals(12.0, SeedSequence(5)).fill(network.arrivals)
    assert kernel(by_reference(network), by_reference(job.tables), 3_000) == pauses.PAUSED
    return network, job


def audit(network: Network, tables: Tables) -> int:
    return int(audit_kernel(by_reference(network), by_reference(tables)))


def test_a_sound_network_passes(busy: tuple[Network, Job]) -> None:
    network, job = busy
    assert audit(network, job.tables) == 0


def break_count(net: Network) -> None:
    net.counts[SOLO_DECODE, 0] = -1


def break_position(net: Network) -> None:
    occupied = np.flatnonzero(net.seats["cls"] != NONE)
    net.seats["position"][occupied[0]] += 1


def break_batch(net: Network) -> None:
    net.gpu["occupied"][0] += net.batch_size


def break_mode(net: Network) -> None:
    net.gpu["mixed"][0] = 1 - net.gpu["mixed"][0]


def break_ready(net: Network) -> None:
    net.board.state.free[1] += 1


def break_queue(net: Network) -> None:
    net.since[PREFILL_QUEUE, 0] = 0.5 if net.counts[PREFILL_QUEUE, 0] else 1.0


def break_balance(net: Network) -> None:
    net.events[ARRIVAL, 1] += 1


@pytest.mark.parametrize(
    ("sabotage", "code"),
    [
        (break_count, 1),
        (break_position, 2),
        (break_batch, 3),
        (break_mode, 4),
        (break_ready, 6),
        (break_queue, 7),
        (break_balance, 8),
    ],
)
def test_a_broken_network_is_seen(busy: tuple[Network, Job], sabotage, code: int) -> None:  # type: ignore[no-untyped-def]
    network, job = busy
    sabotage(network)
    assert audit(network, job.tables) == code


def test_lost_seat_is_seen(busy: tuple[Network, Job]) -> None:
    network, job = busy
    network.counts[MIXED_DECODE, 0] -= 1
    assert audit(network, job.tables) == 5


def test_too_many_prefills_are_seen(busy: tuple[Network, Job]) -> None:
    network, job = busy
    assert audit(network, job.tables._replace(max_prefills=0)) == 9


def test_a_failure_stops_the_run_and_says_what_and_when(two_class: Scenario) -> None:
    policy = find_policy("gate-and-route")
    job = Job(two_class, policy, policy.tabulate(plan(two_class), 6), 6, 100.0, 10.0, 0, 0, audited=True)
    network = start(job)
    network.tally[IN_WINDOW] = 1
    network.events[ARRIVAL, 0] = 7
    with pytest.raises(InvariantError, match=r"balance is broken.*event 1, gate-and-route"):
        run(network, job)
