"""The gateway's dispatcher holds limits by the same virtual queues, and looks again when time alone lets some start."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from fluidgate import Indicators, Planner, find_policy, simulate
from fluidgate.gateway.dispatch.averages import indicators_now
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.planning.penalty import indicator_values
from fluidgate.policies.decisions.tables import PREFILL_GAP
from tests.gateway.dispatch.network import VirtualNetwork, occupancies
from tests.scenarios import two_class_scenario

LIMITS = {"max_prefill_gap": 0.12, "max_solo_gap": 2.0, "max_tpot": 0.0235}
SCENARIO = two_class_scenario().replace(indicators=Indicators(**LIMITS))
GPUS = 20


def test_holds_limits_as_the_simulator_does() -> None:
    plan, rates = Planner().solve(SCENARIO), SCENARIO.rates
    tables = find_policy("index-and-pool").tabulate(plan, GPUS)
    x, mixed, solo, *_ = occupancies(rates, tables, GPUS, SCENARIO.gpu.batch_size, events=50_000, seed=4)
    values = indicator_values(SCENARIO, x, solo)
    for name, limit in LIMITS.items():
        assert values[name.removeprefix("max_")] <= 1.05 * limit
    revenue = float((rates.mixed_decode * mixed + rates.solo_decode * solo) @ rates.bundled_value)
    simulated = simulate(SCENARIO, "index-and-pool", gpus=GPUS, horizon=4000.0, replications=2).revenue_rate.mean
    assert revenue >= 0.97 * plan.revenue_rate
    assert revenue == pytest.approx(simulated, rel=0.03)


def test_time_alone_lets_a_class_start() -> None:
    tables = find_policy("index-and-pool").tabulate(Planner().solve(SCENARIO), GPUS)

    async def run() -> None:
        gated = Gated(tables, GPUS, 16, 2, clock=time.monotonic)
        for g in range(GPUS):
            gated.engine_up(g, 0)
        state = gated.fleet.board.state
        gated.look_again()
        state.excess[PREFILL_GAP, 0] = tables.grace[PREFILL_GAP, 0] + 0.1 * tables.limit[PREFILL_GAP]
        began, ticket = time.monotonic(), Ticket(0, 10)
        gated.enter(ticket)
        assert ticket.stage is Stage.WAITING
        assert gated.release == pytest.approx(began + 0.1, abs=0.02)
        assert ticket.turn is not None
        await asyncio.wait_for(ticket.turn, 5.0)
        assert time.monotonic() - began >= 0.08
        assert ticket.stage is Stage.PREFILL
        assert gated.release == np.inf

    asyncio.run(run())


def test_averages_are_those_of_the_recent_past() -> None:
    tables = find_policy("index-and-pool").tabulate(Planner().solve(SCENARIO), 5)

    async def run() -> None:
        network = VirtualNetwork(SCENARIO.rates, tables, 5, 16, seed=1, audited=True)
        assert indicators_now(SCENARIO, network.dispatcher.averages(), 5)["solo_gap"]["value"] is None
        network.run(6_000)
        network.area[:], start = 0.0, network.now
        network.run(6_000)
        found = indicators_now(SCENARIO, network.dispatcher.averages(), 5)
        means = network.area / (network.now - start) / 5
        expected = indicator_values(SCENARIO, means[0], means[2])
        for name, limit in LIMITS.items():
            indicator = name.removeprefix("max_")
            assert found[indicator]["limit"] == limit
            assert found[indicator]["value"] == pytest.approx(expected[indicator], rel=0.15)

    asyncio.run(run())
