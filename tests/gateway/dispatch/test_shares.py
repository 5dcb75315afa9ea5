"""Keys of one class before the dispatcher, in virtual time: who waits for whom, and who gets how much."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

import pytest

from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.planning import plan
from fluidgate.policies import find_policy
from tests.scenarios import two_class_scenario

SCENARIO = two_class_scenario()
PREFILL, TOKEN = 0.1, 0.0005
"""s for a prompt, and for each token of an answer."""
OUTPUT = int(SCENARIO.classes[0].output_tokens)


class Granted(Ticket):
    """Tells when its turn comes."""

    __slots__ = ("granted",)
    granted: list[Ticket]

    def go(self, engine: int) -> None:
        super().go(engine)
        self.granted.append(self)


class Cluster:
    """Engines that read every prompt in the same time and write every token in the same time."""

    def __init__(self, engines: int = 1, batch: int = 4, policy: str = "index-and-pool") -> None:
        tables = find_policy(policy).tabulate(plan(SCENARIO, gpus=engines), engines)
        self.now = 0.0
        self.dispatcher = Gated(tables, engines, batch, 2, clock=lambda: self.now)
        for g in range(engines):
            self.dispatcher.engine_up(g, 0)
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = count()
        self.started: dict[Ticket, float] = {}
        self.tokens: Counter[str] = Counter()
        self.output: dict[Ticket, int] = {}
        self.granted: list[Ticket] = []

    def at(self, epoch: float, what: Callable[[], None]) -> None:
        heappush(self.events, (epoch, next(self.order), what))

    def arrive(
        self, key: str, *, weight: float = 1.0, prompt: int = 100, output: int = OUTPUT, most_output: float = math.inf
    ) -> Ticket:
        ticket = Granted(0, prompt, most_output=most_output, key=key, weight=weight)
        ticket.granted = self.granted
        self.output[ticket] = output
        self.dispatcher.enter(ticket)
        self.look()
        return ticket

    def look(self) -> None:
        """See who has started."""
        while self.granted:
            ticket = self.granted.pop(0)
            if ticket.stage is Stage.PREFILL:
                self.started.setdefault(ticket, self.now)
                self.at(self.now + PREFILL, lambda t=ticket: self.read(t))  # type: ignore[misc]
            else:
                self.write(ticket)

    def read(self, ticket: Ticket) -> None:
        if ticket.stage is not Stage.PREFILL:
            return
        if self.dispatcher.prompt_read(ticket, ticket.prompt):
            self.write(ticket)

    def write(self, ticket: Ticket) -> None:
        self.at(self.now + TOKEN * self.output[ticket], lambda: self.end(ticket))

    def end(self, ticket: Ticket) -> None:
        if ticket.stage is Stage.DECODE:
            self.tokens[ticket.key] += ticket.prompt + self.output[ticket]
            self.dispatcher.note_completed(ticket, self.output[ticket])
            self.dispatcher.leave(ticket)

    def lose(self, ticket: Ticket) -> None:
        """Its engine has failed it."""
        self.dispatcher.enter_again(ticket)
        self.look()

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heappop(self.events)
            what()
            self.look()
        self.now = until


def in_a_loop(test: Callable[[], None]) -> Callable[[], None]:
    """Tickets make futures; nothing runs but the test."""

    async def run() -> None:
        test()

    def wrapped() -> None:
        asyncio.run(run())

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


@in_a_loop
def test_one_keys_400_requests_let_anothers_through_after_one() -> None:
    cluster = Cluster()
    first = [cluster.arrive("a") for _ in range(400)]
    cluster.run(5.0)
    before = len(cluster.started)
    assert 5 < before < 60
    lone = cluster.arrive("b")
    cluster.run(10.0)
    order = sorted(cluster.started, key=cluster.started.__getitem__)
    assert order.index(lone) <= before + 1
    assert cluster.started[lone] - 5.0 <= 2 * (PREFILL + TOKEN * OUTPUT)
    assert sum(t.stage is Stage.WAITING for t in first) > 300


@pytest.mark.parametrize("engines", [1, 3])
def test_shares_follow_weights(engines: int) -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 4.0}

    @in_a_loop
    def run() -> None:
        cluster = Cluster(engines)
        for k in range(500 * engines):
            for key, weight in weights.items():
                cluster.arrive(key, weight=weight, prompt=50 + 137 * k % 900, output=OUTPUT // 2 + 313 * k % OUTPUT)
        cluster.run(80.0)
        assert all(cluster.dispatcher.waiting_of(key) for key in weights), "all have waited throughout"
        total = sum(cluster.tokens.values())
        for key, weight in weights.items():
            assert cluster.tokens[key] / total == pytest.approx(weight / 7.0, rel=0.03)

    run()


@in_a_loop
def test_a_key_that_writes_more_than_its_class_gets_no_more_tokens() -> None:
    """Answers twice as long as the class's mean, beside some of a tenth of it."""
    cluster = Cluster()
    for _ in range(1000):
        cluster.arrive("long", output=2 * OUTPUT)
        cluster.arrive("short", output=OUTPUT // 10)
    cluster.run(100.0)
    assert all(cluster.dispatcher.waiting_of(key) for key in ("long", "short"))
    assert cluster.tokens["long"] / cluster.tokens["short"] == pytest.approx(1.0, rel=0.05)


@in_a_loop
def test_short_answers_that_were_asked_for_are_cheap_from_the_first() -> None:
    """Nobody knows yet how long the answers are, but for what they may have at most."""
    cluster = Cluster(batch=16)
    for _ in range(50):
        cluster.arrive("short", most_output=20, output=20)
        cluster.arrive("long")
    cluster.run(9 * PREFILL + PREFILL / 2)
    order = sorted(cluster.started, key=cluster.started.__getitem__)
    assert [ticket.key for ticket in order] == ["short", "long", *["short"] * 8]


@in_a_loop
def test_a_key_that_was_away_has_saved_nothing() -> None:
    cluster = Cluster()
    for _ in range(1000):
        cluster.arrive("a")
    cluster.run(60.0)
    cluster.tokens.clear()
    for _ in range(500):
        cluster.arrive("b")
    cluster.run(120.0)
    assert cluster.tokens["b"] == pytest.approx(cluster.tokens["a"], rel=0.06)


@in_a_loop
def test_nobody_starves() -> None:
    """A key of little weight and long prompts beside one that keeps the line full."""
    cluster = Cluster()
    slow = [cluster.arrive("little", weight=0.1, prompt=500) for _ in range(5)]
    served = count()

    def refill() -> None:
        while cluster.dispatcher.waiting_of("much") < 20:
            cluster.arrive("much", weight=10.0)
        if next(served) < 3000:
            cluster.at(cluster.now + 1.0, refill)

    refill()
    cluster.run(3000.0)
    assert all(ticket.stage is Stage.DONE for ticket in slow)


@in_a_loop
def test_who_was_sent_back_goes_first_and_pays_once() -> None:
    cluster = Cluster()
    for _ in range(400):
        cluster.arrive("a")
        cluster.arrive("b")
    cluster.run(2.05)
    lost = next(t for t in cluster.started if t.stage is Stage.PREFILL)
    account = lost.account
    assert account is not None
    before = account.tag
    cluster.lose(lost)
    assert (lost.stage, lost.attempts) == (Stage.PREFILL, 2), "its place is free, and it is the first to take it"
    assert account.tag == before
    cluster.run(100.0)
    assert cluster.tokens["a"] == pytest.approx(cluster.tokens["b"], rel=0.03)


@in_a_loop
def test_without_keys_it_is_first_come_first_served() -> None:
    cluster = Cluster(3)
    tickets = [cluster.arrive("", prompt=10 + 91 * k % 300, output=1 + 117 * k % OUTPUT) for k in range(300)]
    cluster.run(1000.0)
    times = [cluster.started[ticket] for ticket in tickets]
    assert times == sorted(times)
    assert all(ticket.stage is Stage.DONE for ticket in tickets)
