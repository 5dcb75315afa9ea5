"""Placement: which GPU takes a request as it arrives, in at most O(log n) or a search that prunes."""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.simulation.iteration.cluster import NEXT_GPU, Cluster, Placement
from fluidgate.simulation.iteration.pools import come_home, pair, rekey
from fluidgate.simulation.iteration.tournament import replay, winner

ROUND_ROBIN = int(Placement.ROUND_ROBIN)
LEAST_LOADED = int(Placement.LEAST_LOADED)
POWER_OF_TWO = int(Placement.POWER_OF_TWO)
LMETRIC = int(Placement.LMETRIC)
POOLS = int(Placement.POOLS)


@inlined
def place(cluster, slot, placements):
    """The GPU of the request that has just arrived; `placements` is a numpy Generator."""
    rule = cluster.set.placement
    if rule == ROUND_ROBIN:
        g = cluster.tally[NEXT_GPU]
        cluster.tally[NEXT_GPU] = g + 1 if g + 1 < cluster.gpus else 0
        return g
    if rule == LEAST_LOADED:
        return winner(cluster.load_tree)
    if rule == POWER_OF_TWO:
        return less_loaded_of_two(cluster, placements)
    if rule == POOLS:
        return pair(cluster, slot)
    return least_product(cluster, cluster.live[slot].prompt)


@inlined
def less_loaded_of_two(cluster, placements):
    """The less loaded of two different GPUs drawn uniformly."""
    one = int(placements.random() * cluster.gpus)
    if cluster.gpus == 1:
        return one
    other = int(placements.random() * (cluster.gpus - 1))
    if other >= one:
        other += 1
    return other if cluster.gpu[other].load < cluster.gpu[one].load else one


@called
def least_product(cluster: Cluster, prompt: int) -> int:
    """The GPU with the least (unread + prompt) * (load + 1): depth first, branches bounded."""
    unread, load = cluster.unread_tree[0], cluster.unread_tree[1]
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
def change_load(cluster: Cluster, g: int, requests: int, tokens: int) -> None:
    """`requests` more requests and `tokens` more unread prompt tokens are on `g`."""
    here = cluster.gpu[g]
    here.load += requests
    here.unread += tokens
    if cluster.set.placement == LEAST_LOADED:
        cluster.loads[g] = here.load
        replay(cluster.load_tree, cluster.loads, g)
    elif cluster.set.placement == LMETRIC:
        lift(cluster, g)
    elif cluster.set.placement == POOLS and tokens != 0:
        rekey(cluster, g)
        if tokens < 0:
            come_home(cluster, g)


@called
def lift(cluster: Cluster, g: int) -> None:
    """Bring the least `unread` and `load` above GPU `g` up to date."""
    unread, load = cluster.unread_tree[0], cluster.unread_tree[1]
    node = unread.size // 2 + g
    unread[node] = cluster.gpu[g].unread
    load[node] = cluster.gpu[g].load
    node >>= 1
    while node > 0:
        unread[node] = min(unread[2 * node], unread[2 * node + 1])
        load[node] = min(load[2 * node], load[2 * node + 1])
        node >>= 1
