"""Limits in iterations: when a class that waited for one starts again, by kernel and by reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fluidgate.batching import Batching
from fluidgate.engine_table import EngineModel
from fluidgate.policies import find_policy
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.run import Run
from fluidgate.workloads.streams import REQUEST
from tests.simulation.iteration.instances import Coefficients, Instance, plan_for
from tests.simulation.iteration.test_agreement import agree


def one_gpu(rows: list[tuple[float, int, int, int]], time: Coefficients, gap: float, grace: list[float]) -> Instance:
    """index-and-pool with a limit to the prefill gap; rows of arrival, class, prompt, output, and nobody leaves."""
    stream = np.array([(*row, math.inf, 0.0, *[0] * 5) for row in rows], REQUEST)
    engine = Engine(time.law(), 6, 16, Batching.SINGLE_PREFILL, EngineModel())
    run = Run(1, 2, math.inf, 0.0, 0, audited=True)
    policy = find_policy("index-and-pool")
    tables = policy.tabulate(plan_for(np.random.default_rng(0), stream, run, engine), 1)
    no = math.inf
    limit: Any = np.array([gap, no, no, no])
    tables = tables._replace(limited=True, limit=limit, grace=np.tile(np.array(grace), (4, 1)))
    return Instance(stream, engine, time, run, policy=policy, tables=tables)


def test_a_rounding_does_not_grow_from_one_release_to_the_next() -> None:
    """A release later by a rounding, between two boundaries, makes the next one earlier by 19 roundings here."""
    rows = [(0.0, 0, 3, 400)] + [(0.01 * k, 0, 14 + k % 7, 3) for k in range(1, 13)]
    time = Coefficients(0.013, 0.0021, 0.0011, 0.0, (0.0631, 0.0007, 0.0))
    agree(one_gpu(rows, time, 0.05, [0.02, 0.02]))


def test_a_boundary_between_an_excess_that_no_longer_blocks_and_its_grace_changes_nothing() -> None:
    """The excess rises to (3 + g/2) / 4 by 1 s, when the first prompt has been read, and falls by 1/4 a second: to its
    grace g at 4 - 3.5 g. At the boundary of 2 s it is above that by half a millionth of it.
    """
    grace = 2.0 / (3.5 + 2e-6)
    iteration = 0.0625
    time = Coefficients(iteration, 0.0, 0.0, 0.0, (iteration, 0.0, 0.0))
    instance = one_gpu([(0.0, 0, 16 * 16, 400), (0.5, 0, 20, 5)], time, 0.25, [grace, grace])
    expected = agree(instance)
    assert expected.requests[1].scheduled == pytest.approx(2.0 + iteration)
