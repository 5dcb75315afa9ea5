"""Who sends requests: sessions, each its next when its last is answered and its think time is over, and users.

Who thinks stands in a heap by the epoch at which it sends. What it then sends is a row of the script, the next of its
session; or, of a user in a closed loop whose session has ended, the next request of the block, with which one begins.
Without users the block says itself when its requests are sent.

At one epoch arrivals come before all else. But a request that is sent in answer to something of the same epoch comes
after all that happens then: whoever sends the next at the moment of its last token is not in the very next batch.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.cluster import (
    ALIVE,
    AWAY,
    COMPLETED,
    CURSOR,
    ITERATIONS,
    ITERATIONS_THEN,
    LEFT_DECODE_BUFFER,
    LEFT_PREFILL_QUEUE,
    LOOKS_IN_VAIN,
    NOW,
    SENDER,
    SENT,
    SESSIONS,
    THINKING,
    TURN,
    USERS,
    Cluster,
)
from fluidgate.workloads.streams.requests import NOTHING

# Values of `tally[TURN]`, what has happened at this epoch so far.
ARRIVALS = 0  # arrivals, if anything
OTHERS = 1  # other things
ANSWERS = 2  # all else; requests sent in answer to it arrive

PATIENT_LOOKS = 20
"""Looks that a run without a horizon waits for, one after the other, while nothing else is left to happen."""


@inlined
def next_arrival(cluster, block):
    """Epoch at which the next request comes to the engines; inf if none comes for now."""
    tally = cluster.tally
    if tally[CURSOR] == len(block):  # users have nothing to send any more, sessions have
        while tally[THINKING] > 0 and cluster.users[0].row == NOTHING:
            drop_first(cluster)
    sends = cluster.users[0].sends if tally[THINKING] > 0 else np.inf
    if tally[USERS] == 0 and tally[CURSOR] < len(block):
        sends = min(sends, block[tally[CURSOR]].arrival)
    return sends + cluster.set.keys.front_end


@inlined
def next_request(cluster, block):
    """The request that comes next; of two sent at once first the one of the stream."""
    tally = cluster.tally
    cursor = tally[CURSOR]
    by_itself = tally[USERS] == 0 and cursor < len(block)
    if by_itself and (tally[THINKING] == 0 or block[cursor].arrival <= cluster.users[0].sends):
        arriving = block[cursor]
        tally[CURSOR] = cursor + 1
        cluster.clock[SENT] = arriving.arrival
        tally[SENDER] = NOWHERE
        if arriving.then != NOTHING:
            tally[SENDER] = tally[USERS] + tally[SESSIONS]
            tally[SESSIONS] += 1
        return arriving
    row = cluster.users[0].row
    cluster.clock[SENT] = cluster.users[0].sends
    tally[SENDER] = cluster.users[0].number
    drop_first(cluster)
    if row == NOTHING:
        tally[CURSOR] = cursor + 1
    return block[cursor] if row == NOTHING else cluster.script[row]


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
    """Whether the run does, up to the next look at its tables, where the next event is at `epoch`, inf for none.

    Those who wait may be served by other tables, or by GPUs that come back. Without a horizon a few looks are waited
    for in vain, where no GPU will.
    """
    tally = cluster.tally
    if epoch < np.inf:
        return True
    if tally[ALIVE] == 0:
        return False
    if tally[AWAY] > 0:
        return True
    if tally[ITERATIONS] > tally[ITERATIONS_THEN]:
        tally[LOOKS_IN_VAIN] = 0
        tally[ITERATIONS_THEN] = tally[ITERATIONS]
    tally[LOOKS_IN_VAIN] += 1
    return cluster.set.horizon < np.inf or tally[LOOKS_IN_VAIN] <= PATIENT_LOOKS


@inlined
def is_answer(cluster: Cluster) -> bool:
    """Whether the request that arrives comes after all else of its epoch."""
    return cluster.tally[TURN] == ANSWERS


@inlined
def sign(cluster: Cluster, slot: int, think: float) -> None:
    """Write down who has sent the request that arrives, and when."""
    request = cluster.live[slot]
    request.think = think
    request.sent = cluster.clock[SENT]
    request.user = cluster.tally[SENDER]


@inlined
def set_off(cluster: Cluster, row: int) -> None:
    """The sessions that the request that arrives has set off: the first is that of a row of the script."""
    while row != NOTHING:
        first = cluster.script[row]
        think(cluster, cluster.clock[SENT] + first.arrival, cluster.tally[USERS] + cluster.tally[SESSIONS], row)
        cluster.tally[SESSIONS] += 1
        row = first.beside


@called
def go_on(cluster: Cluster, slot: int, outcome: int) -> None:
    """The session of a request that leaves thinks, or its user, from when the answer has come.

    Who gave up waits for none. A session ends with a request that is not answered to the end.
    """
    request = cluster.live[slot]
    free = cluster.clock[NOW]
    if outcome != LEFT_PREFILL_QUEUE and outcome != LEFT_DECODE_BUFFER:
        free += cluster.set.keys.front_end_first
    if outcome == COMPLETED and request.then != NOTHING:
        think(cluster, free + request.think, request.user, request.then)
    elif request.user != NOWHERE and request.user < cluster.tally[USERS]:
        think(cluster, free + request.think, request.user, NOTHING)


@called
def think(cluster: Cluster, sends: float, number: int, row: int) -> None:
    """A user or session will send a row of the script, NOTHING for the next request of the stream."""
    k = cluster.tally[THINKING]
    cluster.tally[THINKING] = k + 1
    cluster.users[k].sends = sends
    cluster.users[k].number = number
    cluster.users[k].row = row
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
    sends, number, row = one.sends, one.number, one.row
    one.sends = other.sends
    one.number = other.number
    one.row = other.row
    other.sends = sends
    other.number = number
    other.row = row
