"""The invariants of the iteration model, checked after every event of an audited run."""

from __future__ import annotations

from fluidgate.compiled import called
from fluidgate.policies.decisions.view import MIXED, SOLO
from fluidgate.simulation.iteration.cluster import (
    ALIVE,
    DECODE_PREEMPTION,
    DECODING,
    LINES,
    MIXED_GROUP,
    MIXED_POOL,
    POOLS,
    PREFILL_PREEMPTION,
    READING,
    REJECTION,
    REJOIN,
    RUNNING,
    SEATED,
    SLOT_BITS,
    SLOT_MASK,
    TIMERS,
    UNREAD,
    WAITING,
    Batching,
    Cluster,
    Placement,
)
from fluidgate.simulation.iteration.lines import accumulating_line, gpu_line, policy_line
from fluidgate.simulation.iteration.memory import (
    blocks_of,
)
from fluidgate.simulation.markov.network import (
    ARRIVAL,
    DECODE_ABANDONMENT,
    DECODE_END,
    DECODE_START,
    MIXED_DECODE,
    MIXED_QUEUE,
    NONE,
    PREFILL,
    PREFILL_ABANDONMENT,
    PREFILL_END,
    PREFILL_QUEUE,
    PREFILL_START,
    QUEUES,
    SOLO_DECODE,
    SOLO_QUEUE,
    STAGES,
)

SINGLE_PREFILL = int(Batching.SINGLE_PREFILL)
PLACED_IN_POOLS = int(Placement.POOLS)

MESSAGES = (
    "all is well",
    "a count is negative, or a balance is broken",
    "a GPU holds more requests than its batch, or a prefill where none may be",
    "a heap of last iterations is out of order, or names a decode that is over or elsewhere",
    "the context or the classes of a batch differ from its decodes",
    "KV memory: blocks held and blocks free differ from the capacity, or are negative",
    "a line of requests is broken",
    "the timers are out of order, or do not know their requests",
    "the tournament's winner is not the GPU with the next boundary",
    "the load of a GPU differs from its requests, or its pool is not that of its work",
    "the gate named a class that does not exist or has nobody waiting",
    "the route is none of MIXED, SOLO, STAY, WAIT and WAIT + 1",
    "the refill named a class that does not exist or has nobody in the buffer",
    "a GPU is in none of the lists of ready GPUs that it belongs to, or in one that it does not",
    "the mixed group has another size than the tables say, or a GPU leaves it without a prefill",
)


@called
def full_audit(cluster):
    """Index into MESSAGES of the first invariant that is broken, 0 if none; O(requests in the cluster)."""
    code = check_balances(cluster) or check_timers(cluster) or check_winner(cluster) or check_groups(cluster)
    for g in range(cluster.gpus):
        code = code or check_slots(cluster, g) or check_batch(cluster, g) or check_memory(cluster, g)
        code = code or check_loads(cluster, g) or check_ready(cluster, g) or check_pool(cluster, g)
    for line in range(len(cluster.lines)):
        code = code or check_line(cluster, line)
    return code


@called
def check_balances(cluster: Cluster) -> int:
    events, counts = cluster.events, cluster.counts
    alive = 0
    for i in range(counts.shape[1]):
        waiting, decoding = counts[PREFILL_QUEUE, i], counts[MIXED_DECODE, i] + counts[SOLO_DECODE, i]
        buffered = counts[MIXED_QUEUE, i] + counts[SOLO_QUEUE, i]
        for stage in range(STAGES):
            alive += counts[stage, i]
            if counts[stage, i] < 0:
                return 1
        returned = events[PREFILL_PREEMPTION, i] + (0 if keeps_slot(cluster) else events[DECODE_PREEMPTION, i])
        left = events[REJECTION, i] + events[PREFILL_ABANDONMENT, i] + events[PREFILL_START, i] + events[REJOIN, i]
        if (
            waiting != events[ARRIVAL, i] + returned - left
            or counts[PREFILL, i] != events[PREFILL_START, i] - events[PREFILL_END, i] - events[PREFILL_PREEMPTION, i]
            or buffered != events[PREFILL_END, i] - events[DECODE_START, i] - events[DECODE_ABANDONMENT, i]
            or decoding
            != events[DECODE_START, i]
            + events[REJOIN, i]
            - events[DECODE_END, i]
            - (0 if keeps_slot(cluster) else events[DECODE_PREEMPTION, i])
        ):
            return 1
    return 0 if alive == cluster.tally[ALIVE] else 1


