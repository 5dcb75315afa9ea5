"""The rules of placement against plain searches, some GPUs of which take nothing."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.compiled import by_reference, entry_point
from fluidgate.compiled.random import stream
from fluidgate.policies.decisions import placement
from fluidgate.policies.decisions.placement import new_loads
from fluidgate.policies.decisions.tables import Placement

_place, _change, _set_up = placement.place, placement.change_load, placement.set_up


@entry_point
def place(loads, prompt):  # type: ignore[no-untyped-def]
    return _place(loads, prompt)


@entry_point
def change(loads, g, requests, tokens, up):  # type: ignore[no-untyped-def]
    _change(loads, g, requests, tokens)
    _set_up(loads, g, up)


class ByHand:
    """The same by looking at every GPU."""

    def __init__(self, rule: Placement, gpus: int) -> None:
        self.rule = rule
        self.up = np.ones(gpus, bool)
        self.load, self.unread = np.zeros(gpus, int), np.zeros(gpus, int)
        self.next = 0
        self.rng = np.random.Generator(np.random.SFC64(3))

    def place(self, prompt: int) -> int:
        up = np.flatnonzero(self.up)
        if self.rule == Placement.ROUND_ROBIN:
            g = int(next((g for g in up if g >= self.next), up[0]))
            self.next = (g + 1) % len(self.up)
            return g
        if self.rule == Placement.LEAST_LOADED:
            return int(up[np.argmin(self.load[up])])
        if self.rule == Placement.LMETRIC:
            return int(up[np.argmin((self.unread[up] + prompt) * (self.load[up] + 1))])
        left = list(up)
        one = left.pop(int(self.rng.random() * len(left)))
        if not left:
            return int(one)
        other = left[int(self.rng.random() * len(left))]
        return int(other if self.load[other] < self.load[one] else one)


@pytest.mark.parametrize("gpus", [1, 2, 3, 7, 16, 21])
@pytest.mark.parametrize("rule", [rule for rule in Placement if rule != Placement.POOLS], ids=lambda rule: rule.name)
def test_a_rule_chooses_as_a_plain_search_does(rule: Placement, gpus: int) -> None:
    rng = np.random.default_rng(gpus)
    expected, loads = ByHand(rule, gpus), by_reference(new_loads(rule, gpus, stream(3)))
    for _ in range(400):
        g = int(rng.integers(gpus))
        more_requests, more_tokens = int(rng.integers(0, 5)) - min(expected.load[g], 2), int(rng.integers(0, 50))
        more_tokens -= min(int(expected.unread[g]), 30)
        expected.load[g] += more_requests
        expected.unread[g] += more_tokens
        expected.up[g] = rng.random() < 0.7 or expected.up.sum() == 1
        change(loads, g, more_requests, more_tokens, int(expected.up[g]))
        if expected.up.any():
            prompt = int(rng.integers(1, 100))
            assert place(loads, prompt) == expected.place(prompt)
