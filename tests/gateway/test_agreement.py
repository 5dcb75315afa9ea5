"""The simulator and the live system agree: one stream of requests through both, under the same policy and plan.

Bounds, where nobody leaves so that both serve all: mean decodes within 6 % and 0.1, prompts being read within 15 % and
0.03 (a request's way between gateway and engine, some ms, counts as reading), TTFT within 0.15 s, TPOT within 5 %,
revenue rate within 6 %. `python -m benchmarks.gateway_agreement` prints such a comparison of any size.
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from benchmarks.gateway_agreement import scenario, served, simulated
from fluidgate.policies import find_policy
from fluidgate.workloads.streams import drawn_requests

ENGINES = 2


@pytest.mark.parametrize("policy", ["gate-and-route", "index-and-pool"])
def test_occupancies_revenue_and_latencies(policy: str) -> None:
    of = scenario(load=0.6, patience=0.0, output=(120.0, 50.0))
    requests = np.concatenate(list(drawn_requests(of, ENGINES, seed=5, horizon=12.0)))
    sim = simulated(of, find_policy(policy), ENGINES, requests, seed=0)
    live = asyncio.run(served(of, policy, ENGINES, requests, seed=0, speed=1.0, grace=0.0))
    assert live.completions.sum() == sim.completions.sum() == len(requests)
    prefill, decode, queue, buffer = np.abs(live.occupancy - sim.occupancy)
    assert (decode < 0.06 * sim.occupancy[1] + 0.1).all(), (sim, live)
    assert (prefill < 0.15 * sim.occupancy[0] + 0.03).all(), (sim, live)
    assert (queue < 0.25 * sim.occupancy[2] + 0.1).all(), (sim, live)
    assert (buffer < 0.1).all(), (sim, live)
    assert live.ttft == pytest.approx(sim.ttft, abs=0.15)
    assert live.tpot == pytest.approx(sim.tpot, rel=0.05)
    assert live.revenue == pytest.approx(sim.revenue, rel=0.06)
