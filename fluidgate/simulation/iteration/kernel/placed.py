"""GPUs that form their own batches: a request is placed on one as it arrives and waits there, FCFS.

How the batch of an iteration is formed is a discipline's, one file each in `batching`. In all of them the first token
comes at the end of the last chunk. With pools of GPUs a request goes on to another GPU then, and stands there as one
that was swapped out.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.compiled.tournament import winner
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.policies.decisions.placement import asks_for_reuse, place, show_queue
from fluidgate.policies.decisions.tables import Placement
from fluidgate.replanning import estimates
from fluidgate.simulation import events, pauses
from fluidgate.simulation.iteration.kernel.admission import (
    complete,
    finish_all,
    finish_later,
    record_own_gaps,
)
from fluidgate.simulation.iteration.kernel.batch import (
    end_decodes,
    join,
    record_own_gap,
    seat,
)
from fluidgate.simulation.iteration.kernel.cluster import (
    ACCUMULATING,
    DECODING,
    FETCHING,
    FRESH,
    LATE,
    LEFT_PREFILL_QUEUE,
    NOW,
    PROMPT_READ,
    READING,
    TOTAL_EVENTS,
    UNTIL,
    WAITING,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.handover import arrived, shorten, spare_blocks
from fluidgate.simulation.iteration.kernel.lines import accumulating_line, front_line, gpu_line, push_back, unlink
from fluidgate.simulation.iteration.kernel.live import enter, refused, what_is_missing
from fluidgate.simulation.iteration.kernel.memory import blocks_needed, give_back
from fluidgate.simulation.iteration.kernel.pools import change_load, leaves, pair, ship, unbind
from fluidgate.simulation.iteration.kernel.prefixes import ANSWER, expect, expect_no_more
from fluidgate.simulation.iteration.kernel.ranks import publish, rank_of_group, report, report_so_far, step_together
from fluidgate.simulation.iteration.kernel.record import count, move_clock, observe, retire, time_to_first
from fluidgate.simulation.iteration.kernel.reuse import look_for, to_read_on
from fluidgate.simulation.iteration.kernel.segment import (
    cut_segment,
    cut_segment_late,
    end_segment,
    first_rank,
    last_start,
)
from fluidgate.simulation.iteration.kernel.timers import in_transit, next_timer, set_timer, stop_timer
from fluidgate.simulation.iteration.kernel.users import (
    goes_on,
    hold_back,
    is_answer,
    next_arrival,
    next_request,
    take_turn,
)
from fluidgate.simulation.iteration.times import TTFT

POOLS = int(Placement.POOLS)
PRECISE = int(Placement.PRECISE)


@inlined
def advance(cluster, law, compose, block, budget):
    """Run up to `budget` events; returns a word of `pauses`.

    At one epoch arrivals come first, then the boundaries of GPUs, then landings of KV, then abandonments, in order of
    arrival; then what is sent in answer. It pauses when all events up to `clock[UNTIL]` are over.

    Args:
        cluster: Cluster.
        law: Law.
        compose: forms the next batch of a GPU: `compose(cluster, law, g, latest)`, see `batching`.
        block: requests in order of arrival.
    """
    tally = cluster.tally
    for _ in range(budget):
        missing = what_is_missing(cluster, block)
        if missing != NOWHERE:
            return missing
        g = winner(cluster.tree)
        boundary = cluster.epochs[g]
        timer = next_timer(cluster)
        arrival = hold_back(cluster, next_arrival(cluster, block), min(boundary, timer))
        epoch = min(arrival, boundary, timer)
        if epoch == np.inf and tally[ACCUMULATING] > 0:
            admit_the_rest(cluster)
            continue
        if epoch > cluster.clock[UNTIL] and goes_on(cluster, epoch):
            move_clock(cluster, cluster.clock[UNTIL])
            return pauses.REACHED
        arrives = arrival <= epoch
        take_turn(cluster, epoch, arrives)
        if not move_clock(cluster, epoch):
            return pauses.DONE
        tally[LATE] = 1 if (is_answer(cluster) if arrives else boundary > epoch) else 0
        if arrives:
            arrive(cluster, next_request(cluster, block))
        elif boundary <= epoch:
            reach_boundary(cluster, law, compose, g)
        elif in_transit(cluster, cluster.timers[0]):
            land(cluster, cluster.timers[0])
        else:
            abandon(cluster, cluster.timers[0])
        tally[TOTAL_EVENTS] += 1
    return pauses.PAUSED


@inlined
def arrive(cluster, arriving):
    slot = enter(cluster, arriving)
    if refused(cluster, slot):
        return
    if cluster.loads.ups[0] == 0:
        wait_at_front(cluster, slot)
        return
    if cluster.set.prefixes and asks_for_reuse(cluster.loads):
        look_for(cluster, slot, cluster.set.keys.data_parallel)
    if cluster.set.placement == POOLS:
        g = pair(cluster, slot)
    else:
        if cluster.set.placement == PRECISE:
            show_queues(cluster)
        g = place(cluster.loads, arriving.prompt, cluster.loads.reuse)
    if cluster.set.keys.data_parallel > 1:
        g = rank_of_group(cluster, g)
    cluster.live[slot].gpu = g
    cluster.live[slot].prefill_gpu = g
    count(cluster, stages.PREFILL_QUEUE, arriving.cls, 1)
    cluster.live[slot].loaded = to_read_on(cluster, g, slot)
    change_load(cluster, g, 1, cluster.live[slot].loaded)
    if cluster.set.prefixes:
        expect(cluster, g, slot)
    if arriving.patience < np.inf:
        set_timer(cluster, slot, cluster.live[slot].arrival + arriving.patience)
    if cluster.set.accumulate and cluster.thresholds[arriving.cls] > 1:
        accumulate(cluster, g, slot)
    else:
        wait(cluster, g, slot)


@called
def wait_at_front(cluster: Cluster, slot: int) -> None:
    """No GPU takes requests: the one that has arrived waits until one does."""
    request = cluster.live[slot]
    count(cluster, stages.PREFILL_QUEUE, request.cls, 1)
    push_back(cluster, front_line(cluster), slot)
    if request.patience < np.inf:
        set_timer(cluster, slot, request.arrival + request.patience)


@called
def show_queues(cluster: Cluster) -> None:
    """Bring who waits, and the memory that is taken, up to date everywhere: it changes with every token, so O(n)."""
    size, blocks = cluster.set.keys.data_parallel, cluster.set.kv_blocks
    for group in range(cluster.loads.gpus):
        waiting = spare = 0
        for g in range(group * size, group * size + size):
            waiting += cluster.lines[gpu_line(cluster, g, WAITING)].members
            if blocks > 0:
                spare += spare_blocks(cluster, g)
        used = 1.0 - spare / (size * blocks) if blocks > 0 else 0.0
        if waiting != cluster.loads.waiting[group] or used != cluster.loads.used[group]:
            show_queue(cluster.loads, group, waiting, used)


@inlined
def wait(cluster: Cluster, g: int, slot: int) -> None:
    """The request is the last of those who wait at `g`."""
    line = gpu_line(cluster, g, WAITING)
    push_back(cluster, line, slot)
    cluster.live[slot].came = cluster.clock[NOW]
    if cluster.lines[line].members == 1 or (cluster.live[slot].reserved == 1 and lacks_memory(cluster, g)):
        call(cluster, g, cluster.set.keys.async_scheduling)


@called
def accumulate(cluster: Cluster, g: int, slot: int) -> None:
    """The request waits at `g` until those of its class reach their threshold there."""
    cls = cluster.live[slot].cls
    line = accumulating_line(cluster, g, cls)
    push_back(cluster, line, slot)
    cluster.live[slot].accumulating = 1
    cluster.tally[ACCUMULATING] += 1
    if cluster.lines[line].members >= cluster.thresholds[cls]:
        admit_all(cluster, g, line)


@called
def admit_all(cluster: Cluster, g: int, line: int) -> None:
    """Those who have accumulated in `line` come after those who wait at `g`."""
    while cluster.lines[line].members > 0:
        slot = cluster.lines[line].head
        unlink(cluster, line, slot)
        cluster.live[slot].accumulating = 0
        cluster.tally[ACCUMULATING] -= 1
        wait(cluster, g, slot)


@called
def admit_the_rest(cluster: Cluster) -> None:
    """No other request will come: whoever accumulates is admitted."""
    for g in range(cluster.gpus):
        for i in range(cluster.counts.shape[1]):
            admit_all(cluster, g, accumulating_line(cluster, g, i))


@called
def land(cluster: Cluster, slot: int) -> None:
    """The KV of a request has come to the GPU where it decodes."""
    request = cluster.live[slot]
    stop_timer(cluster, slot)
    request.stage = stages.SOLO_QUEUE
    request.unread = 0
    if request.kept != NOWHERE:
        leave_home(cluster, slot)
    change_load(cluster, request.gpu, 1, 0)
    wait(cluster, request.gpu, slot)


@called
def leave_home(cluster: Cluster, slot: int) -> None:
    """The KV of a request that has landed leaves the GPU that has read it, where others may wait for the memory."""
    home = cluster.live[slot].kept
    short = lacks_memory(cluster, home)
    arrived(cluster, slot)
    if short and cluster.gpu[home].busy == 1:
        shorten(cluster, home)
    elif short:
        cut_segment(cluster, home)


@called
def lacks_memory(cluster: Cluster, g: int) -> bool:
    """Whether somebody waits for memory of `g`."""
    if cluster.lines[gpu_line(cluster, g, FETCHING)].members > 0:
        return True
    slot = cluster.lines[gpu_line(cluster, g, WAITING)].head
    if slot == NOWHERE or cluster.live[slot].stage == stages.SOLO_QUEUE:
        return False
    request = cluster.live[slot]
    tokens = request.prompt + request.produced + (cluster.set.keys.kv_reservation if request.unread > 0 else 0)
    return blocks_needed(cluster, g, slot, tokens) > spare_blocks(cluster, g)


@inlined
def call(cluster: Cluster, g: int, late: bool) -> None:
    """The first of those who wait at `g` is a new one: `g` looks at it as soon as it may, or an iteration later."""
    here = cluster.gpu[g]
    if here.busy == 0 or (here.chunk == 0 and here.decodes < cluster.batch_size):
        if late and (here.busy == 1 or here.along > 0):
            cut_segment_late(cluster, g)
        else:
            cut_segment(cluster, g)


@called
def abandon(cluster: Cluster, slot: int) -> None:
    """The patience of a waiting request is at its end."""
    request = cluster.live[slot]
    g = request.gpu
    stop_timer(cluster, slot)
    if g == NOWHERE:
        leave_front(cluster, slot)
        return
    if cluster.set.keys.data_parallel > 1:
        report_so_far(cluster, g)
    line = gpu_line(cluster, g, WAITING)
    if request.accumulating == 1:
        line = accumulating_line(cluster, g, request.cls)
        cluster.tally[ACCUMULATING] -= 1
    was_first = cluster.lines[line].head == slot and request.accumulating == 0
    unlink(cluster, line, slot)
    count(cluster, stages.PREFILL_QUEUE, request.cls, -1)
    cluster.events[events.PREFILL_ABANDONMENT, request.cls] += 1
    change_load(cluster, g, -1, -request.loaded)
    expect_no_more(cluster, slot)
    unbind(cluster, slot)
    retire(cluster, slot, LEFT_PREFILL_QUEUE)
    if was_first and cluster.lines[line].members > 0:
        call(cluster, g, False)


@called
def leave_front(cluster: Cluster, slot: int) -> None:
    """One that is on no GPU leaves."""
    request = cluster.live[slot]
    unlink(cluster, front_line(cluster), slot)
    count(cluster, stages.PREFILL_QUEUE, request.cls, -1)
    cluster.events[events.PREFILL_ABANDONMENT, request.cls] += 1
    retire(cluster, slot, LEFT_PREFILL_QUEUE)


@inlined
def reach_boundary(cluster, law, compose, g):
    """An iteration of `g` and of the ranks in step with it has ended, or they were idle and `g` is called."""
    latest = end_iterations(cluster, g)
    first = first_rank(cluster, g)
    for r in range(first, first + cluster.set.keys.data_parallel):
        compose(cluster, law, r, latest)
    start_iterations(cluster, g)


@inlined
def end_iterations(cluster: Cluster, g: int) -> float:
    """As `end_iteration`, of all ranks in step with `g`."""
    latest = np.inf
    if cluster.set.keys.data_parallel > 1:
        publish(cluster, g)
    first = first_rank(cluster, g)
    for r in range(first, first + cluster.set.keys.data_parallel):
        latest = min(latest, end_iteration(cluster, r))
    return latest


@inlined
def start_iterations(cluster: Cluster, g: int) -> None:
    """All ranks in step with `g` have formed their batches."""
    if cluster.set.keys.data_parallel > 1:
        step_together(cluster, g)
    first = first_rank(cluster, g)
    for r in range(first, first + cluster.set.keys.data_parallel):
        if cluster.gpu[r].joining > 0:
            record_own_gaps(cluster, r)


@inlined
def end_iteration(cluster: Cluster, g: int) -> float:
    """Decodes leave and prefills end, if an iteration of `g` was under way; who came later is not in the next batch."""
    here = cluster.gpu[g]
    latest = np.inf
    ran = here.busy == 1 or here.along > 0
    here.along = 0
    if ran and cluster.set.keys.async_scheduling:
        latest = last_start(cluster, g)
    if here.busy == 1:
        chunk = here.chunk
        end_segment(cluster, g)
        end_decodes(cluster, g)
        if not cluster.set.keys.async_scheduling:
            finish_all(cluster, g)
        if chunk > 0:
            end_prefills(cluster, g)
    if ran and cluster.set.keys.data_parallel > 1:
        report(cluster, g)
    return latest


@inlined
def end_prefills(cluster: Cluster, g: int) -> None:
    """The prompts of `g` that are read to their end gain their first token and join the decodes."""
    now = cluster.clock[NOW]
    line = gpu_line(cluster, g, READING)
    slot = cluster.lines[line].head
    while slot != NOWHERE and cluster.live[slot].unread == 0:
        request = cluster.live[slot]
        after = request.next
        unlink(cluster, line, slot)
        cls = request.cls
        tokens = request.prompt + request.produced
        change_load(cluster, g, 0, -request.loaded)
        request.loaded = 0
        count(cluster, stages.PREFILL, cls, -1)
        cluster.events[events.PREFILL_END, cls] += 1
        if request.produced == 0:
            request.first = now
            observe(cluster, TTFT, cls, time_to_first(cluster, slot), now)
            cluster.tokens[PROMPT_READ, cls] += request.prompt
            if len(cluster.estimates) > 0:
                estimates.prompt_read(cluster.estimates, cls, now, request.prompt)
        else:
            record_own_gap(cluster, slot, now, True)
        request.last = now
        request.produced += 1
        cluster.gpu[g].held -= tokens
        if request.produced == request.output:
            cluster.events[events.DECODE_START, cls] += 1
            if cluster.set.keys.async_scheduling:
                keep(cluster, g, slot, tokens)
            else:
                give_back(cluster, g, slot, tokens, tokens, ANSWER)
                change_load(cluster, g, -1, 0)
                unbind(cluster, slot)
                complete(cluster, slot)
        elif cluster.set.placement == POOLS and leaves(cluster, g, slot):
            change_load(cluster, g, -1, 0)
            ship(cluster, slot)
        else:
            cluster.events[events.DECODE_START, cls] += 1
            join(cluster, g, slot, tokens)
            seat(cluster, g, cls)
            if not cluster.set.joins_at_once:
                cluster.batch[g, FRESH, cls] += 1
        slot = after


@called
def keep(cluster: Cluster, g: int, slot: int, tokens: int) -> None:
    """A request has ended with its prompt; it stays, a decode that stands still, until the next batch is composed."""
    request = cluster.live[slot]
    request.held = tokens
    request.joined = cluster.gpu[g].iteration
    if cluster.set.ordered:
        push_back(cluster, gpu_line(cluster, g, DECODING), slot)
    seat(cluster, g, request.cls)
    finish_later(cluster, g, slot)
