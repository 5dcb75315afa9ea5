"""Entry points hold on to nothing: 64 bytes a call would be seen.

Counted are the bytes that the C library has handed out and the blocks that Python has, not the pages of the process: a
heap with room in it hides a leak.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable
from itertools import count, pairwise

import numpy as np
import pytest

from fluidgate import find_policy, plan
from fluidgate.batching import Batching
from fluidgate.compiled import by_reference, entry_point
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.placed import Placed
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.gateway.prefixes import PrefixIndex, chain_of_ids
from fluidgate.replanning import Estimator
from fluidgate.workloads.streams import REQUEST
from tests.scenarios import two_class_scenario

LEAST_LEAK = 64


class MallInfo(ctypes.Structure):
    """What `mallinfo2` of the GNU C library tells."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


try:
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = MallInfo
except (AttributeError, OSError, TypeError):
    mallinfo = None

needs_count = pytest.mark.skipif(mallinfo is None, reason="the GNU C library counts what it has handed out")


def held() -> tuple[int, int]:
    """Bytes handed out by the C library, and blocks that Python has."""
    gc.collect()
    told = mallinfo()
    return told.uordblks + told.hblkhd, sys.getallocatedblocks()


def growth(call: Callable[[], None], calls: int) -> float:
    """Bytes a call that are never given back; a block of Python's counts as 64. The least of three stretches."""
    gc.collect()
    gc.freeze()  # what other tests have left need not be looked through again
    try:
        for _ in range(calls // 4):
            call()
        counts = [held()]
        for _ in range(3):
            for _ in range(calls):
                call()
            counts.append(held())
    finally:
        gc.unfreeze()
    grown = [after[0] - before[0] + 64 * (after[1] - before[1]) for before, after in pairwise(counts)]
    return min(grown) / calls


@needs_count
def test_the_measure_sees_what_a_generator_leaks() -> None:
    """The fault that this file is there for: a numpy Generator handed to code without reference counts."""

    @entry_point
    def leaking(generator):  # type: ignore[no-untyped-def]
        return generator.random()

    rng = np.random.default_rng(0)
    assert growth(lambda: leaking(rng), 1_000) >= LEAST_LEAK


@needs_count
def test_a_kernel_grows_by_nothing() -> None:
    from fluidgate.simulation.markov.builds import kernel
    from fluidgate.simulation.markov.replication import Job, start

    scenario, policy = two_class_scenario(), find_policy("gate-and-route")
    job = Job(scenario, policy, policy.tabulate(plan(scenario), 4), 4, 10.0, 0.0, 0, 0)
    state, tables = by_reference(start(job)), by_reference(job.tables)
    assert growth(lambda: kernel(state, tables, 0), 1_000) < LEAST_LEAK / 8


@needs_count
@pytest.mark.parametrize("batching", [Batching.SINGLE_PREFILL, Batching.TOKEN_BUDGET])
def test_a_kernel_of_iterations_grows_by_nothing(batching: Batching) -> None:
    from fluidgate.policies.decisions.board import Functions
    from fluidgate.simulation.iteration.builds import build
    from fluidgate.simulation.iteration.engine import Engine
    from fluidgate.simulation.iteration.law import linear_law
    from fluidgate.simulation.iteration.run import Run, new_cluster

    law, policy = linear_law(0.02, 1e-3), find_policy("gate-and-route")
    tables = policy.tabulate(plan(two_class_scenario()), 4)
    cluster = new_cluster(Engine(law, 4, 30, batching), Run(4, 2), False, tables=tables, functions=Functions())
    fixed = (law, tables) if batching == Batching.SINGLE_PREFILL else (law,)
    arguments = (*map(by_reference, (cluster, *fixed)), np.zeros(0, REQUEST))
    assert growth(lambda: build(batching)(*arguments, 0), 1_000) < LEAST_LEAK / 8


@needs_count
@pytest.mark.parametrize("policy", ["index-and-pool", "gate-and-route"])
def test_a_request_through_the_dispatcher_leaves_nothing(policy: str) -> None:
    scenario = two_class_scenario()
    chosen = find_policy(policy)
    tables = chosen.tabulate(plan(scenario, gpus=4), 4)

    async def run() -> float:
        estimator = Estimator(scenario, 4, window=60.0, prior=60.0)
        now = [0.0]
        gated = Gated(tables, 4, 16, 2, estimator=estimator, clock=lambda: now[0])
        for g in range(4):
            gated.engine_up(g, 0)

        def one_request() -> None:
            now[0] += 0.1
            ticket = Ticket(0, 100)
            gated.enter(ticket)
            gated.prompt_read(ticket, 100)
            gated.note_completed(ticket, 50)
            gated.leave(ticket)

        return growth(one_request, 500)

    assert asyncio.run(run()) < LEAST_LEAK / 8


@needs_count
def test_a_request_through_a_placement_leaves_nothing() -> None:
    async def run() -> float:
        placed = Placed("lmetric", 4, 1, clock=lambda: 0.0)
        for g in range(4):
            placed.engine_up(g, 0)

        def one_request() -> None:
            ticket = Ticket(0, 100)
            placed.enter(ticket)
            placed.prompt_read(ticket, 100)
            placed.leave(ticket)

        return growth(one_request, 500)

    assert asyncio.run(run()) < LEAST_LEAK / 8


@needs_count
def test_a_prompt_that_is_looked_for_leaves_nothing() -> None:
    async def run() -> float:
        placed = Placed("lmetric", 4, 1, clock=lambda: 0.0, prefixes=PrefixIndex(16_000))
        for g in range(4):
            placed.engine_up(g, 0)
        number = count()

        def one_request() -> None:
            prompt = [next(number)] * 320
            ticket = Ticket(0, 320, chain=chain_of_ids(prompt))
            placed.enter(ticket)
            placed.prompt_read(ticket, 320)
            placed.note_told(ticket, 320, 0)
            placed.leave(ticket)

        return growth(one_request, 500)

    assert asyncio.run(run()) < LEAST_LEAK / 8
