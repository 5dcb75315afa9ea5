"""The rules of placement in plain Python: what the compiled ones must agree with, by looking at every GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Place:
    """A GPU, as a rule of placement sees it.

    Attributes:
        load: requests there.
        unread: prompt tokens there whose prefill has not ended.
        waiting: requests that are not in its batch.
        used: part of its KV memory that is taken.
    """

    up: bool = True
    load: int = 0
    unread: int = 0
    waiting: int = 0
    used: float = 0.0


def choose(rule: str, places: Sequence[Place], prompt: int, found: Mapping[int, int], criteria: Any = None) -> int:
    """The GPU that a rule chooses, ties to the lowest number.

    Args:
        rule: name of a `Placement` that keeps nothing from one request to the next.
        prompt: tokens of the request.
        found: how many of them each GPU need not read; 0 where it is not named.
        criteria: the rule's numbers, with the attributes of `Criteria`.
    """
    up = [g for g, place in enumerate(places) if place.up]
    has = {g: found.get(g, 0) for g in up}
    loads = {g: places[g].load for g in up}
    unread = {g: places[g].unread for g in up}

    def with_this(g: int) -> tuple[int, int]:
        return unread[g] + prompt - has[g], loads[g]

    if rule == "LEAST_LOADED":
        return min(up, key=lambda g: loads[g])
    if rule == "LMETRIC":
        return min(up, key=lambda g: (unread[g] + prompt - has[g]) * (loads[g] + 1))
    if rule == "LEAST_PREFILL":
        return min(up, key=with_this)
    if rule == "STICKY":
        warm = [g for g in found if g in has and has[g] >= criteria.share * prompt]
        cold = [g for g in up if g not in warm]
        if warm and cold and min(unread[g] for g in warm) - min(unread[g] for g in cold) > criteria.tolerance:
            warm = []
        return min(sorted(warm) or up, key=with_this)
    if rule == "CACHE_AWARE":
        low, high = min(loads.values()), max(loads.values())
        balanced = high - low <= criteria.apart or high <= criteria.ratio * low
        most = max(up, key=lambda g: has[g])
        if balanced and has[most] / prompt > criteria.share:
            return most
        return min(up, key=lambda g: loads[g])
    if rule == "PRECISE":
        queues = [places[g].waiting for g in up]

        def score(g: int) -> float:
            queue = 1.0
            if max(queues) > min(queues):
                queue = (max(queues) - places[g].waiting) / (max(queues) - min(queues))
            load = criteria.queue_weight * queue + criteria.memory_weight * (1.0 - places[g].used)
            return float(criteria.prefix_weight * (has[g] / prompt) + load)

        return max(up, key=score)
    raise AssertionError(rule)
