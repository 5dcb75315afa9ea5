"""Placement: which GPU takes a request as it arrives, in at most O(log n) or a search that prunes.

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

NEVER_UNREAD = 1 << 40
NEVER_LOAD = 1 << 20
"""What a GPU that takes nothing counts as in the bounds of LMETRIC: more than any other."""

UNREAD = 0
LOAD = 1
"""Rows of `Loads.bounds`."""


class Loads(NamedTuple):
    """What lies on the GPUs, for a rule of placement.

    Attributes:
        rule: a `Placement`.
        gpus: n.
        up: whether a GPU takes requests, int8, shape (n,); `ups`, how many do, int64, shape (1,).
        load: requests on each, waiting or in its batch, int64, shape (n,).
        unread: prompt tokens on each whose prefill has not ended, int64, shape (n,).
        keys: `load`, inf where nothing is taken, shape (n,); `tree`, the tournament over them.
        bounds: least `unread` and least `load` under each node of a tree over the GPUs, shape (2, nodes).
        next: where round robin goes on, int64, shape (1,).
        draws: state of the random numbers, uint64, shape (4,).
    """

    rule: int
    gpus: int
    up: Any
    ups: Any
    load: Any
    unread: Any
    keys: Any
    tree: Any
    bounds: Any
    next: Any
    draws: Any


def new_loads(rule: Placement, gpus: int, draws: NDArray[np.uint64]) -> Loads:
    """Loads of idle GPUs, all of which take requests."""
    tree = tournament(gpus)
    bounds = np.zeros((2, len(tree)), np.int64)
    bounds[:, len(tree) // 2 + gpus :] = [[NEVER_UNREAD], [NEVER_LOAD]]
    for node in range(len(tree) // 2 - 1, 0, -1):
        bounds[:, node] = np.minimum(bounds[:, 2 * node], bounds[:, 2 * node + 1])
    return Loads(
        rule=int(rule),
        gpus=gpus,
        up=np.ones(gpus, np.int8),
        ups=np.full(1, gpus, np.int64),
        load=np.zeros(gpus, np.int64),
        unread=np.zeros(gpus, np.int64),
        keys=np.zeros(gpus),
        tree=tree,
        bounds=bounds,
        next=np.zeros(1, np.int64),
        draws=draws,
    )


@inlined
def place(loads: Loads, prompt: int) -> int:
    """The GPU of a request of `prompt` tokens that has just arrived; some GPU takes requests."""
    if loads.rule == ROUND_ROBIN:
        return in_turn(loads)
    if loads.rule == LEAST_LOADED:
        return winner(loads.tree)
    if loads.rule == POWER_OF_TWO:
        return less_loaded_of_two(loads)
    return least_product(loads, prompt)


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


@called
def least_product(loads: Loads, prompt: int) -> int:
    """The GPU with the least (unread + prompt) * (load + 1): depth first, branches bounded."""
    unread, load = loads.bounds[UNREAD], loads.bounds[LOAD]
    leaves = unread.size // 2
    node = 1
    while node < leaves:  # a first guess: the child with the smaller bound
        left, right = 2 * node, 2 * node + 1
        lower = (unread[left] + prompt) * (load[left] + 1) <= (unread[right] + prompt) * (load[right] + 1)
        node = left if lower else right
    best, least = -1, (unread[node] + prompt) * (load[node] + 1) + 1
    node = 1
    while node > 0:
        bound = (unread[node] + prompt) * (load[node] + 1)
        if bound < least and node < leaves:
            node = 2 * node
            continue
        if bound < least:
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
    rank(loads, g)


@inlined
def rank(loads: Loads, g: int) -> None:
    """Bring what the rule compares up to date for `g`."""
    if loads.rule == LEAST_LOADED:
        loads.keys[g] = loads.load[g] if loads.up[g] == 1 else np.inf
        replay(loads.tree, loads.keys, g)
    elif loads.rule == LMETRIC:
        lift(loads, g)


@called
def lift(loads: Loads, g: int) -> None:
    """Bring the bounds above `g` up to date."""
    unread, load = loads.bounds[UNREAD], loads.bounds[LOAD]
    node = unread.size // 2 + g
    unread[node] = loads.unread[g] if loads.up[g] == 1 else NEVER_UNREAD
    load[node] = loads.load[g] if loads.up[g] == 1 else NEVER_LOAD
    node >>= 1
    while node > 0:
        unread[node] = min(unread[2 * node], unread[2 * node + 1])
        load[node] = min(load[2 * node], load[2 * node + 1])
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
