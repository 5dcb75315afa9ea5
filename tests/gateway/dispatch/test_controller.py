"""When the plan is looked at."""

from __future__ import annotations

from fluidgate.gateway.dispatch.controller import Controller
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.policies import Policy, find_any_policy
from fluidgate.replanning import Replanning
from tests.gateway.asynchronous import asynchronous
from tests.gateway.served import scenario


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
