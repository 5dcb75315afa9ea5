"""Requests drawn from a scenario: its arrivals, its lengths, its patience."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.workloads.streams.assignment import length_traces, pool_of
from fluidgate.workloads.streams.epochs import epochs
from fluidgate.workloads.streams.lengths import PairDrawer, Pool, pair_drawer
from fluidgate.workloads.streams.patience import patience_drawer
from fluidgate.workloads.streams.random import RandomStreams
from fluidgate.workloads.streams.requests import BLOCK, Requests, requests_of, until
from fluidgate.workloads.streams.sessions import drawn_sessions
from fluidgate.workloads.streams.think import think_drawer


def drawn_requests(
    scenario: Scenario,
    gpus: int,
    *,
    seed: int = 0,
    replication: int = 0,
    horizon: float = math.inf,
    most: int | None = None,
    size: int = BLOCK,
    pool: Pool | None = None,
) -> Iterator[Requests]:
    """Blocks of requests, in order of arrival, in the memory of a block.

    In a closed loop they are in the order in which they are sent, without epochs. Where the classes have prefixes or
    sessions these are the first requests of `drawn_sessions`, all of them drawn before the first block.

    Arrivals (epochs and classes) depend on the scenario's rates and `[arrivals]`, `gpus`, `seed` and `replication`
    alone, not on lengths, patience or `size`.

    Args:
        scenario: classes, arrivals and lengths.
        gpus: GPUs of the cluster; they share the load of a scenario with `[cluster]`.
        seed, replication: of all random numbers.
        horizon: the last epoch, s.
        most: the largest number of requests, or of sessions.
        size: requests in a block.
        pool: requests that lend empirical lengths; by default those of the scenario's `lengths.traces`.

    Raises:
        FluidgateError: the scenario can't be drawn from; the message names the key and the mend.
    """
    if scenario.has_sessions:
        given = {"seed": seed, "replication": replication, "horizon": horizon, "most": most, "pool": pool}
        return until(drawn_sessions(scenario, gpus, **given).blocks(size), horizon, most)  # type: ignore[arg-type]
    scenario = scenario.for_gpus(gpus)
    if pool is None and scenario.lengths.traces:
        pool = pool_of(scenario, length_traces(scenario))
    random = RandomStreams.of(seed, replication)
    lengths = pair_drawer(scenario, random, pool)
    return until(_blocks(scenario, gpus, random, lengths, size), horizon, most)


def _blocks(scenario: Scenario, gpus: int, random: RandomStreams, lengths: PairDrawer, size: int) -> Iterator[Requests]:
    rates = scenario.rates
    total = float(rates.arrival.sum())
    edges = np.cumsum(rates.arrival[:-1]) / total
    patience = patience_drawer(rates.patience, random.patience)
    think = think_drawer(scenario.arrivals, random.think)
    for arrival in _epochs(scenario, total * gpus, random, size):
        cls = np.searchsorted(edges, random.classes.random(size), side="right").astype(np.int32)
        prompt, output = lengths(cls)
        yield requests_of(arrival, cls, prompt, output, patience(cls), think(size))


def _epochs(scenario: Scenario, rate: float, random: RandomStreams, size: int) -> Iterator[Array]:
    if scenario.arrivals.closed:
        return repeat(np.zeros(size))
    return epochs(scenario.arrivals, rate, random.gaps, random.phases, size)
