"""Who sends requests: in a closed loop users, each its next when its last has left and its think time is over.

A user who thinks stands in a heap by the epoch at which it sends. What it then sends is the next request of the block.
Without users the block says itself when its requests are sent.

At one epoch arrivals come before all else. But a request that is sent in answer to something of the same epoch comes
after all that happens then: whoever sends the next at the moment of its last token is not in the very next batch.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.cluster import (
    CURSOR,
    LEFT_DECODE_BUFFER,
    LEFT_PREFILL_QUEUE,
    NOW,
    THINKING,
    TURN,
    Cluster,
)

# Values of `tally[TURN]`, what has happened at this epoch so far.
ARRIVALS = 0  # arrivals, if anything
OTHERS = 1  # other things
ANSWERS = 2  # all else; requests sent in answer to it arrive


@inlined
def next_arrival(cluster, block):
    """Epoch at which the next request comes to the engines; inf if none comes for now."""
    if cluster.tally[CURSOR] == len(block):
        return np.inf
    if len(cluster.users) == 0:
        return block[cluster.tally[CURSOR]].arrival + cluster.set.keys.front_end
    if cluster.tally[THINKING] == 0:
        return np.inf
    return cluster.users[0].sends + cluster.set.keys.front_end


@inlined
def hold_back(cluster: Cluster, arrival: float, others: float) -> float:
    """`arrival`; or inf while it is an answer to something of this epoch and the rest, next at `others`, goes on."""
    if cluster.tally[TURN] != OTHERS or arrival > cluster.clock[NOW]:
        return arrival
    if others <= cluster.clock[NOW]:
        return np.inf
    cluster.tally[TURN] = ANSWERS
    return arrival


@inlined
def take_turn(cluster: Cluster, epoch: float, arrives: bool) -> None:
    """A request arrives at `epoch`, or something else happens; to be called before the clock moves there."""
    if not arrives:
        cluster.tally[TURN] = OTHERS
    elif epoch > cluster.clock[NOW]:
        cluster.tally[TURN] = ARRIVALS


@inlined
def goes_on(cluster: Cluster, epoch: float) -> bool:
    """Whether the run does, where the next event is at `epoch`: users who all wait may be served by other tables."""
    return epoch < np.inf or (len(cluster.users) > 0 and cluster.set.horizon < np.inf)


@inlined
def is_answer(cluster: Cluster) -> bool:
    """Whether the request that arrives comes after all else of its epoch."""
    return cluster.tally[TURN] == ANSWERS


@inlined
def sign(cluster, slot, arriving):
    """Write down who has sent the request that arrives, and when."""
    request = cluster.live[slot]
    request.think = arriving.think
    if len(cluster.users) == 0:
        request.sent = arriving.arrival
        request.user = NOWHERE
        return
    request.sent = cluster.users[0].sends
    request.user = cluster.users[0].number
    drop_first(cluster)


@called
def think(cluster: Cluster, slot: int, outcome: int) -> None:
    """The user of a request that leaves thinks, from when its answer has come; who gave up waits for none."""
    request = cluster.live[slot]
    free = cluster.clock[NOW]
    if outcome != LEFT_PREFILL_QUEUE and outcome != LEFT_DECODE_BUFFER:
        free += cluster.set.keys.front_end_first
    k = cluster.tally[THINKING]
    cluster.tally[THINKING] = k + 1
    cluster.users[k].sends = free + request.think
    cluster.users[k].number = request.user
    while k > 0 and sooner(cluster, k, (k - 1) // 2):
        swap(cluster, k, (k - 1) // 2)
        k = (k - 1) // 2


@called
def drop_first(cluster: Cluster) -> None:
    size = cluster.tally[THINKING] - 1
    cluster.tally[THINKING] = size
    swap(cluster, 0, size)
    k = 0
    while 2 * k + 1 < size:
        child = 2 * k + 1
        if child + 1 < size and sooner(cluster, child + 1, child):
            child += 1
        if not sooner(cluster, child, k):
            return
        swap(cluster, k, child)
        k = child


@inlined
def sooner(cluster: Cluster, a: int, b: int) -> bool:
    """Whether the user at place `a` of the heap sends before that at `b`; ties to the lower number."""
    one, other = cluster.users[a], cluster.users[b]
    if one.sends != other.sends:
        return one.sends < other.sends
    return one.number < other.number


@inlined
def swap(cluster: Cluster, a: int, b: int) -> None:
    one, other = cluster.users[a], cluster.users[b]
    sends, number = one.sends, one.number
    one.sends = other.sends
    one.number = other.number
    other.sends = sends
    other.number = number