@called
def keeps_slot(cluster: Cluster) -> bool:
    """Whether a preempted decode keeps its slot."""
    return cluster.set.swap and cluster.set.batching == SINGLE_PREFILL


@called
def check_slots(cluster: Cluster, g: int) -> int:
    here = cluster.gpu[g]
    if here.decodes < 0 or here.decodes > cluster.batch_size or here.finished != 0:
        return 2
    if cluster.set.batching != SINGLE_PREFILL:
        reading = cluster.lines[gpu_line(cluster, g, READING)].size
        return 2 if here.decodes + reading > cluster.batch_size else 0
    prefills = 1 if here.prefill_seat != NONE else 0
    seated = 0
    for i in range(cluster.batch.shape[2]):
        seated += cluster.batch[g, SEATED, i]
    slots = cluster.batch_size
    if prefills == 1 or (cluster.reserve and here.group == MIXED and here.crowded == 0):
        slots -= 1
    if seated > slots or seated + prefills != here.occupied or (prefills == 1 and here.group == SOLO):
        return 2
    return 0 if here.mixed == prefills else 2


@called
def check_ready(cluster: Cluster, g: int) -> int:
    """Whether `g` stands where it says in the lists that it belongs to, and in no other."""
    if cluster.set.batching != SINGLE_PREFILL:
        return 0
    here = cluster.gpu[g]
    idle = here.prefill_seat == NONE
    room = here.occupied < cluster.batch_size
    reserved = cluster.reserve and here.group == MIXED and idle
    decode = room and not (reserved and here.occupied + 1 == cluster.batch_size)
    if decode != (here.decode_position != NONE):
        return 13
    if (room and idle and here.group == MIXED) != (here.prefill_position != NONE):
        return 13
    if (room and not idle) != (here.beside_position != NONE):
        return 13
    if decode:
        at = here.decode_position
        if at >= cluster.free[here.group] or cluster.decode_ready[here.group, at] != g:
            return 13
    if here.prefill_position != NONE:
        at = here.prefill_position
        if at >= cluster.startable[0] or cluster.prefill_ready[at] != g:
            return 13
    if here.beside_position != NONE:
        at = here.beside_position
        if at >= cluster.beside[0] or cluster.beside_ready[at] != g:
            return 13
    return 0


@called
def check_groups(cluster: Cluster) -> int:
    if cluster.set.batching != SINGLE_PREFILL:
        return 0
    mixed = 0
    mixed_free = solo_free = startable = beside = 0
    for g in range(cluster.gpus):
        here = cluster.gpu[g]
        if here.leaving == 1 and (here.group == SOLO or here.prefill_seat == NONE):
            return 14
        if here.group == MIXED and here.leaving == 0:
            mixed += 1
        if here.decode_position != NONE and here.group == MIXED:
            mixed_free += 1
        if here.decode_position != NONE and here.group == SOLO:
            solo_free += 1
        startable += 1 if here.prefill_position != NONE else 0
        beside += 1 if here.beside_position != NONE else 0
    if mixed_free != cluster.free[MIXED] or solo_free != cluster.free[SOLO]:
        return 13
    if startable != cluster.startable[0] or beside != cluster.beside[0]:
        return 13
    return 0 if mixed == cluster.tally[MIXED_GROUP] else 14


