"""The gateway's choice of who starts where, beside one made anew from what lies on the engines."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from fluidgate import find_policy, plan
from fluidgate.compiled import by_reference
from fluidgate.gateway.dispatch.fleet import problems
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.homes import ENDLESS, FIND, SHOW, TURN, Asked, Homes, ask_homes
from fluidgate.gateway.dispatch.kv_books import KvBook
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.gateway.prefixes import PrefixIndex, chain_of_ids
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.policies.decisions.homes import new_places
from fluidgate.policies.decisions.placement import no_reuse
from fluidgate.policies.decisions.tables import Tables, coupled, paired
from fluidgate.policies.decisions.view import HOLD, STAY
from tests.scenarios import two_class_scenario

ENGINES = 3
SLOTS = 6
KV_TOKENS = 20_000


def tables(engines: int = ENGINES) -> Tables:
    caching = two_class_scenario()
    caching = caching.replace(engine=caching.engine.model_copy(update={"prefix_caching": True}))
    return coupled(find_policy("index-and-pool").tabulate(plan(caching, gpus=engines), engines), engines)


def gated(kv_tokens: int | None = KV_TOKENS, engines: int = ENGINES, **own: Any) -> Gated:
    made = Gated(
        tables(engines),
        engines,
        SLOTS,
        2,
        kv_tokens=kv_tokens,
        binding="stay",
        functions=find_policy("index-and-pool").with_functions("own", **own).functions,
        clock=lambda: 0.0,
        prefixes=PrefixIndex(100_000),
    )
    for g in range(engines):
        made.engine_up(g, 0)
    return made


def ticket(cls: int, stem: int, prefix: int, own: int, number: int = 0, key: str = "") -> Ticket:
    ids = [stem * 1_000_000 + k for k in range(prefix)] + [(number + 1) * 100_000_000 + k for k in range(own)]
    return Ticket(cls, prefix + own, chain=chain_of_ids(ids), key=key, stays=True)


class Anew:
    """The same by looking at every request there is."""

    def __init__(self, dispatcher: Gated, tickets: list[Ticket], of: Tables) -> None:
        self.dispatcher, self.tickets, self.tables, self.values = dispatcher, tickets, of, by_reference(of)
        self.asked = Asked(new_places(ENGINES), no_reuse(), np.zeros(1))
        self.state = by_reference(self.asked)
        self.book = [KvBook() for _ in range(ENGINES)]
        places = self.asked.places
        for each in tickets:
            if each.stage in (Stage.PREFILL, Stage.DECODE):
                output = self.output(each)
                places.decodes[each.engine] += 1
                places.context[each.engine] += each.prompt + round(0.5 * output)
                places.backlog[each.engine] += each.prompt - each.found(each.engine) if each.read == 0 else 0
                self.book[each.engine].add(each, output)
        for g in range(ENGINES):
            places.free[g] = KV_TOKENS - round(self.book[g].tokens)
            ask_homes(self.state, self.values, SHOW, g, 1, 0)

    def output(self, each: Ticket) -> float:
        return float(self.tables.expected_output[each.cls])

    def know(self, each: Ticket) -> None:
        reuse = self.dispatcher.prefixes.found(each.chain, each.prompt, self.dispatcher.takes)  # type: ignore[union-attr, arg-type]
        for mine, its in zip(self.asked.reuse, reuse, strict=True):
            mine[:] = its

    def in_turn(self) -> list[Ticket]:
        """All who wait in order: classes with an index by what a second brings, shelf by shelf; others as they came."""
        order: list[Ticket] = []
        lines: list[list[Ticket]] = []
        for cls in range(2):
            here = [each for each in self.tickets if each.stage is Stage.WAITING and each.cls == cls]
            lines.append(sorted(here, key=lambda each: each.shelf))
        while any(lines):
            best, most = 0, -np.inf
            for cls, line in enumerate(lines):
                if line:
                    self.know(line[0])
                    self.asked.turn[0] = line[0].since
                    ask_homes(self.state, self.values, TURN, 0, cls, line[0].prompt)
                    if self.asked.turn[0] > most:
                        best, most = cls, float(self.asked.turn[0])
            order.append(lines[best].pop(0))
        return order

    def choice(self) -> tuple[Ticket, int] | None:
        board = self.dispatcher.fleet.board
        places = self.asked.places
        ready = int(board.prefill_ready[0]) if board.state.startable[0] > 0 else NOWHERE
        busy = [other.engine for other in self.tickets if other.stage is Stage.PREFILL]
        wanted: set[int] = set()
        for each in self.in_turn():
            self.know(each)
            for g in range(ENGINES):
                places.short[g] = round(self.book[g].needs(each, self.output(each))) - places.free[g]
            g, takes = divmod(int(ask_homes(self.state, self.values, FIND, ready, each.cls, each.prompt)), 2)
            full = len(self.book[g]) and self.book[g].tokens + self.book[g].needs(each, self.output(each)) > KV_TOKENS
            if takes and g not in busy and g not in wanted and places.decodes[g] < SLOTS and not full:
                return each, g
            wanted.add(g)
            found = each.found(g)
            places.decodes[g] += 1
            places.context[g] += each.prompt
            places.backlog[g] += each.prompt - found
            ask_homes(self.state, self.values, SHOW, g, 1, 0)
        return None


@pytest.mark.parametrize("seed", range(4))
def test_who_starts_where_is_what_the_simulators_functions_say(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(seed)
    tickets: list[Ticket] = []
    starts = waited = 0

    async def run() -> None:
        nonlocal starts, waited
        dispatcher = gated()
        of = dispatcher.tables
        shipped = Homes.next_start

        def next_start(self: Homes, *given: object) -> tuple[Ticket, int] | None:
            nonlocal starts, waited
            chosen = shipped(self, *given)  # type: ignore[arg-type]
            here = [each for each in tickets if each.stage is not Stage.NEW]
            anew = Anew(dispatcher, here, of)
            if dispatcher.fleet.board.state.startable[0] > 0:
                assert self._asked.places.context.tolist() == anew.asked.places.context.tolist()
                assert self._asked.places.backlog.tolist() == anew.asked.places.backlog.tolist()
                assert self._asked.places.free.tolist() == anew.asked.places.free.tolist()
                assert self._asked.places.keys == pytest.approx(anew.asked.places.keys)
                waited += chosen is None and any(each.stage is Stage.WAITING for each in here)
            assert chosen == anew.choice()
            starts += chosen is not None
            return chosen

        monkeypatch.setattr(Homes, "next_start", next_start)
        for step in range(120):
            reading = [each for each in tickets if each.stage is Stage.PREFILL]
            writing = [each for each in tickets if each.stage is Stage.DECODE]
            waiting = [each for each in tickets if each.stage is Stage.WAITING]
            what = random.choice(["come", "come", "read", "leave", "give up"], p=[0.3, 0.15, 0.35, 0.15, 0.05])
            if what == "come" and len(waiting) < 14:
                new = ticket(
                    int(random.integers(2)), int(random.integers(4)), 2_400, int(random.integers(1, 900)), step
                )
                tickets.append(new)
                dispatcher.enter(new)
            elif what == "read" and reading:
                each = reading[random.integers(len(reading))]
                dispatcher.prompt_read(each, each.prompt)
            elif what == "leave" and writing:
                dispatcher.leave(writing[random.integers(len(writing))])
            elif what == "give up" and waiting:
                dispatcher.leave(waiting[random.integers(len(waiting))], abandoned=True)
            assert not problems(dispatcher.fleet)
        monkeypatch.setattr(Homes, "next_start", shipped)
        for each in tickets:
            dispatcher.leave(each)
        homes = dispatcher._homes
        assert homes is not None
        assert not homes._asked.places.context.any()
        assert not homes._asked.places.backlog.any()
        assert not homes._lying
        assert not homes._alike

    asyncio.run(run())
    assert starts > 20
    assert waited > 0


def test_the_next_turn_waits_for_the_engine_that_has_its_beginning() -> None:
    async def run() -> None:
        dispatcher = gated(None)
        first = ticket(0, 1, 8_000, 16)
        dispatcher.enter(first)
        home = first.engine
        dispatcher.prompt_read(first, first.prompt)
        dispatcher.leave(first)
        other = ticket(1, 2, 4_000, 16, 2)
        dispatcher.go_beside(ticket(1, 3, 16, 16, 3), (home + 1) % ENGINES)
        dispatcher.enter(other)
        while other.engine != home:  # somebody reads there
            other = ticket(1, 2 + other.prompt, other.prompt + 16, 16, other.prompt)
            dispatcher.enter(other)
        again = ticket(0, 1, 8_000, 32, 5)
        dispatcher.enter(again)
        assert again.stage is Stage.WAITING
        dispatcher.prompt_read(other, other.prompt)
        assert (again.stage, again.engine) == (Stage.PREFILL, home)

    asyncio.run(run())


def test_those_that_begin_alike_find_each_other_while_they_wait() -> None:
    """None of them has it when they come; once the first is sent, the others go where it went."""

    async def run() -> None:
        dispatcher = gated(None, engines=2)
        for g in range(2):
            dispatcher.enter(ticket(1, 50 + g, 6_000, 16, 50 + g))
        alike = [ticket(0, 1, 8_000, 16, k) for k in range(3)]
        reading = list(dispatcher._homes._lying)  # type: ignore[union-attr]
        for each in alike:
            dispatcher.enter(each)
        assert all(each.stage is Stage.WAITING for each in alike)
        dispatcher.prompt_read(reading[0], reading[0].prompt)
        began = [each for each in alike if each.stage is Stage.PREFILL]
        assert [each.engine for each in began] == [reading[0].engine]
        dispatcher.prompt_read(reading[1], reading[1].prompt)
        assert [each for each in alike if each.stage is Stage.PREFILL] == began
        dispatcher.prompt_read(began[0], began[0].prompt)
        second = next(each for each in alike if each.stage is Stage.PREFILL)
        assert second.engine == began[0].engine
        assert second.found(second.engine) >= 8_000

    asyncio.run(run())


def test_what_begins_alike_is_booked_once() -> None:
    book = KvBook()
    one, other = ticket(0, 1, 1_600, 160, 1), ticket(0, 1, 1_600, 80, 2)
    assert book.needs(one, 100.0) == pytest.approx(1_860.0)
    book.add(one, 100.0)
    assert book.needs(other, 100.0) == pytest.approx(180.0)
    book.add(other, 100.0)
    assert book.tokens == pytest.approx(1_860.0 + 180.0)
    book.remove(one)
    assert book.tokens == pytest.approx(1_600.0 + 180.0)
    book.remove(other)
    assert book.tokens == 0.0


def test_keys_take_turns() -> None:
    """A key with one request goes before the second of one with many, whatever is there of them."""

    async def run() -> None:
        dispatcher = gated(None, engines=1)
        reader = ticket(0, 1, 800, 16, 0, "many")
        dispatcher.enter(reader)
        many = [ticket(0, 1, 800, 16, k, "many") for k in range(1, 4)]
        for each in many:
            dispatcher.enter(each)
        one = ticket(0, 2, 3_200, 16, 9, "one")
        dispatcher.enter(one)
        order: list[str] = []
        here = reader
        for _ in range(3):
            dispatcher.prompt_read(here, here.prompt)
            here = next(each for each in [*many, one] if each.stage is Stage.PREFILL)
            order.append(here.key)
        assert order[:2].count("one") == 1
        assert dispatcher.waiting_of("many") == 1

    asyncio.run(run())


def test_pairs_and_late_decodes_choose_a_place_by_itself() -> None:
    of = tables()
    assert of.homing
    assert not paired(of).homing
    late = Gated(of, 2, SLOTS, 2, binding="late", clock=lambda: 0.0, prefixes=PrefixIndex(1_000))
    assert late._homes is None


def test_memory_of_unknown_size_is_endless() -> None:
    async def run() -> None:
        dispatcher = gated(None)
        each = ticket(0, 1, 800, 16)
        dispatcher.enter(each)
        dispatcher.prompt_read(each, each.prompt)
        other = ticket(0, 2, 800, 16)
        dispatcher.enter(other)
        homes = dispatcher._homes
        assert homes is not None
        assert (homes._asked.places.free == ENDLESS).all()

    asyncio.run(run())


def second_class_alone(view, tables):  # type: ignore[no-untyped-def]
    return 1 if view.waiting[1] > 0 else HOLD


def stays(view, tables, cls, draw):  # type: ignore[no-untyped-def]
    return STAY


def test_a_gate_of_a_users_own_is_asked_in_the_place_of_homes() -> None:
    async def stages() -> list[Stage]:
        made = gated(gate=second_class_alone)
        tickets = [ticket(cls, cls, 64, 64, number=cls) for cls in (0, 1)]
        for each in tickets:
            made.enter(each)
        return [each.stage for each in tickets]

    assert asyncio.run(stages()) == [Stage.WAITING, Stage.PREFILL]


def test_with_another_function_of_a_users_own_homes_decide() -> None:
    async def engines() -> set[int]:
        made = gated(route=stays)
        tickets = [ticket(0, 7, 2048, 64, number=number) for number in range(3)]
        for each in tickets:
            made.enter(each)
            made.prompt_read(each, 2112)
        return {each.engine for each in tickets}

    assert len(asyncio.run(engines())) == 1
