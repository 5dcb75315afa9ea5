"""The rules of placement against plain searches, some GPUs of which take nothing."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.compiled import by_reference, entry_point
from fluidgate.compiled.random import stream
from fluidgate.policies.decisions import placement
from fluidgate.policies.decisions.placement import CANDIDATES, Criteria, Loads, new_loads
from fluidgate.policies.decisions.tables import Placement
from tests.oracles.placements import Place, choose

_place, _change, _set_up, _show_queue = (
    placement.place,
    placement.change_load,
    placement.set_up,
    placement.show_queue,
)

RULES = [rule for rule in Placement if rule != Placement.POOLS]
WITH_REUSE = ("LMETRIC", "LEAST_PREFILL", "STICKY", "PRECISE", "CACHE_AWARE")
CRITERIA = (
    Criteria(share=0.5, tolerance=40.0, apart=3.0, ratio=1.5, prefix_weight=2.0),
    Criteria(share=0.25, tolerance=0.0, apart=30.0, ratio=1.0, prefix_weight=0.5, queue_weight=0.0),
    Criteria(share=0.0, tolerance=300.0, apart=0.0, ratio=2.0, memory_weight=0.0),
)


@entry_point
def place(loads, prompt):  # type: ignore[no-untyped-def]
    return _place(loads, prompt, loads.reuse)


@entry_point
def change(loads, g, requests, tokens, waiting, used, up):  # type: ignore[no-untyped-def]
    _change(loads, g, requests, tokens)
    _show_queue(loads, g, waiting, used)
    _set_up(loads, g, up)


class ByHand:
    """The same by looking at every GPU."""

    def __init__(self, rule: Placement, gpus: int, criteria: Criteria) -> None:
        self.rule, self.criteria = rule, criteria
        self.places = [Place() for _ in range(gpus)]
        self.next = 0
        self.rng = np.random.Generator(np.random.SFC64(3))

    @property
    def up(self) -> list[int]:
        return [g for g, each in enumerate(self.places) if each.up]

    def place(self, prompt: int, found: dict[int, int]) -> int:
        up = self.up
        if self.rule == Placement.ROUND_ROBIN:
            g = next((g for g in up if g >= self.next), up[0])
            self.next = (g + 1) % len(self.places)
            return g
        if self.rule != Placement.POWER_OF_TWO:
            return choose(self.rule.name, self.places, prompt, found, self.criteria)
        left = list(up)
        one = left.pop(int(self.rng.random() * len(left)))
        if not left:
            return one
        other = left[int(self.rng.random() * len(left))]
        return other if self.places[other].load < self.places[one].load else one


class Both:
    """A rule, and the same by hand, on loads that change alike."""

    def __init__(self, rule: Placement, gpus: int, criteria: Criteria = CRITERIA[0]) -> None:
        self.by_hand = ByHand(rule, gpus, criteria)
        self.loads = new_loads(rule, gpus, stream(3), criteria)
        self._state = by_reference(self.loads)

    def set(self, g: int, **values: float) -> None:
        """Other values of the fields of a `Place`."""
        here = self.by_hand.places[g]
        before = here.load, here.unread
        for name, value in values.items():
            setattr(here, name, value)
        change(
            self._state,
            g,
            here.load - before[0],
            here.unread - before[1],
            here.waiting,
            float(here.used),
            int(here.up),
        )

    def place(self, prompt: int, found: dict[int, int] | None = None) -> int:
        """The GPU that both choose; `found`, what each has of the prompt."""
        show(self.loads, found or {})
        g = int(place(self._state, prompt))
        assert g == self.by_hand.place(prompt, found or {})
        assert self.by_hand.places[g].up
        return g


def show(loads: Loads, found: dict[int, int]) -> None:
    """Hand to a rule where the beginning of a prompt is."""
    most_first = sorted(found, key=lambda g: -found[g])
    loads.reuse.count[0] = len(found)
    loads.reuse.gpu[: len(found)] = most_first
    loads.reuse.tokens[: len(found)] = [found[g] for g in most_first]


@pytest.mark.parametrize("gpus", [1, 2, 3, 7, 16, 21, 50])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_chooses_as_a_plain_search_does(rule: Placement, gpus: int) -> None:
    for seed, criteria in enumerate(CRITERIA if rule.name in WITH_REUSE else CRITERIA[:1]):
        rng = np.random.default_rng([gpus, seed])
        both = Both(rule, gpus, criteria)
        for _ in range(300):
            g = int(rng.integers(gpus))
            here = both.by_hand.places[g]
            both.set(
                g,
                load=max(here.load + int(rng.integers(-2, 3)), 0),
                unread=max(here.unread + int(rng.integers(-30, 40)), 0),
                waiting=int(rng.integers(4)),
                used=int(rng.integers(5)) / 4,
                up=bool(rng.random() < 0.7 or both.by_hand.up in ([], [g])),
            )
            prompt = int(rng.integers(1, 100))
            holders = rng.choice(gpus, size=int(rng.integers(0, min(gpus, CANDIDATES) + 1)), replace=False)
            both.place(prompt, {int(g): int(rng.integers(0, prompt)) // 16 * 16 for g in holders})


@pytest.mark.parametrize("rule", WITH_REUSE)
def test_nobody_up_but_one_takes_all(rule: str) -> None:
    both = Both(Placement[rule], 5)
    for g in (0, 1, 2, 4):
        both.set(g, up=False)
    both.set(3, load=9, unread=500, waiting=9, used=1.0)
    assert both.place(100, dict.fromkeys((0, 1, 2, 4), 96)) == 3
    both.set(1, up=True)
    assert both.place(100) == 1


@pytest.mark.parametrize(("rule", "alike"), [("CACHE_AWARE", "LEAST_LOADED"), ("STICKY", "LEAST_PREFILL")])
def test_where_nothing_is_found_a_rule_is_the_one_without(rule: str, alike: str) -> None:
    one, other = Both(Placement[rule], 9), Both(Placement[alike], 9)
    rng = np.random.default_rng(4)
    for _ in range(100):
        g, load, unread = (int(x) for x in rng.integers(0, [9, 6, 80]))
        one.set(g, load=load, unread=unread)
        other.set(g, load=load, unread=unread)
        assert one.place(50) == other.place(50)


def test_lmetric_weighs_what_is_still_to_be_read_against_the_batch() -> None:
    both = Both(Placement.LMETRIC, 3)
    both.set(1, load=3)
    assert both.place(1000, {1: 736}) == 0  # 264 * 4 against 1000
    assert both.place(1000, {1: 768}) == 1


def test_least_prefill_goes_back_until_reading_again_elsewhere_is_less() -> None:
    both = Both(Placement.LEAST_PREFILL, 3)
    both.set(2, unread=768)
    assert both.place(1000, {2: 768}) == 0
    both.set(0, load=1)
    both.set(2, unread=767, load=5)
    assert both.place(1000, {2: 768}) == 2


def test_sticky_stays_until_saturated() -> None:
    both = Both(Placement.STICKY, 3, Criteria(share=0.8, tolerance=2000.0))
    both.set(2, unread=2000, load=9)
    assert both.place(1000, {2: 800}) == 2
    assert both.place(1000, {2: 784}) == 0  # not enough of it is there
    both.set(2, unread=2001)
    assert both.place(1000, {2: 800}) == 0
    both.set(0, unread=1)
    both.set(1, unread=1)
    assert both.place(1000, {2: 800}) == 2  # the others have no less than that more
    assert both.place(1000, {2: 992, 1: 800}) == 1


def test_precise_adds_up_its_scores() -> None:
    both = Both(Placement.PRECISE, 4, Criteria(prefix_weight=2.0))
    both.set(0, waiting=8, used=0.5)
    both.set(1, waiting=4, used=1.0)
    both.set(2, waiting=2, used=0.5)
    both.set(3, waiting=0, used=1.0)
    # 0.5, 0.5, 1.25, 1.0
    assert both.place(1000) == 2
    assert both.place(1024, {0: 368}) == 2
    assert both.place(1024, {0: 400}) == 0
    assert both.place(1024, {3: 128}) == 2  # as much as 3: the lowest number
    assert both.place(1024, {3: 144}) == 3


def test_cache_aware_looks_at_the_cache_while_loads_are_balanced() -> None:
    both = Both(Placement.CACHE_AWARE, 3, Criteria(share=0.5, apart=4.0, ratio=1.5))
    both.set(0, load=10)
    both.set(1, load=10)
    both.set(2, load=14)
    assert both.place(1000, {2: 512, 1: 496}) == 2
    assert both.place(1024, {2: 512}) == 0
    both.set(2, load=15)
    assert both.place(1000, {2: 512}) == 2  # 5 more, but no more than half as many
    both.set(2, load=16)
    assert both.place(1000, {2: 992}) == 0
