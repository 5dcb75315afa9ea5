"""When the plan is looked at."""

from __future__ import annotations

import pytest

from fluidgate.gateway.dispatch.controller import Controller
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.gateway.group import kv_tokens_of, slots_of
from fluidgate.model import EngineModel
from fluidgate.planning import plan
from fluidgate.policies import Policy, find_any_policy
from fluidgate.replanning import Replanning
from tests.gateway.asynchronous import asynchronous
from tests.gateway.served import scenario


def test_an_engine_of_several_ranks_is_so_many_gpus_of_the_plan(caplog: pytest.LogCaptureFixture) -> None:
    ranks = EngineModel(data_parallel=2, kv_tokens=1000)
    of, policy = scenario(rate=2.0), find_any_policy("gate-and-route")
    of = of.replace(engine=ranks)
    assert isinstance(policy, Policy)
    controller = Controller(of, policy, 3, None, stays=False, group="h100", now=0.0)
    tables = policy.tabulate(plan(of), 6)
    assert controller.engines == 3
    assert 2 * int(controller.tables.mixed_gpus) == int(tables.mixed_gpus)
    assert controller.tables.target_prefill.tolist() == tables.target_prefill.tolist()
    with caplog.at_level("INFO", "fluidgate.gateway"):
        controller.resize(1, 1.0)
    assert caplog.messages == ["new plan for h100: 1 engine is up"]
    assert controller.engines == controller.replanner.gpus // 2 == 1
    assert (slots_of(of), kv_tokens_of(of)) == (2 * of.gpu.batch_size, 2000)


@asynchronous
async def test_the_plan_stands_while_nothing_happens() -> None:
    """The estimates decay by themselves; that is no news."""
    of, policy = scenario(rate=2.0), find_any_policy("gate-and-route")
    assert isinstance(policy, Policy)
    controller = Controller(of, policy, 2, Replanning(period=30.0), stays=False, now=0.0)
    now = [0.0]
    dispatcher = Gated(controller.tables, 2, 4, 2, estimator=controller.estimator, clock=lambda: now[0])
    dispatcher.engine_up(0, 0)
    controller.steer(dispatcher)
    await controller.look(3.0)
    before = controller.replanner.solved
    for look in range(2, 200):
        await controller.look(3.0 * look)
    assert controller.replanner.solved == before
    assert controller.replanner.next_look > 3.0 * 199
    now[0] = 700.0
    dispatcher.enter(Ticket(0, 100))
    await controller.look(700.0)
    assert controller.replanner.solved == before + 1
