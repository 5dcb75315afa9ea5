"""Dispatching to pairs: engines that read prompts and engines that write answers."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from fluidgate import find_policy, plan
from fluidgate.gateway.dispatch.fleet import problems
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.policies import Policy
from fluidgate.policies.decisions.tables import paired
from tests.scenarios import two_class_scenario

SCENARIO = two_class_scenario()
SLOTS = 3
READS, WRITES = (0, 3), (1, 2, 4)


def pairs(policy: str = "gate-and-route") -> Gated:
    """Two that read and three that write, of three slots each."""
    chosen = find_policy(policy)
    assert isinstance(chosen, Policy)
    tables = paired(chosen.tabulate(plan(SCENARIO, gpus=5), 5))
    dispatcher = Gated(tables, 5, SLOTS, 2, binding="pairs", clock=lambda: 0.0)
    for g in range(5):
        dispatcher.engine_up(g, 0, "prefill" if g in READS else "decode")
    return dispatcher


@pytest.mark.parametrize("policy", ["gate-and-route", "index-and-pool", "fi-wsp"])
def test_each_side_takes_its_own_and_a_prompt_waits_for_a_writer(policy: str) -> None:
    async def run() -> None:
        dispatcher, tickets = pairs(policy), [Ticket(k % 2, 1000, stays=k % 3 == 0) for k in range(20)]
        for ticket in tickets:
            dispatcher.enter(ticket)
        for _ in range(20):
            reading = [ticket for ticket in tickets if ticket.stage is Stage.PREFILL]
            assert len(reading) <= len(READS)
            for ticket in reading:
                assert (ticket.engine in READS, ticket.decode_engine in WRITES) == (True, True)
                assert dispatcher.prompt_read(ticket, 1000), "nobody waits between the two"
                assert ticket.stage is Stage.DECODE
            assert not problems(dispatcher.fleet)
        writing = [ticket for ticket in tickets if ticket.stage is Stage.DECODE]
        assert len(writing) == len(WRITES) * SLOTS, "all slots are taken, and the others wait"
        assert [dispatcher.held(g) for g in range(5)] == [0, 3, 3, 0, 3]
        assert dispatcher.state(0).role == "prefill"
        assert dispatcher.state(1).role == "decode"
        assert dispatcher.state(0).foreign == 0
        dispatcher.leave(writing[0])
        (reading,) = [ticket for ticket in tickets if ticket.stage is Stage.PREFILL]
        assert reading.decode_engine == writing[0].decode_engine, "where a slot has become free"

    asyncio.run(run())


def test_engines_come_and_go() -> None:
    async def run() -> None:
        dispatcher, ticket, other = pairs(), Ticket(0, 1000), Ticket(0, 1000)
        for g in WRITES:
            dispatcher.engine_down(g)
        dispatcher.enter(ticket)
        assert ticket.stage is Stage.WAITING, "nobody could write"
        dispatcher.engine_up(2, 0, "decode")
        assert (ticket.stage, ticket.decode_engine) == (Stage.PREFILL, 2)
        dispatcher.engine_down(2)
        assert dispatcher.prompt_read(ticket, 1000), "it goes on where it has been called"
        assert ticket.decode_engine == 2
        dispatcher.leave(ticket)
        dispatcher.engine_up(2, SLOTS, "decode")
        dispatcher.enter(other)
        assert other.stage is Stage.WAITING, "its slots are held by others"
        dispatcher.set_foreign(2, 0)
        assert other.stage is Stage.PREFILL
        dispatcher.enter_again(other)
        assert other.stage is Stage.PREFILL
        dispatcher.leave(other)
        dispatcher.engine_down(0)
        dispatcher.engine_up(0, 0, "decode")
        assert dispatcher.state(0).role == "decode", "it was started again as another"
        assert not problems(dispatcher.fleet)

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_the_books_are_right(seed: int) -> None:
    async def run() -> None:
        random, dispatcher, alive = Random(seed), pairs("index-and-pool"), list[Ticket]()
        up = dict.fromkeys(range(5), True)
        for _ in range(400):
            match random.randrange(6):
                case 0 | 1:
                    alive.append(Ticket(random.randrange(2), 1000))
                    dispatcher.enter(alive[-1])
                case 2 if reading := [t for t in alive if t.stage is Stage.PREFILL]:
                    assert dispatcher.prompt_read(random.choice(reading), 1000)
                case 3 if alive:
                    dispatcher.leave(alive.pop(random.randrange(len(alive))))
                case 4 if held := [t for t in alive if t.stage in (Stage.PREFILL, Stage.DECODE)]:
                    dispatcher.enter_again(random.choice(held))
                case 5:
                    g = random.randrange(5)
                    up[g] = not up[g]
                    if up[g]:
                        dispatcher.engine_up(g, 0, "prefill" if g in READS else "decode")
                    else:
                        dispatcher.engine_down(g)
            assert not problems(dispatcher.fleet)
            for ticket in alive:
                if ticket.stage is Stage.PREFILL:
                    assert ticket.engine in READS
                    assert ticket.decode_engine in WRITES
        for ticket in alive:
            dispatcher.leave(ticket)
        assert [dispatcher.held(g) for g in range(5)] == [0] * 5

    asyncio.run(run())
