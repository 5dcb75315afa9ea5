"""Single-prefill batching: decodes come to their GPU and join its batch; where memory is short, somebody gives way."""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation import events
from fluidgate.simulation.iteration.kernel.batch import (
    join,
)
from fluidgate.simulation.iteration.kernel.cluster import (
    ALIVE,
    ASK,
    ASK_FOR_DECODES,
    ASKED,
    BARRED,
    CHANGED,
    COMPOSER,
    DUE,
    FETCHING,
    FRESH,
    NOW,
    PENDING,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.handover import (
    all_stuck,
    arrived,
    blocks_to_fetch,
    blocks_to_join,
    claim,
    fetch,
    held_up,
    last_buffered,
    let_go,
    read_tokens,
    spare_blocks,
)
from fluidgate.simulation.iteration.kernel.keys import SWAP
from fluidgate.simulation.iteration.kernel.lines import gpu_line, push_back, push_front, unlink
from fluidgate.simulation.iteration.kernel.memory import (
    blocks_needed,
    blocks_next,
    blocks_of,
    hold_kv,
    overwrite,
)
from fluidgate.simulation.iteration.kernel.record import observe
from fluidgate.simulation.iteration.kernel.seats import (
    call,
    lose_slot,
    open_again,
    recall,
    wait_for_boundary,
    wait_in_front,
    wait_no_more,
)
from fluidgate.simulation.iteration.kernel.timers import set_timer, stop_timer
from fluidgate.simulation.iteration.times import DECODE_WAIT


@called
def has_memory(cluster: Cluster, g: int, slot: int) -> bool:
    """Whether `g` has memory for a prompt and its first token, beside what decodes take there next or wait for."""
    if cluster.lines[gpu_line(cluster, g, FETCHING)].members > 0:
        return False
    tokens = cluster.live[slot].unread + max(cluster.set.keys.kv_reservation, 1)
    joining = cluster.lines[gpu_line(cluster, g, PENDING)].members
    return blocks_needed(cluster, g, slot, tokens) <= spare_blocks(cluster, g) - joining


@inlined
def send(cluster: Cluster, slot: int, seconds: float) -> None:
    """The KV of a decode goes to its GPU."""
    if seconds > 0.0:
        set_timer(cluster, slot, cluster.clock[NOW] + seconds)
    else:
        land(cluster, slot)


@called
def send_if_there_is_memory(cluster: Cluster, slot: int, g: int) -> None:
    """The KV of a decode goes to `g`, behind that of others that wait for memory there."""
    line = gpu_line(cluster, g, FETCHING)
    if cluster.lines[line].members == 0 and blocks_to_fetch(cluster, g, slot) <= spare_blocks(cluster, g):
        send(cluster, slot, fetch(cluster, g, slot))
        return
    push_back(cluster, line, slot)
    look_about(cluster, g)
    look_about(cluster, cluster.live[slot].kept)


@inlined
def look_about(cluster: Cluster, g: int) -> None:
    """A GPU that stands still may wait for another now that waits for it."""
    if cluster.gpu[g].busy == 0:
        call(cluster, g)


@called
def land(cluster: Cluster, slot: int) -> None:
    """The KV of a decode is on its GPU."""
    stop_timer(cluster, slot)
    home = cluster.live[slot].kept
    if home != NOWHERE:
        arrived(cluster, slot)
        recall(cluster, home)
    wait_for_boundary(cluster, slot)


@called
def fetch_all(cluster: Cluster, g: int) -> float:
    """As many as `g` has memory for of those whose KV is elsewhere get it; seconds of swapping."""
    delay = 0.0
    line = gpu_line(cluster, g, FETCHING)
    while cluster.lines[line].head != NOWHERE:
        slot = cluster.lines[line].head
        request = cluster.live[slot]
        if blocks_to_fetch(cluster, g, slot) > cluster.gpu[g].blocks - blocks_next(cluster, g):
            break
        unlink(cluster, line, slot)
        if request.kept != NOWHERE:
            send(cluster, slot, fetch(cluster, g, slot))
            continue
        tokens = read_tokens(cluster, slot)
        tokens -= hold_kv(cluster, g, slot, tokens, blocks_to_join(cluster, slot))
        request.reserved = 1
        delay += tokens * cluster.set.keys.swap_seconds
        push_back(cluster, gpu_line(cluster, g, PENDING), slot)
    return delay


@called
def join_pending(cluster: Cluster, g: int) -> int:
    """Those whose KV is on `g` join its batch, if there is memory for their next tokens too; how many."""
    joined = 0
    pending = gpu_line(cluster, g, PENDING)
    limited = cluster.set.kv_blocks > 0
    after = cluster.lines[pending].head
    while after != NOWHERE:
        slot = after
        request = cluster.live[slot]
        after = request.next
        held = request.prompt + request.produced
        if limited and request.reserved == 0:
            more = blocks_to_join(cluster, slot) - blocks_of(cluster, held)
            if more > cluster.gpu[g].blocks - blocks_next(cluster, g):
                continue
            if cluster.set.caching:
                overwrite(cluster, g, more)
                cluster.gpu[g].prepaid += more
        unlink(cluster, pending, slot)
        if limited:
            claim(cluster, g, slot)
        if request.unread < 0:  # swapped out before
            request.unread = 0
        else:
            observe(cluster, DECODE_WAIT, request.cls, cluster.clock[NOW] - request.since, cluster.clock[NOW])
        join(cluster, g, slot, held)
        cluster.batch[g, FRESH, request.cls] += 1
        joined += 1
    return joined


@called
def gives_way(cluster: Cluster, g: int) -> bool:
    """`g` stands still: whether it must give up the KV of a prompt that it has read, lest it do so for good.

    Those that would join have no memory for their next tokens; or it keeps KV for a GPU that stands still as well, and
    each waits for the other's memory; or all stand still, and those whose KV it keeps wait for slots of those who wait
    for its memory. The one read last gives way, as if its decode had been preempted.
    """
    pending, fetching = gpu_line(cluster, g, PENDING), gpu_line(cluster, g, FETCHING)
    if cluster.gpu[g].moving > 0 or (cluster.lines[pending].members == 0 and cluster.lines[fetching].members == 0):
        return False
    slot = cluster.lines[pending].tail
    if slot != NOWHERE:
        unlink(cluster, pending, slot)
        push_front(cluster, fetching, slot)
    else:
        slot = held_up(cluster, g, True)
    if slot == NOWHERE and all_stuck(cluster):
        slot = last_buffered(cluster, g)
    if slot == NOWHERE:
        return False
    request = cluster.live[slot]
    there = request.gpu
    let_go(cluster, slot)
    request.piece = NOWHERE
    request.preemptions += 1
    cluster.events[events.DECODE_PREEMPTION, request.cls] += 1
    if cluster.set.keys.preemption == SWAP:
        request.unread = -1
    elif request.stage < stages.MIXED_DECODE:
        wait_no_more(cluster, slot)
        cluster.events[events.DECODE_START, request.cls] += 1
        request.unread = request.prompt + request.produced
        wait_in_front(cluster, slot)
    else:
        unlink(cluster, gpu_line(cluster, there, FETCHING), slot)
        lose_slot(cluster, there, slot)
    open_again(cluster, g)
    call(cluster, g)
    if there != g:
        call(cluster, there)
    return True


@called
def unblock(cluster: Cluster) -> bool:
    """No GPU is busy; if no KV moves either: whether something is done lest those who are there wait for good."""
    tally = cluster.tally
    if tally[ALIVE] == 0 or tally[DUE] > 0 or tally[ASKED] + tally[CHANGED] > 0 or not all_stuck(cluster):
        return False
    tally[COMPOSER] = NOWHERE
    for g in range(cluster.gpus):
        if gives_way(cluster, g):
            tally[ASKED] = ASK
            return True
    if tally[BARRED] == 0:
        return False
    for g in range(cluster.gpus):
        open_again(cluster, g)
    tally[ASKED] = ASK_FOR_DECODES
    return True
