"""The books of the dispatcher under everything that can happen, in any order."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fluidgate.gateway.dispatch.fleet import problems
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.placed import Placed
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.planning import plan
from fluidgate.policies import find_policy
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.policies.decisions.tables import RouteRule, Tables, coupled
from fluidgate.policies.decisions.view import MIXED, SOLO
from fluidgate.replanning import Estimator
from tests.scenarios import two_class_scenario

ENGINES, BATCH, CLASSES = 3, 3, 2
POLICIES = ("gate-and-route", "index-and-pool", "prioritize-and-route", "sli-aware-general", "fi-wsp")
SCENARIO = two_class_scenario()


def tables_of(policy: str, engines: int) -> Tables:
    chosen = find_policy(policy)
    scheme, buffer = chosen.program.key(SCENARIO)
    return chosen.tabulate(plan(SCENARIO, gpus=engines, scheme=scheme, allow_decode_buffer=buffer), engines)


TABLES = {(policy, n): tables_of(policy, n) for policy in POLICIES for n in range(1, ENGINES + 1)}


class Books(RuleBasedStateMachine):
    """A dispatcher and what a reader of its tickets would expect of it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        asyncio._set_running_loop(self.loop)  # tickets make futures; nothing runs
        self.now = 0.0
        self.alive: list[Ticket] = []
        self.up = [False] * ENGINES
        self.foreign = [0] * ENGINES
        self.arrivals = 0
        self.done = 0

    def teardown(self) -> None:
        asyncio._set_running_loop(None)
        self.loop.close()

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def at(self, *stages: Stage) -> list[Ticket]:
        return [ticket for ticket in self.alive if ticket.stage in stages]

    @initialize(
        policy=st.sampled_from(POLICIES),
        binding=st.sampled_from(["late", "early", "stay"]),
        memory=st.sampled_from([None, 2500]),
        keys=st.sampled_from([("",), ("", "a", "b")]),
    )
    def begin(self, policy: str, binding: str, memory: int | None, keys: tuple[str, ...]) -> None:
        self.binding = binding
        self.keys = keys
        self.estimator = Estimator(SCENARIO, ENGINES, window=50.0, prior=0.0)
        self.dispatcher = Gated(
            self.tables(policy),
            ENGINES,
            BATCH,
            CLASSES,
            kv_tokens=memory,
            binding=binding,
            estimator=self.estimator,
            clock=self.tick,
        )
        for g in range(ENGINES):
            self.engine_up(g, 0)

    def tables(self, policy: str) -> Tables:
        n = max(1, sum(self.up))
        made = TABLES[policy, n]
        return coupled(made, n) if self.binding == "stay" else made

    @rule(cls=st.integers(0, CLASSES - 1), stays=st.booleans(), key=st.integers(0, 2))
    def enter(self, cls: int, stays: bool, key: int) -> None:
        ticket = Ticket(cls, 10, stays=stays, key=self.keys[key % len(self.keys)], weight=1.0 + key)
        self.alive.append(ticket)
        self.arrivals += 1
        self.dispatcher.enter(ticket)

    @precondition(lambda self: self.at(Stage.PREFILL))
    @rule(k=st.integers(0, 100))
    def prompt_read(self, k: int) -> None:
        ticket = (reading := self.at(Stage.PREFILL))[k % len(reading)]
        now = self.dispatcher.prompt_read(ticket, 10)
        assert now == (ticket.stage is Stage.DECODE)
        if now and (ticket.stays or self.binding == "stay"):
            assert ticket.decode_engine == ticket.engine

    @precondition(lambda self: self.alive)
    @rule(k=st.integers(0, 100), abandoned=st.booleans())
    def leave(self, k: int, abandoned: bool) -> None:
        ticket = self.alive.pop(k % len(self.alive))
        waits = ticket.stage in (Stage.WAITING, Stage.BUFFERED)
        for _ in range(2):
            self.dispatcher.leave(ticket, abandoned=abandoned and waits)
        assert ticket.stage is Stage.DONE
        self.done += 1

    @precondition(lambda self: self.at(Stage.PREFILL, Stage.BUFFERED, Stage.DECODE))
    @rule(k=st.integers(0, 100))
    def enter_again(self, k: int) -> None:
        held = self.at(Stage.PREFILL, Stage.BUFFERED, Stage.DECODE)
        self.dispatcher.enter_again(held[k % len(held)])

    @rule(g=st.integers(0, ENGINES - 1), foreign=st.integers(0, BATCH + 1))
    def engine_up(self, g: int, foreign: int) -> None:
        if not self.up[g]:
            self.up[g], self.foreign[g] = True, min(foreign, BATCH)
            self.dispatcher.engine_up(g, foreign)

    @rule(g=st.integers(0, ENGINES - 1))
    def engine_down(self, g: int) -> None:
        if self.up[g]:
            self.up[g] = False
            self.dispatcher.engine_down(g)

    @rule(g=st.integers(0, ENGINES - 1), foreign=st.integers(0, BATCH + 1))
    def set_foreign(self, g: int, foreign: int) -> None:
        if self.up[g]:
            self.foreign[g] = min(foreign, BATCH)
            self.dispatcher.set_foreign(g, foreign)

    @rule(policy=st.sampled_from(POLICIES))
    def adopt(self, policy: str) -> None:
        """Nobody in flight is moved, dropped or overtaken; who waits may start."""
        before = [(t, t.stage, t.engine, t.decode_engine) for t in self.alive]
        lines = self.lines_by_key()
        self.dispatcher.adopt(self.tables(policy))
        for ticket, stage, engine, decode in before:
            if stage in (Stage.PREFILL, Stage.DECODE):
                assert (ticket.stage, ticket.engine, ticket.decode_engine) == (stage, engine, decode)
        for old, new in zip(lines, self.lines_by_key(), strict=True):
            started = len(old) - len(new)
            assert new == old[started:], "those ahead start first"
            assert all(ticket.stage is not Stage.WAITING for ticket in old[:started])

    def lines_by_key(self) -> list[list[Ticket]]:
        return [[t for t in line if t.key == key] for line in self.dispatcher._waiting for key in self.keys]

    @invariant()
    def books_agree(self) -> None:
        if self.arrivals == 0:
            return
        fleet = self.dispatcher.fleet
        assert problems(fleet) == []
        counts = self.dispatcher.counts()
        seen = Counter((ticket.stage, ticket.cls) for ticket in self.alive)
        for cls in range(CLASSES):
            assert counts.waiting[cls] == seen[Stage.WAITING, cls] == len(self.dispatcher._waiting[cls])
            assert counts.prefilling[cls] == seen[Stage.PREFILL, cls]
            assert counts.buffered[cls] == seen[Stage.BUFFERED, cls]
            early = sum(t.cls == cls and t.stage is Stage.PREFILL and t.decode_engine >= 0 for t in self.alive)
            assert counts.mixed_decodes[cls] + counts.solo_decodes[cls] == seen[Stage.DECODE, cls] + early
        assert len(self.alive) + self.done == self.arrivals
        for key in self.keys:
            assert self.dispatcher.waiting_of(key) == sum(t.key == key for t in self.at(Stage.WAITING))
        for g in range(ENGINES):
            assert fleet.gpu["kv"][g] == sum(ticket.booked for ticket in self.alive if ticket.kept == g)

    @invariant()
    def nothing_is_beyond_capacity(self) -> None:
        if self.arrivals == 0:
            return
        for g in range(ENGINES):
            prefills = [t for t in self.alive if t.stage is Stage.PREFILL and t.engine == g]
            decodes = [t for t in self.alive if t.stage is Stage.DECODE and t.decode_engine == g]
            booked = [t for t in self.alive if t.stage is Stage.PREFILL and t.decode_engine == g]
            assert len(prefills) <= 1
            assert len(prefills) + len(decodes) + len(booked) == self.dispatcher.held(g) <= BATCH
            closed = int(self.dispatcher.fleet.gpu["closed"][g])
            assert closed == (self.foreign[g] if self.up[g] else BATCH)

    @invariant()
    def turns_are_granted_once(self) -> None:
        for ticket in self.alive:
            assert ticket.turn is not None
            waits = ticket.stage in (Stage.WAITING, Stage.BUFFERED)
            assert ticket.turn.done() != waits
            if ticket.stage is Stage.PREFILL:
                assert ticket.turn.result() == ticket.engine

    @invariant()
    def queues_are_in_order(self) -> None:
        """First come, first served within a class and key, those sent back among them by their first arrival."""
        if self.arrivals == 0:
            return
        for mine in self.lines_by_key():
            arrived = [ticket.arrived for ticket in mine]
            assert arrived == sorted(arrived)
        for cls, line in enumerate(self.dispatcher._waiting):
            head = line.head
            assert head is None or head in self.firsts(cls)
            since = np.inf if head is None else head.since
            assert self.dispatcher.fleet.board.state.waiting_since[cls] == since
            if head is not None and self.dispatcher.fleet.kv_tokens > 0:
                assert self.dispatcher.fleet.need[cls] == self.dispatcher._expected(head)
        for buffer, lines in enumerate(self.dispatcher._buffered):
            for cls, line in enumerate(lines):
                since = [ticket.since for ticket in line]
                assert since == sorted(since)
                assert self.dispatcher.fleet.board.state.buffered_since[buffer, cls] == (since[0] if since else np.inf)

    def firsts(self, cls: int) -> list[Ticket]:
        """The first of each key that wait."""
        waiting = [[t for t in self.dispatcher._waiting[cls] if t.key == key] for key in self.keys]
        return [mine[0] for mine in waiting if mine]

    @invariant()
    def waits_are_balanced(self) -> None:
        """The estimator knows who waits, but for those that were sent back: they have been served once."""
        if self.arrivals == 0:
            return
        again = self.dispatcher._again
        waiting = Counter(
            t.cls for t in self.alive if t.stage is Stage.BUFFERED or (t.stage is Stage.WAITING and t not in again)
        )
        assert self.estimator.rows["waiting"].tolist() == [waiting[cls] for cls in range(CLASSES)]
        assert again <= set(self.alive)

    @invariant()
    def no_slot_idles_that_the_policy_would_fill(self) -> None:
        """Gate-and-route: no decode waits while a slot of its is free, and no prefill while it may start."""
        if self.arrivals == 0:
            return
        tables, state, d = self.dispatcher.tables, self.dispatcher.fleet.board.state, self.dispatcher
        before = [(t, t.stage) for t in self.alive]
        d._then(0)
        assert [(t, t.stage) for t in self.alive] == before, "all that may start has started"
        if int(tables.route_rule) == RouteRule.SOLO_FIRST and not tables.split_buffers and tables.ready == 0:
            assert state.buffered.sum() == 0 or state.free.tolist() == [0, 0]

    @invariant()
    def solo_engines_run_no_prefill(self) -> None:
        if self.arrivals == 0:
            return
        gpu = self.dispatcher.fleet.gpu
        assert not ((gpu["group"] == SOLO) & (gpu["prefill_seat"] != NOWHERE)).any()
        mixed = int(((gpu["group"] == MIXED) & (gpu["leaving"] == 0)).sum())
        assert mixed == min(int(self.dispatcher.tables.mixed_gpus), sum(self.up))


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.mark.parametrize("rule_name", ["round-robin", "least-loaded", "lmetric"])
def test_a_placement_counts_requests_of_others_and_skips_engines_that_are_down(rule_name: str) -> None:
    rng = np.random.default_rng(5)

    async def run() -> None:
        placed = Placed(rule_name, 3, 1, clock=lambda: 0.0)
        placed.engine_up(0, 2)
        placed.engine_up(1, 0)
        placed.engine_up(2, 0)
        placed.engine_down(1)
        taken = []
        for _ in range(6):
            ticket = Ticket(0, int(rng.integers(90, 110)))
            placed.enter(ticket)
            taken.append(ticket.engine)
        expected = {
            "round-robin": [0, 2, 0, 2, 0, 2],
            "least-loaded": [2, 2, 0, 2, 0, 2],
            "lmetric": [2, 0, 2, 0, 2, 0],
        }[rule_name]
        assert taken == expected

    asyncio.run(run())


