"""The monitor before engines that say what the test wants, in virtual time."""

from __future__ import annotations

from dataclasses import replace

from fluidgate.gateway.backends import Backends
from fluidgate.gateway.dispatch.placed import Placed
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.gateway.engines import Load
from fluidgate.gateway.monitor import LONGEST_COOLDOWN, Monitor
from tests.gateway.asynchronous import asynchronous
from tests.gateway.fakes import IDLE, FakeAdapter


class Watched:
    """Two engines and their monitor; `resized` holds how many were up after each change."""

    def __init__(self) -> None:
        self.now = 100.0
        self.adapters = [FakeAdapter("http://a"), FakeAdapter("http://b")]
        self.backends = Backends(self.adapters, batch_size=4, model="m")
        self.dispatcher = Placed("least-loaded", 2, 1, clock=self.clock)
        self.resized: list[int] = []
        self.monitor = Monitor(
            self.backends, self.dispatcher, resized=self.resized.append, clock=self.clock, seconds=1.0
        )

    def clock(self) -> float:
        return self.now

    def foreign(self) -> list[int]:
        return [state.foreign for state in self.dispatcher.engines()]

    async def look(self) -> None:
        """As each watch does when a look is due."""
        for watch in self.monitor.watches:
            watch.failed.clear()
        await self.monitor.first_look()


@asynchronous
async def test_who_answers_is_up() -> None:
    watched = Watched()
    watched.adapters[1].now = None
    await watched.look()
    assert (watched.backends.up, watched.resized) == ([True, False], [1])
    assert [state.role for state in watched.dispatcher.engines()] == ["placed", "down"]
    watched.adapters[0].now, watched.adapters[1].now = None, IDLE
    await watched.look()
    assert watched.backends.up == [False, True]
    assert watched.backends.facts[0] is None, "it is checked anew when it comes back"
    assert watched.backends.loads[0] is None


@asynchronous
async def test_one_that_serves_another_model_is_not_used() -> None:
    watched = Watched()
    facts = watched.adapters[0].facts
    assert facts is not None
    watched.adapters[0].facts = replace(facts, models=("other",))
    await watched.look()
    assert watched.backends.up == [False, True]
    assert watched.monitor.watches[0].problem == "it serves other, not m"
    watched.adapters[0].facts = facts
    await watched.look()
    assert watched.backends.up == [True, True]


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


@asynchronous
async def test_slots_that_an_engine_does_not_have_are_closed() -> None:
    watched = Watched()
    facts = watched.adapters[0].facts
    assert facts is not None
    watched.adapters[0].facts = replace(facts, slots=3)
    await watched.look()
    assert watched.foreign() == [1, 0]


@asynchronous
async def test_who_goes_on_failing_rests_for_longer_and_longer() -> None:
    watched = Watched()
    watch, rests = watched.monitor.watches[0], []
    for _ in range(6):
        await watched.look()
        watched.monitor.report_failure(0)
        assert not watched.backends.up[0]
        rests.append(watch.rests_until - watched.now)
        watched.now = watch.rests_until
    assert rests[0] < 1.0
    assert [round(rest) for rest in rests[1:]] == [1, 2, 4, LONGEST_COOLDOWN, LONGEST_COOLDOWN]
    watched.now += 60.0
    await watched.look()
    watched.monitor.back_off(0)
    assert watch.rests_until == watched.now + 1.0, "forgiven"


@asynchronous
async def test_an_answer_from_before_a_failure_brings_nobody_up() -> None:
    watched = Watched()
    await watched.look()
    watched.monitor.report_failure(0)
    await watched.monitor.first_look()
    assert watched.backends.up == [False, True]
