"""The monitor before engines that say what the test wants, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fluidgate.gateway.cluster import monitor as module
from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.cluster.joining import Joining
from fluidgate.gateway.cluster.monitor import LATE_LOOKS, LONGEST_REST, MODELS_SECONDS, Monitor
from fluidgate.gateway.dispatch.placed import Placed
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.gateway.engines import EngineUnreachable, Load
from tests.gateway.asynchronous import asynchronous
from tests.gateway.fakes import IDLE, FakeAdapter


class Watched:
    """Engines and their monitor; `resized` holds how many were up after each change."""

    def __init__(self, engines: int = 2) -> None:
        self.now = 100.0
        self.adapters = [FakeAdapter(f"http://{name}") for name in "abcd"[:engines]]
        self.backends = Backends(self.adapters, batch_size=4, model="m")
        self.dispatcher = Placed("least-loaded", self.backends.capacity, 1, clock=self.clock)
        self.resized: list[int] = []
        self.monitor = Monitor(
            self.backends,
            self.dispatcher,
            Joining(self.backends, "file", transfer=False),
            resized=self.resized.append,
            clock=self.clock,
            seconds=1.0,
        )

    def clock(self) -> float:
        return self.now

    @property
    def ups(self) -> list[bool]:
        return [engine.up for engine in self.backends]

    def foreign(self) -> list[int]:
        return [self.dispatcher.state(engine.place).foreign for engine in self.backends]

    async def look(self, *places: int) -> None:
        """As each watch does when a look is due."""
        for engine in self.backends:
            if not places or engine.place in places:
                await self.monitor._look(engine)

    def late(self, monkeypatch: pytest.MonkeyPatch, *places: int) -> None:
        """These engines do not answer looks in time."""
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.001)

        async def never() -> Load:
            await asyncio.sleep(3600.0)
            return IDLE

        for place in places:
            self.adapters[place].load = never  # type: ignore[method-assign]


@asynchronous
async def test_who_answers_is_up() -> None:
    watched = Watched()
    watched.adapters[1].now = None
    await watched.look()
    assert (watched.ups, watched.resized) == ([True, False], [1])
    assert [watched.dispatcher.state(g).role for g in range(2)] == ["placed", "down"]
    assert [engine.state for engine in watched.backends] == ["up", "joining"]
    watched.adapters[0].now, watched.adapters[1].now = None, IDLE
    await watched.look()
    assert watched.ups == [False, True]
    assert watched.backends[0].facts is None, "it is checked anew when it comes back"
    assert watched.backends[0].load is None
    assert (watched.backends[0].state, watched.backends[0].downs) == ("down", {"refused": 1})
    watched.adapters[0].now = IDLE
    await watched.look()
    assert watched.backends[0].life == 2


@asynchronous
async def test_one_that_serves_another_model_is_not_used() -> None:
    watched = Watched()
    facts = watched.adapters[0].facts
    assert facts is not None
    watched.adapters[0].facts = replace(facts, models=("other",))
    await watched.look()
    assert watched.ups == [False, True]
    assert watched.backends[0].why == "it serves other, not m"
    watched.adapters[0].facts = facts
    await watched.look()
    assert watched.ups == [True, True]


@asynchronous
async def test_what_an_engine_serves_is_looked_up_again() -> None:
    watched = Watched()
    facts = watched.adapters[0].facts
    assert facts is not None
    await watched.look()
    watched.adapters[0].facts = replace(facts, models=("m", "lora"), adapters=("lora",))
    await watched.look()
    assert watched.backends.models == ("m",), "not at every look"
    watched.now += MODELS_SECONDS
    await watched.look()
    assert watched.backends.models == ("m", "lora")
    assert watched.backends.only("lora") == [watched.backends[0]]
    watched.adapters[0].facts = replace(facts, models=("other",))
    assert not await watched.monitor.serves(watched.backends[0], "m")
    assert watched.ups == [False, True], "another has taken its address"
    assert watched.backends[0].downs == {"replaced": 1}


@asynchronous
async def test_slots_of_others_are_closed_once_two_looks_agree() -> None:
    watched = Watched()
    await watched.look()
    watched.dispatcher.enter(Ticket(0, 10))
    watched.adapters[0].now = Load(running=2, waiting=1, kv_usage=0.3)
    await watched.look()
    assert watched.foreign() == [0, 0]
    await watched.look()
    assert watched.foreign() == [2, 0], "one of the three is ours"
    watched.adapters[0].now = IDLE
    await watched.look()
    assert watched.foreign() == [0, 0]
    watched.adapters[0].now = Load(None, None, None)
    await watched.look()
    assert watched.foreign() == [0, 0], "it does not say"


@asynchronous
async def test_slots_that_an_engine_does_not_have_stay_closed() -> None:
    watched = Watched()
    facts = watched.adapters[0].facts
    assert facts is not None
    watched.adapters[0].facts = replace(facts, slots=3)
    for _ in range(3):
        await watched.look()
        assert watched.foreign() == [1, 0]


@asynchronous
async def test_late_looks_are_not_enough_while_it_answers_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(4)
    await watched.look()
    watched.late(monkeypatch, 0)
    for _ in range(LATE_LOOKS - 1):
        await watched.look(0)
    assert watched.ups == [True] * 4, "one late look, or two, is nothing"
    gave_up: list[EngineUnreachable] = []
    watched.backends[0].expect_answer(gave_up.append)
    await watched.look(0)
    assert watched.ups == [False, True, True, True]
    assert watched.backends[0].downs == {"late": 1}
    assert len(gave_up) == 1, "who waits for its first word goes elsewhere"

    watched = Watched(4)
    await watched.look()
    watched.late(monkeypatch, 0)
    never = watched.adapters[0].load

    async def answers_a_request_meanwhile() -> Load:
        watched.adapters[0].answered += 1
        return await never()

    watched.adapters[0].load = answers_a_request_meanwhile  # type: ignore[method-assign]
    for _ in range(2 * LATE_LOOKS):
        await watched.look(0)
    assert watched.ups == [True] * 4


@asynchronous
async def test_where_most_looks_are_late_it_is_not_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(3)
    await watched.look()
    watched.late(monkeypatch, 0, 1, 2)
    for _ in range(2 * LATE_LOOKS):
        await watched.look()
    assert watched.ups == [True] * 3, "then requests are tried"


@asynchronous
async def test_an_engine_is_down_when_it_fails_different_requests() -> None:
    watched = Watched()
    await watched.look()
    engine = watched.backends[0]
    for _ in range(5):
        watched.monitor.failed(engine, "fg-1", "status 500")
    assert engine.up, "one request, however often"
    watched.monitor.failed(engine, "fg-2", "status 500")
    watched.monitor.failed(engine, "fg-3", "status 500: out of memory")
    assert not engine.up
    assert engine.downs == {"failures": 1}
    assert engine.why == "failed 3 of its last 3 requests; fg-3: status 500: out of memory"


@asynchronous
async def test_one_that_goes_on_serving_others_has_not_failed() -> None:
    watched = Watched()
    await watched.look()
    for k in range(40):
        watched.monitor.served(watched.backends[0])
        watched.monitor.served(watched.backends[0])
        watched.monitor.failed(watched.backends[0], f"fg-{k}", "status 500")
    assert watched.ups == [True, True]


@asynchronous
async def test_the_last_engine_is_never_taken_out_for_what_it_fails() -> None:
    watched = Watched()
    await watched.look()
    for engine in watched.backends:
        for k in range(10):
            watched.monitor.failed(engine, f"fg-{k}", "status 500")
    assert sum(watched.ups) == 1
    up = next(engine for engine in watched.backends if engine.up)
    watched.monitor.refused(up, "connection refused")
    assert watched.ups == [False, False], "but nobody is where connections are refused"


@asynchronous
async def test_who_goes_down_again_and_again_rests_for_longer_and_longer() -> None:
    watched = Watched()
    watch, rests = watched.monitor.watches[0], []
    for _ in range(6):
        await watched.look()
        watched.monitor.refused(watched.backends[0], "refused")
        assert not watched.backends[0].up
        rests.append(watch.rests_until - watched.now)
        watched.now = watch.rests_until
    assert rests[0] < 1.0
    assert [round(rest) for rest in rests[1:]] == [1, 2, 4, LONGEST_REST, LONGEST_REST]
    watched.now += 60.0
    await watched.look()
    watched.monitor.refused(watched.backends[0], "refused")
    assert watch.rests_until - watched.now < 1.0, "forgiven"


@asynchronous
async def test_an_answer_from_before_a_failure_brings_nobody_up() -> None:
    watched = Watched()
    await watched.look()
    load = watched.adapters[0].load

    async def fails_meanwhile() -> Load:
        watched.monitor.refused(watched.backends[0], "refused")
        return await load()

    watched.adapters[0].load = fails_meanwhile  # type: ignore[method-assign]
    await watched.look()
    assert watched.ups == [False, True]


@asynchronous
async def test_a_cordoned_engine_takes_nothing_new_and_is_looked_at() -> None:
    watched = Watched()
    await watched.look()
    watched.monitor.cordon(watched.backends[0], True)
    assert (watched.ups, watched.backends[0].state) == ([False, True], "cordoned")
    assert watched.resized[-1] == 1
    await watched.look()
    assert watched.ups == [False, True]
    watched.monitor.cordon(watched.backends[0], False)
    assert (watched.ups, watched.resized[-1]) == ([True, True], 2)


@asynchronous
async def test_an_engine_that_serves_nobody_is_looked_at_less_often() -> None:
    watched = Watched()
    await watched.look()
    engine = watched.backends[0]
    assert watched.monitor._is_idle(engine)
    ticket = Ticket(0, 10)
    watched.dispatcher.go_beside(ticket, 0)
    assert not watched.monitor._is_idle(engine)
    watched.dispatcher.leave(ticket)
    assert watched.monitor._is_idle(engine)
    watched.monitor.refused(engine, "refused")
    assert not watched.monitor._is_idle(engine), "it may come back at any time"