class PlacedBooks(RuleBasedStateMachine):
    """A placement loses nobody, whatever its engines do."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        asyncio._set_running_loop(self.loop)
        self.alive: list[Ticket] = []
        self.up = [False] * ENGINES

    def teardown(self) -> None:
        asyncio._set_running_loop(None)
        self.loop.close()

    @initialize(name=st.sampled_from(["round-robin", "least-loaded", "power-of-two", "lmetric"]))
    def begin(self, name: str) -> None:
        self.placed = Placed(name, ENGINES, CLASSES, clock=lambda: 0.0)

    @rule(cls=st.integers(0, CLASSES - 1), prompt=st.integers(1, 500), key=st.sampled_from(["", "a"]))
    def enter(self, cls: int, prompt: int, key: str) -> None:
        ticket = Ticket(cls, prompt, key=key)
        self.alive.append(ticket)
        self.placed.enter(ticket)

    @precondition(lambda self: any(t.stage is Stage.PREFILL for t in self.alive))
    @rule(k=st.integers(0, 100))
    def prompt_read(self, k: int) -> None:
        reading = [t for t in self.alive if t.stage is Stage.PREFILL]
        assert self.placed.prompt_read(reading[k % len(reading)], 10)

    @precondition(lambda self: self.alive)
    @rule(k=st.integers(0, 100))
    def leave(self, k: int) -> None:
        ticket = self.alive.pop(k % len(self.alive))
        for _ in range(2):
            self.placed.leave(ticket)

    @precondition(lambda self: any(t.stage is not Stage.WAITING for t in self.alive))
    @rule(k=st.integers(0, 100))
    def enter_again(self, k: int) -> None:
        held = [t for t in self.alive if t.stage is not Stage.WAITING]
        self.placed.enter_again(held[k % len(held)])

    @rule(g=st.integers(0, ENGINES - 1), foreign=st.integers(0, 9))
    def engine_up(self, g: int, foreign: int) -> None:
        self.up[g] = True
        self.placed.engine_up(g, foreign)

    @rule(g=st.integers(0, ENGINES - 1))
    def engine_down(self, g: int) -> None:
        self.up[g] = False
        self.placed.engine_down(g)

    @invariant()
    def books_agree(self) -> None:
        if not self.alive:
            return
        counts = self.placed.counts()
        for cls in range(CLASSES):
            mine = [t.stage for t in self.alive if t.cls == cls]
            assert counts.waiting[cls] == mine.count(Stage.WAITING)
            assert counts.prefilling[cls] == mine.count(Stage.PREFILL)
            assert counts.mixed_decodes[cls] + counts.solo_decodes[cls] == mine.count(Stage.DECODE)
            assert self.placed._unread_by_class[cls] == mine.count(Stage.WAITING) + mine.count(Stage.PREFILL)
        for key in ("", "a"):
            unread = [t for t in self.alive if t.key == key and t.stage in (Stage.WAITING, Stage.PREFILL)]
            assert self.placed.waiting_of(key) == len(unread)
        for g in range(ENGINES):
            on = [t for t in self.alive if t.stage in (Stage.PREFILL, Stage.DECODE) and t.engine == g]
            assert self.placed.held(g) == len(on)
            assert self.placed._loads.unread(g) == sum(t.prompt for t in on if t.stage is Stage.PREFILL)
        assert not (any(self.up) and any(t.stage is Stage.WAITING for t in self.alive)), "nobody waits for no reason"


TestPlacedBooks = PlacedBooks.TestCase
TestPlacedBooks.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