@called
def check_batch(cluster: Cluster, g: int) -> int:
    here = cluster.gpu[g]
    context = 0
    running = 0
    for i in range(cluster.batch.shape[2]):
        running += cluster.batch[g, RUNNING, i]
    if running != here.decodes:
        return 4
    for k in range(here.decodes):
        entry = cluster.heaps[g, k]
        slot = entry & SLOT_MASK
        who = cluster.live[slot]
        if k > 0 and cluster.heaps[g, (k - 1) // 2] > entry:
            return 3
        ends = who.joined + who.output - who.produced
        if who.gpu != g or entry >> SLOT_BITS != ends or ends <= here.iteration:
            return 3
        context += who.prompt + who.produced + here.iteration - who.joined
    return 0 if context == here.context else 4


@called
def check_memory(cluster: Cluster, g: int) -> int:
    if cluster.set.kv_blocks == 0:
        return 0
    here = cluster.gpu[g]
    held = 0
    for k in range(here.decodes):
        who = cluster.live[cluster.heaps[g, k] & SLOT_MASK]
        held += blocks_of(cluster, who.held + here.iteration - who.joined)
    slot = cluster.lines[gpu_line(cluster, g, READING)].head
    while slot != NONE:
        held += blocks_of(cluster, cluster.live[slot].prompt + cluster.live[slot].produced)
        slot = cluster.live[slot].next
    if here.reading == 1:
        who = cluster.live[here.prefill_seat]
        held += blocks_of(cluster, who.prompt + who.produced)
    if here.blocks < 0 or held + here.blocks != cluster.set.kv_blocks:
        return 5
    return check_free_blocks(cluster, g) if cluster.set.caching else 0


@called
def check_free_blocks(cluster: Cluster, g: int) -> int:
    here = cluster.gpu[g]
    free = here.behind
    slot = cluster.lines[gpu_line(cluster, g, WAITING)].head
    while slot != NONE:
        who = cluster.live[slot]
        if who.cached < 0 or who.ahead < 0 or (who.preemptions == 0 and who.cached > 0):
            return 5
        free += who.cached + who.ahead
        slot = who.next
    return 0 if here.behind >= 0 and free == here.blocks - here.prepaid else 5


@called
def check_loads(cluster: Cluster, g: int) -> int:
    if cluster.set.batching == SINGLE_PREFILL:
        return 0
    load = cluster.gpu[g].decodes
    unread = 0
    for kind in (WAITING, READING):
        slot = cluster.lines[gpu_line(cluster, g, kind)].head
        while slot != NONE:
            load += 1
            if kind == READING or cluster.live[slot].unread > 0:
                unread += cluster.live[slot].prompt + cluster.live[slot].produced
            slot = cluster.live[slot].next
    if cluster.set.accumulate:
        for i in range(cluster.counts.shape[1]):
            slot = cluster.lines[accumulating_line(cluster, g, i)].head
            if cluster.lines[accumulating_line(cluster, g, i)].size >= cluster.thresholds[i]:
                return 9
            while slot != NONE:
                load += 1
                unread += cluster.live[slot].prompt
                slot = cluster.live[slot].next
    return 0 if load == cluster.gpu[g].load and unread == cluster.gpu[g].unread else 9


@called
def check_pool(cluster: Cluster, g: int) -> int:
    if cluster.set.placement != PLACED_IN_POOLS:
        return 0
    here = cluster.gpu[g]
    bound = 0
    for slot in range(len(cluster.live)):
        if cluster.live[slot].stage != NONE and cluster.live[slot].decode_gpu == g:
            bound += 1
    for pool in range(POOLS):
        for measure in range(2):
            keys, winner = cluster.pool_keys[pool, measure], cluster.pool_trees[pool, measure, 1]
            value = here.unread if measure == UNREAD else here.bound
            if keys[g] != (value if pool == here.pool else float("inf")) or keys[g] < keys[winner]:
                return 9
    if here.pool == MIXED_POOL and (here.bound if g < cluster.set.prompt_gpus else here.unread) == 0:
        return 9
    return 0 if bound == here.bound else 9


@called
def check_line(cluster: Cluster, number: int) -> int:
    line = cluster.lines[number]
    size, last, slot = 0, NONE, line.head
    while slot != NONE:
        if cluster.live[slot].previous != last or size > line.size:
            return 6
        size += 1
        last = slot
        slot = cluster.live[slot].next
    if size != line.size or line.tail != last:
        return 6
    if number < policy_line(cluster, QUEUES, 0):
        classes = cluster.counts.shape[1]
        queue, cls = number // classes, number % classes
        if cluster.set.batching == SINGLE_PREFILL and size != cluster.counts[queue, cls]:
            return 6
        if size > 0 and cluster.since[queue, cls] != cluster.live[line.head].since:
            return 6
    elif not cluster.set.ordered and decoding_line(cluster, number) and size > 0:
        return 6
    return 0


@called
def decoding_line(cluster: Cluster, number: int) -> bool:
    number -= policy_line(cluster, QUEUES, 0)
    return number < LINES * cluster.gpus and number % LINES == DECODING


@called
def check_timers(cluster: Cluster) -> int:
    for k in range(cluster.tally[TIMERS]):
        slot = cluster.timers[k]
        if cluster.live[slot].timer_position != k or cluster.live[slot].stage == NONE:
            return 7
        if k > 0 and cluster.live[cluster.timers[(k - 1) // 2]].timer > cluster.live[slot].timer:
            return 7
    return 0


@called
def check_winner(cluster: Cluster) -> int:
    for g in range(cluster.gpus):
        if cluster.epochs[g] < cluster.epochs[cluster.tree[1]]:
            return 8
    return 0
