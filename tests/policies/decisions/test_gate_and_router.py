"""The decision functions, one situation at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluidgate.compiled import entry_point
from fluidgate.policies import GateRule, RefillRule, RouteRule, Tables
from fluidgate.policies.decisions import gate as gate_module
from fluidgate.policies.decisions import router
from fluidgate.policies.decisions.tables import no_homes, no_limits
from fluidgate.policies.decisions.view import HOLD, MIXED, SOLO, STAY, WAIT, View

_gate, _route, _refill = gate_module.gate, router.route, router.refill


@entry_point
def gate(view, tables):  # type: ignore[no-untyped-def]
    return _gate(view, tables)


@entry_point
def route(view, tables, cls, draw):  # type: ignore[no-untyped-def]
    return _route(view, tables, cls, draw)


@entry_point
def refill(view, tables, group, draw):  # type: ignore[no-untyped-def]
    return _refill(view, tables, group, draw)


def view(**given: Any) -> View:
    """Three classes, nobody there, unless said otherwise."""
    counts = {
        "waiting",
        "prefilling",
        "buffered",
        "mixed_decodes",
        "solo_decodes",
        "free",
        "startable",
        "room",
        "beside",
    }
    defaults: dict[str, Any] = {
        "gpus": 10,
        "batch_size": 4,
        "waiting": [0, 0, 0],
        "prefilling": [0, 0, 0],
        "buffered": [[0, 0, 0], [0, 0, 0]],
        "mixed_decodes": [0, 0, 0],
        "solo_decodes": [0, 0, 0],
        "waiting_since": [np.inf] * 3,
        "buffered_since": [[np.inf] * 3, [np.inf] * 3],
        "free": [1, 1],
        "startable": [1],
        "room": [1],
        "beside": [0],
        "now": [0.0],
        "excess": np.zeros((5, 3)),
        "pace": np.full(6, np.nan),
    } | given
    return View(
        **{
            name: np.array(value, np.int64 if name in counts else np.float64) if isinstance(value, list) else value
            for name, value in defaults.items()
        }
    )


def tables(**given: Any) -> Tables:
    defaults: dict[str, Any] = {
        "mixed_gpus": 5,
        "reserve": True,
        "max_prefills": 5,
        "gate_rule": int(GateRule.OCCUPANCY),
        "route_rule": int(RouteRule.SOLO_FIRST),
        "refill_rule": int(RefillRule.FCFS),
        "target_prefill": np.array([2.0, 1.0, 0.0]),
        "target_queue": np.array([0.0, 0.0, 0.0]),
        "cap": np.full(3, 1 << 60),
        "priority": np.array([1.0, 3.0, 2.0]),
        "deadline": np.full(3, np.inf),
        "solo_probability": np.array([0.25, 0.0, 1.0]),
        "split_buffers": False,
        "weights": np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]]),
        "hold": np.zeros(3, np.int64),
        "ready": 0,
        "spare": -1,
        "fewest": False,
        "expected_output": np.zeros(3),
        **no_limits(3),
        **no_homes(3),
    } | given
    return Tables(**defaults)


class TestOccupancyGate:
    def test_least_share_of_its_target_first(self) -> None:
        assert gate(view(waiting=[1, 1, 0], prefilling=[1, 1, 0]), tables()) == 0
        assert gate(view(waiting=[1, 1, 0], prefilling=[3, 1, 0]), tables()) == 1

    def test_nobody_waiting_holds(self) -> None:
        assert gate(view(), tables()) == HOLD

    def test_tie_goes_to_the_queue_furthest_above_its_target(self) -> None:
        tied = {"prefilling": [2, 1, 0], "waiting": [4, 3, 0]}
        assert gate(view(**tied), tables()) == 0
        assert gate(view(**tied), tables(target_queue=np.array([2.0, 0.0, 0.0]))) == 1

    def test_tie_within_rounding_is_a_tie(self) -> None:
        targets = np.array([0.3, 0.1, 0.0]) * 10
        assert gate(view(prefilling=[3, 1, 0], waiting=[1, 2, 0]), tables(target_prefill=targets)) == 1

    def test_class_without_target_only_when_no_other_waits(self) -> None:
        assert gate(view(waiting=[1, 0, 9], prefilling=[4, 0, 0]), tables()) == 0
        assert gate(view(waiting=[0, 0, 9], prefilling=[4, 0, 0]), tables()) == 2

    def test_class_without_target_never_ties_with_one_that_has(self) -> None:
        assert gate(view(waiting=[1, 0, 9], prefilling=[0, 0, 0]), tables()) == 0

    def test_caps(self) -> None:
        full = {"waiting": [5, 5, 0], "prefilling": [2, 1, 0]}
        assert gate(view(**full), tables(cap=np.array([2, 1, 0]))) == HOLD
        assert gate(view(**full), tables(cap=np.array([2, 2, 0]))) == 1
        assert gate(view(**full), tables(max_prefills=3)) == HOLD


def test_fcfs_gate_takes_the_oldest() -> None:
    ages = {"waiting": [1, 1, 1], "waiting_since": [3.0, 1.0, 2.0]}
    assert gate(view(**ages), tables(gate_rule=int(GateRule.FCFS))) == 1


def test_priority_gate_takes_the_largest_index() -> None:
    assert gate(view(waiting=[1, 0, 1]), tables(gate_rule=int(GateRule.PRIORITY))) == 2
    assert gate(view(waiting=[1, 1, 1]), tables(gate_rule=int(GateRule.PRIORITY))) == 1


def test_value_gate_takes_the_largest_index_and_the_least_occupied_on_a_tie() -> None:
    value = int(GateRule.VALUE)
    assert gate(view(waiting=[1, 1, 1]), tables(gate_rule=value)) == 1
    tied = tables(gate_rule=value, priority=np.array([2.0, 2.0 * (1 + 1e-9), 1.0]))
    assert gate(view(waiting=[1, 1, 1], prefilling=[1, 1, 0]), tied) == 0
    assert gate(view(waiting=[1, 1, 1], prefilling=[1, 0, 0]), tied) == 1


def test_value_gate_starts_the_earliest_due_of_those_without_an_index() -> None:
    ages = {"waiting": [1, 1, 1], "waiting_since": [3.0, 1.0, 2.0]}
    nobody_leaves = {"gate_rule": int(GateRule.VALUE), "priority": np.zeros(3)}
    assert gate(view(**ages), tables(**nobody_leaves)) == 1
    assert gate(view(**ages), tables(**nobody_leaves, deadline=np.array([0.5, 9.0, 1.0]))) == 2
    assert gate(view(**ages), tables(**nobody_leaves, deadline=np.array([np.inf, np.inf, 100.0]))) == 2
    one_leaves = {"gate_rule": int(GateRule.VALUE), "priority": np.array([1e-3, 0.0, 0.0])}
    assert gate(view(**ages), tables(**one_leaves, deadline=np.array([np.inf, 0.1, 0.1]))) == 0


def test_pool_route_takes_a_slot_at_once() -> None:
    assert route(view(free=[3, 0]), tables(route_rule=int(RouteRule.POOL)), 0, 0.5) == MIXED


def test_solo_group_first_then_mixed_then_the_buffer() -> None:
    assert route(view(free=[1, 1]), tables(), 0, 0.5) == SOLO
    assert route(view(free=[1, 0]), tables(), 0, 0.5) == MIXED
    assert route(view(free=[0, 0]), tables(), 0, 0.5) == WAIT


def test_split_route_draws_the_side_and_waits_in_its_own_buffer() -> None:
    split = tables(route_rule=int(RouteRule.SPLIT), split_buffers=True)
    assert route(view(), split, 0, 0.24) == SOLO
    assert route(view(), split, 0, 0.26) == MIXED
    assert route(view(), split, 1, 0.0) == MIXED
    assert route(view(), split, 2, 0.999) == SOLO
    assert route(view(free=[1, 0]), split, 2, 0.5) == WAIT + SOLO
    assert route(view(free=[0, 1]), split, 1, 0.5) == WAIT + MIXED


def test_coupled_and_buffered_routes() -> None:
    assert route(view(), tables(route_rule=int(RouteRule.STAY)), 1, 0.5) == STAY
    assert route(view(), tables(route_rule=int(RouteRule.BUFFER)), 1, 0.5) == WAIT


def test_refill_is_fcfs_across_classes() -> None:
    waiting = view(buffered=[[1, 1, 1], [0, 0, 0]], buffered_since=[[5.0, 3.0, 4.0], [np.inf] * 3])
    assert refill(waiting, tables(), SOLO, 0.5) == 1


def test_refill_reads_the_buffer_of_its_group() -> None:
    waiting = view(buffered=[[1, 0, 0], [0, 0, 1]], buffered_since=[[1.0, np.inf, np.inf], [np.inf, np.inf, 2.0]])
    assert refill(waiting, tables(split_buffers=True), MIXED, 0.5) == 0
    assert refill(waiting, tables(split_buffers=True), SOLO, 0.5) == 2


@pytest.mark.parametrize(("draw", "chosen"), [(0.0, 0), (0.249, 0), (0.251, 1), (0.999, 1)])
def test_weighted_refill_draws_among_those_that_wait(draw: float, chosen: int) -> None:
    weighted = tables(refill_rule=int(RefillRule.WEIGHTED), split_buffers=True)
    since = [[5.0, 3.0, 1.0], [np.inf] * 3]
    waiting = view(buffered=[[1, 1, 1], [0, 0, 0]], buffered_since=since)
    assert refill(waiting, weighted, MIXED, draw) == chosen


def test_weighted_refill_without_weight_is_fcfs() -> None:
    weighted = tables(refill_rule=int(RefillRule.WEIGHTED), split_buffers=True)
    waiting = view(buffered=[[0, 0, 0], [2, 1, 0]], buffered_since=[[np.inf] * 3, [4.0, 2.0, np.inf]])
    assert refill(waiting, weighted, SOLO, 0.7) == 1


def test_a_class_waits_until_more_slots_are_free_than_it_leaves() -> None:
    rules = tables(gate_rule=int(GateRule.VALUE), priority=np.array([1.0, 3.0, 2.0]), hold=np.array([3, 0, 1]))
    nearly_full = {"prefilling": [1, 0, 0], "mixed_decodes": [10, 10, 0], "solo_decodes": [10, 0, 6]}  # 3 of 40 free
    assert gate(view(waiting=[1, 0, 0], **nearly_full), rules) == HOLD
    assert gate(view(waiting=[1, 0, 1], **nearly_full), rules) == 2
    assert gate(view(waiting=[1, 0, 0], **(nearly_full | {"prefilling": [0, 0, 0]})), rules) == 0


def test_waiting_decodes_leave_some_gpus_ready_for_prefills() -> None:
    rules = tables(ready=2)
    waiting = {"buffered": [[1, 0, 0], [0, 0, 0]], "buffered_since": [[1.0, np.inf, np.inf], [np.inf] * 3]}
    assert refill(view(startable=[2], **waiting), rules, MIXED, 0.5) == HOLD
    assert refill(view(startable=[3], **waiting), rules, MIXED, 0.5) == 0
    assert refill(view(startable=[2], beside=[1], **waiting), rules, MIXED, 0.5) == 0
    assert refill(view(startable=[2], room=[2], **waiting), rules, MIXED, 0.5) == 0
