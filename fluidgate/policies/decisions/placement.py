"""Placement: which GPU takes a request as it arrives, in O(log n) and the candidates, or a search that prunes.

A simulator or the gateway keeps `Loads`, tells of each change, and asks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluidgate.compiled import called, inlined
from fluidgate.compiled.random import uniform
from fluidgate.compiled.tournament import replay, tournament, winner
from fluidgate.policies.decisions.tables import Placement

ROUND_ROBIN = int(Placement.ROUND_ROBIN)
LEAST_LOADED = int(Placement.LEAST_LOADED)
POWER_OF_TWO = int(Placement.POWER_OF_TWO)
LMETRIC = int(Placement.LMETRIC)
LEAST_PREFILL = int(Placement.LEAST_PREFILL)
STICKY = int(Placement.STICKY)
PRECISE = int(Placement.PRECISE)
CACHE_AWARE = int(Placement.CACHE_AWARE)

MOST_REQUESTS = 1 << 20
"""More than are ever on a GPU: a key that counts tokens first and requests second."""

CANDIDATES = 32
"""GPUs that are known to a rule by what they hold of a prompt, at most."""


class Reuse(NamedTuple):
    """Where the beginning of a prompt is, for a rule of placement: on all other GPUs nothing of it.

    Attributes:
        gpu: GPUs, int64, shape (CANDIDATES,).
        tokens: how many of the prompt's tokens each need not read, int64, shape (CANDIDATES,), most first.
        count: of the GPUs, int64, shape (1,).
    """

    gpu: Any
    tokens: Any
    count: Any


def no_reuse() -> Reuse:
    return Reuse(np.zeros(CANDIDATES, np.int64), np.zeros(CANDIDATES, np.int64), np.zeros(1, np.int64))


class Criteria(NamedTuple):
    """Numbers that rules of placement leave open.

    Attributes:
        share: STICKY: part of a prompt that a GPU must have to be preferred. CACHE_AWARE: the same, and more than that.
        tolerance: STICKY: unread prompt tokens that such a GPU may have more than the GPU with the fewest.
        apart, ratio: CACHE_AWARE: loads are out of balance once the most loaded GPU has so many requests more than the
            least loaded, and so many times as many.
        prefix_weight, queue_weight, memory_weight: PRECISE, each at least 0.
    """

    share: float = 0.0
    tolerance: float = 0.0
    apart: float = 0.0
    ratio: float = 1.0
    prefix_weight: float = 1.0
    queue_weight: float = 1.0
    memory_weight: float = 1.0


NOTHING_SAID = Criteria()


class Loads(NamedTuple):
    """What lies on the GPUs, for a rule of placement.

    Attributes:
        rule: a `Placement`.
        criteria: numbers of the rule.
        gpus: n.
        up: whether a GPU takes requests, int8, shape (n,); `ups`, how many do, int64, shape (1,).
        load: requests on each, waiting or in its batch, int64, shape (n,).
        unread: prompt tokens on each whose prefill has not ended, int64, shape (n,).
        waiting: requests on each that are not in its batch, int64, shape (n,).
        used: part of its KV memory that is taken, shape (n,).
        keys: what the rule has least of, inf where nothing is taken, shape (n,); `tree`, the tournament over them.
        most_keys, most: the same with the sign changed of what the rule compares with the greatest.
        bounds: of two measures the least under each node of a tree over the GPUs, inf where nothing is taken; shape
            (2, nodes).
        next: where round robin goes on, int64, shape (1,).
        draws: state of the random numbers, uint64, shape (4,).
        reuse: room for where the beginning of the prompt is that is placed next.
    """

    rule: int
    criteria: Criteria
    gpus: int
    up: Any
    ups: Any
    load: Any
    unread: Any
    waiting: Any
    used: Any
    keys: Any
    tree: Any
    most_keys: Any
    most: Any
    bounds: Any
    next: Any
    draws: Any
    reuse: Reuse


def new_loads(rule: Placement, gpus: int, draws: NDArray[np.uint64], criteria: Criteria = NOTHING_SAID) -> Loads:
    """Loads of idle GPUs, all of which take requests."""
    tree = tournament(gpus)
    bounds = np.zeros((2, len(tree)))
    bounds[:, len(tree) // 2 + gpus :] = np.inf
    for node in range(len(tree) // 2 - 1, 0, -1):
        bounds[:, node] = np.minimum(bounds[:, 2 * node], bounds[:, 2 * node + 1])
    return Loads(
        rule=int(rule),
        criteria=Criteria(*map(float, criteria)),
        gpus=gpus,
        up=np.ones(gpus, np.int8),
        ups=np.full(1, gpus, np.int64),
        load=np.zeros(gpus, np.int64),
        unread=np.zeros(gpus, np.int64),
        waiting=np.zeros(gpus, np.int64),
        used=np.zeros(gpus),
        keys=np.zeros(gpus),
        tree=tree,
        most_keys=np.zeros(gpus),
        most=tree.copy(),
        bounds=bounds,
        next=np.zeros(1, np.int64),
        draws=draws,
        reuse=no_reuse(),
    )


@inlined
def asks_for_reuse(loads: Loads) -> bool:
    """Whether the rule goes by where the beginning of a prompt is."""
    return loads.rule != ROUND_ROBIN and loads.rule != LEAST_LOADED and loads.rule != POWER_OF_TWO


@inlined
def place(loads: Loads, prompt: int, reuse: Reuse) -> int:
    """The GPU of a request of `prompt` tokens that has just arrived; some GPU takes requests."""
    if loads.rule == ROUND_ROBIN:
        return in_turn(loads)
    if loads.rule == LEAST_LOADED:
        return winner(loads.tree)
    if loads.rule == POWER_OF_TWO:
        return less_loaded_of_two(loads)
    if loads.rule == LEAST_PREFILL:
        return least_prefill(loads, prompt, reuse)
    if loads.rule == STICKY:
        return sticky(loads, prompt, reuse)
    if loads.rule == CACHE_AWARE:
        return cache_aware(loads, prompt, reuse)
    return least_cost(loads, prompt, reuse)


@inlined
def in_turn(loads: Loads) -> int:
    """The next GPU that takes requests."""
    g = loads.next[0]
    while loads.up[g] == 0:
        g = g + 1 if g + 1 < loads.gpus else 0
    loads.next[0] = g + 1 if g + 1 < loads.gpus else 0
    return g


@inlined
def less_loaded_of_two(loads: Loads) -> int:
    """The less loaded of two different GPUs drawn uniformly; ties to the one drawn first."""
    ups = loads.ups[0]
    first = int(uniform(loads.draws) * ups)
    one = nth_up(loads, first)
    if ups == 1:
        return one
    second = int(uniform(loads.draws) * (ups - 1))
    if second >= first:
        second += 1
    other = nth_up(loads, second)
    return other if loads.load[other] < loads.load[one] else one


@inlined
def nth_up(loads: Loads, k: int) -> int:
    """The `k`-th of the GPUs that take requests."""
    if loads.ups[0] == loads.gpus:
        return k
    g = 0
    while loads.up[g] == 0 or k > 0:
        k -= loads.up[g]
        g += 1
    return g


@inlined
def least_prefill(loads: Loads, prompt: int, reuse: Reuse) -> int:
    """The GPU with the least unread + what of the prompt is to be read there, ties to the fewest requests.

    One that has the beginning of the prompt is compared twice, once as if it had nothing: that is never the less.
    """
    best = winner(loads.tree)
    least = loads.keys[best] + prompt * MOST_REQUESTS
    for k in range(reuse.count[0]):
        g = reuse.gpu[k]
        key = loads.keys[g] + (prompt - reuse.tokens[k]) * MOST_REQUESTS
        if key < least or (key == least and g < best):
            best, least = g, key
    return best


@called
def sticky(loads: Loads, prompt: int, reuse: Reuse) -> int:
    """`least_prefill` among the GPUs that have so much of the prompt, unless all of them are saturated.

    Saturated: more unread tokens than tolerated beyond those of the GPU with the fewest, whoever that is.
    """
    best, least = -1, np.inf
    fewest = np.inf
    for k in range(reuse.count[0]):
        g = reuse.gpu[k]
        if loads.up[g] == 1 and reuse.tokens[k] >= loads.criteria.share * prompt:
            fewest = min(fewest, float(loads.unread[g]))
            key = loads.keys[g] + (prompt - reuse.tokens[k]) * MOST_REQUESTS
            if key < least or (key == least and g < best):
                best, least = g, key
    if best >= 0 and fewest - loads.unread[winner(loads.tree)] <= loads.criteria.tolerance:
        return best
    return least_prefill(loads, prompt, reuse)


@called
def cache_aware(loads: Loads, prompt: int, reuse: Reuse) -> int:
    """The GPU that has most of the prompt, if that is enough and loads are balanced; else the least loaded."""
    least = winner(loads.tree)
    low, high = loads.load[least], loads.load[winner(loads.most)]
    if high - low > loads.criteria.apart and high > loads.criteria.ratio * low:
        return least
    best, found = least, 0
    for k in range(reuse.count[0]):
        g = reuse.gpu[k]
        if loads.up[g] == 1 and (reuse.tokens[k] > found or (reuse.tokens[k] == found > 0 and g < best)):
            best, found = g, reuse.tokens[k]
    return best if found > loads.criteria.share * prompt else least


@inlined
def least_cost(loads: Loads, prompt: int, reuse: Reuse) -> int:
    """The GPU with the least `cost`, ties to the lowest number.

    One that has the beginning of the prompt is compared twice, once as if it had nothing: that is never the less.
    """
    best = least_cost_without_reuse(loads, prompt)
    leaves = loads.tree.size // 2
    least = cost(loads, loads.bounds[0, leaves + best], loads.bounds[1, leaves + best], prompt, 0)
    for k in range(reuse.count[0]):
        g = reuse.gpu[k]
        if loads.up[g] == 1:
            here = cost(loads, loads.bounds[0, leaves + g], loads.bounds[1, leaves + g], prompt, reuse.tokens[k])
            if here < least or (here == least and g < best):
                best, least = g, here
    return best


@inlined
def cost(loads: Loads, first: float, second: float, prompt: int, found: int) -> float:
    """What LMETRIC and PRECISE minimise on a GPU of which `bounds` has these two measures; it grows with both.

    LMETRIC: (unread + what of the prompt is to be read there) * (load + 1). PRECISE: the score of llm-d with the sign
    changed: of the queue 1 where it is the shortest and 0 where it is the longest of all, of the memory the free part.
    """
    if first == np.inf:
        return np.inf
    if loads.rule == LMETRIC:
        return (first + prompt - found) * (second + 1)
    shortest, longest = loads.bounds[0, 1], -loads.most_keys[winner(loads.most)]
    queue = (longest - first) / (longest - shortest) if longest > shortest else 1.0
    by = loads.criteria
    return -(by.prefix_weight * (found / prompt) + (by.queue_weight * queue + by.memory_weight * (1.0 - second)))


@inlined
def least_cost_without_reuse(loads: Loads, prompt: int) -> int:
    """The GPU with the least `cost` as if none had a part of the prompt: depth first, branches bounded."""
    first, second = loads.bounds[0], loads.bounds[1]
    leaves = first.size // 2
    node = 1
    while node < leaves:  # a first guess: the child with the smaller bound
        left, right = 2 * node, 2 * node + 1
        lower = cost(loads, first[left], second[left], prompt, 0) <= cost(loads, first[right], second[right], prompt, 0)
        node = left if lower else right
    best, least = -1, cost(loads, first[node], second[node], prompt, 0)
    node = 1
    while node > 0:
        bound = cost(loads, first[node], second[node], prompt, 0)
        promising = bound < least or (best < 0 and bound == least)
        if promising and node < leaves:
            node = 2 * node
            continue
        if promising:
            best, least = node - leaves, bound
        while node & 1 == 1:  # up from a right child
            node >>= 1
        if node > 0:
            node += 1
    return best


@inlined
def change_load(loads: Loads, g: int, requests: int, tokens: int) -> None:
    """`requests` more requests and `tokens` more unread prompt tokens are on `g`."""
    loads.load[g] += requests
    loads.unread[g] += tokens
    if loads.rule != PRECISE:
        rank(loads, g)


@inlined
def show_queue(loads: Loads, g: int, waiting: int, used: float) -> None:
    """So many requests of `g` are not in its batch, and so great a part of its KV memory is taken: PRECISE asks."""
    if loads.rule == PRECISE:
        loads.waiting[g] = waiting
        loads.used[g] = used
        rank(loads, g)


@inlined
def rank(loads: Loads, g: int) -> None:
    """Bring what the rule compares up to date for `g`."""
    if loads.rule == LEAST_LOADED:
        set_least(loads, g, float(loads.load[g]))
    elif loads.rule == LEAST_PREFILL or loads.rule == STICKY:
        set_least(loads, g, loads.unread[g] * float(MOST_REQUESTS) + loads.load[g])
    elif loads.rule == CACHE_AWARE:
        set_least(loads, g, float(loads.load[g]))
        set_most(loads, g, float(loads.load[g]))
    elif loads.rule == LMETRIC:
        lift(loads, g, float(loads.unread[g]), float(loads.load[g]))
    elif loads.rule == PRECISE:
        lift(loads, g, float(loads.waiting[g]), loads.used[g])
        set_most(loads, g, float(loads.waiting[g]))


@inlined
def set_least(loads: Loads, g: int, key: float) -> None:
    loads.keys[g] = key if loads.up[g] == 1 else np.inf
    replay(loads.tree, loads.keys, g)


@called
def set_most(loads: Loads, g: int, measure: float) -> None:
    loads.most_keys[g] = -measure if loads.up[g] == 1 else np.inf
    replay(loads.most, loads.most_keys, g)


@inlined
def lift(loads: Loads, g: int, first: float, second: float) -> None:
    """Bring the bounds above `g` up to date with its measures."""
    node = loads.bounds.shape[1] // 2 + g
    loads.bounds[0, node] = first if loads.up[g] == 1 else np.inf
    loads.bounds[1, node] = second if loads.up[g] == 1 else np.inf
    node >>= 1
    while node > 0:
        for row in range(2):
            loads.bounds[row, node] = min(loads.bounds[row, 2 * node], loads.bounds[row, 2 * node + 1])
        node >>= 1


# Within a group of ranks that step together the front end of vLLM (0.10 and later) chooses: `DPLBAsyncMPClient` in
# vllm/v1/engine/core_client.py, told by the `DPCoordinator` of coordinator.py every 100 ms.

WAITING_WEIGHT = 4
PUBLICATIONS = 10
"""A second."""


class Ranks(NamedTuple):
    """What a front end knows of the ranks of its groups.

    Attributes:
        size: of a group.
        waiting, running: requests as published last, and those sent since as waiting, int64, shape (ranks,).
        published: when that was, s, shape (groups,).
    """

    size: int
    waiting: Any
    running: Any
    published: Any


def new_ranks(ranks: int, size: int) -> Ranks:
    """Idle ranks, the groups of which have `size`."""
    return Ranks(size, np.zeros(ranks, np.int64), np.zeros(ranks, np.int64), np.zeros(ranks // size))


@inlined
def last_publication(now: float) -> float:
    """When counts were published last, at the latest `now`, s."""
    return np.floor(now * PUBLICATIONS) / PUBLICATIONS


@inlined
def publication_due(ranks: Ranks, group: int, now: float) -> bool:
    """Whether counts have been published since those that the front end goes by."""
    return last_publication(now) > ranks.published[group]


@inlined
def show(ranks: Ranks, rank: int, waiting: int, running: int) -> None:
    """The counts of a rank, as published."""
    ranks.waiting[rank] = waiting
    ranks.running[rank] = running


@inlined
def least_waiting(ranks: Ranks, group: int) -> int:
    """The rank of a group with the least score, from the first on, to which a request is sent."""
    first = group * ranks.size
    best = first
    for r in range(first + 1, first + ranks.size):
        if score(ranks, r) < score(ranks, best):
            best = r
    ranks.waiting[best] += 1
    return best


@inlined
def score(ranks: Ranks, rank: int) -> int:
    return WAITING_WEIGHT * ranks.waiting[rank] + ranks.running[rank]


@inlined
def set_up(loads: Loads, g: int, up: int) -> None:
    """Let `g` take requests from now on, or none."""
    loads.ups[0] += up - loads.up[g]
    loads.up[g] = up
    rank(loads, g)
