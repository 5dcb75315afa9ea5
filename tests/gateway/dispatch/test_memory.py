"""The gateway's books of KV memory: where a prefill may start, and who holds a prompt that has been read."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from fluidgate import find_policy, plan
from fluidgate.gateway.dispatch.fleet import problems
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from tests.scenarios import two_class_scenario

SCENARIO = two_class_scenario()
OUTPUT = round(SCENARIO.classes[0].output_tokens)


def gated(engines: int, kv_tokens: int | None, *, binding: str = "late", policy: str = "index-and-pool") -> Gated:
    tables = replace(find_policy(policy)).tabulate(plan(SCENARIO, gpus=engines), engines)
    dispatcher = Gated(tables, engines, 8, 2, kv_tokens=kv_tokens, binding=binding, clock=lambda: 0.0)
    for g in range(engines):
        dispatcher.engine_up(g, 0)
    return dispatcher


def test_a_prefill_starts_only_where_its_decode_is_expected_to_fit() -> None:
    async def run() -> None:
        dispatcher = gated(1, 2 * (1000 + OUTPUT) + 500)
        tickets = [Ticket(0, 1000) for _ in range(3)]
        for ticket in tickets:
            dispatcher.enter(ticket)
        for ticket in tickets[:2]:
            assert ticket.stage is Stage.PREFILL
            dispatcher.prompt_read(ticket, 1000)
        assert dispatcher.fleet.gpu["kv"][0] == 2 * (1000 + OUTPUT)
        assert tickets[2].stage is Stage.WAITING
        assert not problems(dispatcher.fleet)
        dispatcher.leave(tickets[0])
        assert tickets[2].stage is Stage.PREFILL
        for ticket in tickets[1:]:
            dispatcher.leave(ticket)
        assert dispatcher.fleet.gpu["kv"].tolist() == [0]

    asyncio.run(run())


def test_one_that_is_longer_than_the_memory_has_an_engine_to_itself() -> None:
    async def run() -> None:
        dispatcher = gated(1, 500)
        one, other = Ticket(0, 5000), Ticket(0, 10)
        dispatcher.enter(one)
        dispatcher.enter(other)
        assert (one.stage, other.stage) == (Stage.PREFILL, Stage.WAITING)
        dispatcher.prompt_read(one, 5000)
        assert other.stage is Stage.WAITING
        dispatcher.leave(one)
        assert other.stage is Stage.PREFILL

    asyncio.run(run())


def test_a_prompt_that_has_been_read_keeps_its_memory_until_its_decode_starts_elsewhere() -> None:
    async def run() -> None:
        dispatcher = gated(2, 100_000, policy="gate-and-route")
        tickets = [Ticket(0, 1000) for _ in range(4)]
        for ticket in tickets:
            dispatcher.enter(ticket)
        for ticket in tickets:
            if ticket.stage is Stage.PREFILL:
                dispatcher.prompt_read(ticket, 1000)
        held = [0, 0]
        for ticket in tickets:
            if ticket.stage is not Stage.WAITING:
                held[ticket.decode_engine if ticket.stage is Stage.DECODE else ticket.engine] += ticket.booked
        assert dispatcher.fleet.gpu["kv"].tolist() == held
        assert sum(held) > 0

    asyncio.run(run())
