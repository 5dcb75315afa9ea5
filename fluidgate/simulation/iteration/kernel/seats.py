"""Single-prefill batching: the queues of a policy, the slots that it gives, and GPUs that are called or barred."""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE, update_ready
from fluidgate.policies.decisions.groups import prefill_gone
from fluidgate.replanning import estimates
from fluidgate.simulation.iteration.kernel.batch import (
    unseat,
)
from fluidgate.simulation.iteration.kernel.cluster import (
    ASK,
    ASKED,
    BARRED,
    COMPOSER,
    FETCHING,
    LATE,
    NOW,
    PENDING,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.lines import gpu_line, policy_line, push_back, push_front, unlink
from fluidgate.simulation.iteration.kernel.record import count
from fluidgate.simulation.iteration.kernel.segment import cut_segment
from fluidgate.simulation.iteration.kernel.timers import set_timer, stop_timer


@inlined
def wait_in(cluster: Cluster, queue: int, slot: int) -> None:
    """A request joins the end of a queue now, and leaves it when its patience ends."""
    request = cluster.live[slot]
    now = cluster.clock[NOW]
    line = policy_line(cluster, queue, request.cls)
    request.stage = queue
    request.since = now
    if cluster.lines[line].members == 0:
        cluster.since[queue, request.cls] = now
    push_back(cluster, line, slot)
    count(cluster, queue, request.cls, 1)
    if len(cluster.estimates) > 0:
        estimates.waits(cluster.estimates, request.cls, now)
    if request.patience < np.inf:
        set_timer(cluster, slot, now + request.patience)


@inlined
def wait_no_more(cluster: Cluster, slot: int) -> None:
    """A request leaves its queue, wherever it stands in it."""
    request = cluster.live[slot]
    line = policy_line(cluster, request.stage, request.cls)
    stop_timer(cluster, slot)
    unlink(cluster, line, slot)
    if len(cluster.estimates) > 0 and could_leave(cluster, slot):
        estimates.waits_no_more(cluster.estimates, request.cls, cluster.clock[NOW])
    count(cluster, request.stage, request.cls, -1)
    head = cluster.lines[line].head
    cluster.since[request.stage, request.cls] = np.inf if head == NOWHERE else cluster.live[head].since


@inlined
def could_leave(cluster: Cluster, slot: int) -> bool:
    """Whether a waiting request has not been preempted into its queue."""
    return cluster.live[slot].stage != stages.PREFILL_QUEUE or cluster.live[slot].preemptions == 0


@inlined
def wait_in_front(cluster: Cluster, slot: int) -> None:
    """A preempted request is the next of its class; it has been served and does not leave."""
    request = cluster.live[slot]
    request.stage = stages.PREFILL_QUEUE
    request.since = request.arrival
    push_front(cluster, policy_line(cluster, stages.PREFILL_QUEUE, request.cls), slot)
    cluster.since[stages.PREFILL_QUEUE, request.cls] = request.since
    count(cluster, stages.PREFILL_QUEUE, request.cls, 1)


@inlined
def free_slot(cluster: Cluster, g: int) -> None:
    cluster.gpu[g].occupied -= 1
    cluster.gpu[g].crowded = 0
    update_ready(cluster.board, g)
    if cluster.set.kv_blocks > 0:
        open_again(cluster, g)


@inlined
def vacate(cluster: Cluster, g: int) -> int:
    """Take the prefill of `g` from its slot; the request. Its memory is left to the caller."""
    here = cluster.gpu[g]
    slot = here.prefill_seat
    request = cluster.live[slot]
    here.prefill_seat = NOWHERE
    if here.reading == 1:
        here.held -= request.prompt + request.produced
    here.reading = 0
    count(cluster, stages.PREFILL, request.cls, -1)
    prefill_gone(cluster.board, g)
    free_slot(cluster, g)
    return slot


@inlined
def lose_slot(cluster: Cluster, g: int, slot: int) -> None:
    """A decode whose KV is lost is to be read again."""
    request = cluster.live[slot]
    request.unread = request.prompt + request.produced
    unseat(cluster, g, request.cls)
    free_slot(cluster, g)
    wait_in_front(cluster, slot)


@called
def open_again(cluster: Cluster, g: int) -> None:
    """Memory of `g` has become free: a prefill may start there, which the policy is asked about."""
    if cluster.gpu[g].barred == 1:
        cluster.gpu[g].barred = 0
        cluster.tally[BARRED] -= 1
        cluster.tally[ASKED] = ASK
        update_ready(cluster.board, g)


@inlined
def bar(cluster: Cluster, g: int) -> None:
    """No prefill starts on `g` until some of its memory has become free."""
    cluster.gpu[g].barred = 1
    cluster.tally[BARRED] += 1
    update_ready(cluster.board, g)


@inlined
def wait_for_boundary(cluster: Cluster, slot: int) -> None:
    """A decode is on its GPU and joins its batch at the next boundary."""
    g = cluster.live[slot].gpu
    push_back(cluster, gpu_line(cluster, g, PENDING), slot)
    call(cluster, g)


@called
def recall(cluster: Cluster, g: int) -> None:
    """Memory of `g` has become free: it looks again at whom it had none for."""
    open_again(cluster, g)
    pending, fetching = gpu_line(cluster, g, PENDING), gpu_line(cluster, g, FETCHING)
    if cluster.lines[pending].members > 0 or cluster.lines[fetching].members > 0:
        call(cluster, g)


@inlined
def call(cluster: Cluster, g: int) -> None:
    if cluster.gpu[g].due == 0:
        composer = cluster.tally[COMPOSER]
        if composer != NOWHERE:  # GPUs before it have formed their batches at this epoch
            cluster.tally[LATE] = 1 if g <= composer else 0
        cut_segment(cluster, g)
