"""The invariants of the iteration model, checked after every event of an audited run."""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE, at_its_level
from fluidgate.policies.decisions.limits import sound
from fluidgate.policies.decisions.tables import Placement
from fluidgate.policies.decisions.view import BUSY, DECODES, MIXED, MIXED_BUSY, SLOT_SECONDS, SOLO, TOKENS
from fluidgate.simulation import events
from fluidgate.simulation.iteration.kernel.cache_audit import check_cache
from fluidgate.simulation.iteration.kernel.cluster import (
    ALIVE,
    DECODING,
    DUE,
    ENDED,
    LINES,
    MIXED_GROUP,
    MIXED_POOL,
    NOW,
    OUT,
    POOLS,
    READING,
    RUNNING,
    SEATED,
    SLOT_BITS,
    SLOT_MASK,
    THINKING,
    TIMERS,
    UNREAD,
    USERS,
    WAITING,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.handover import read_tokens
from fluidgate.simulation.iteration.kernel.keys import SWAP
from fluidgate.simulation.iteration.kernel.lines import accumulating_line, gpu_line, policy_line
from fluidgate.simulation.iteration.kernel.memory import blocks_of, blocks_taken
from fluidgate.simulation.iteration.kernel.prefixes import HOLE, blocks_until
from fluidgate.simulation.iteration.kernel.segment import first_rank

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
    "a GPU is in none of the lists of ready GPUs that it belongs to, or in one that it does not",
    "the mixed group has another size than the tables say, or a GPU leaves it without a prefill",
    "ranks of a group are out of step",
    "a virtual queue is negative, or no class is the least served, or the pace is not that of the iterations under way",
    "a user of the closed loop neither thinks nor waits for an answer, or does both, or they think out of order",
    "what lies in KV memory is not what those who are there hold, or is not found, or its free blocks are out of line",
)


@called
def full_audit(cluster):
    """Index into MESSAGES of the first invariant that is broken, 0 if none; O(requests in the cluster)."""
    code = check_balances(cluster) or check_timers(cluster) or check_winner(cluster) or check_groups(cluster)
    code = code or check_step(cluster)
    for g in range(cluster.gpus):
        code = code or check_slots(cluster, g) or check_batch(cluster, g) or check_memory(cluster, g)
        code = code or check_loads(cluster, g) or check_ready(cluster, g) or check_pool(cluster, g)
    for line in range(len(cluster.lines)):
        code = code or check_line(cluster, line)
    code = code or check_limits(cluster) or check_users(cluster)
    return code or (0 if check_cache(cluster) else 15)


@called
def check_users(cluster: Cluster) -> int:
    """Whether they think in order, and each user thinks or has one request in the cluster while there are requests."""
    if len(cluster.users) == 0:
        return 0
    users, numbers, total = 0, 0, cluster.tally[USERS]
    for k in range(cluster.tally[THINKING]):
        if k > 0 and cluster.users[(k - 1) // 2].sends > cluster.users[k].sends:
            return 14
        if cluster.users[k].number < total:
            users += 1
            numbers += cluster.users[k].number
    for slot in range(len(cluster.live)):
        if cluster.live[slot].stage != NOWHERE and 0 <= cluster.live[slot].user < total:
            users += 1
            numbers += cluster.live[slot].user
    all_there = users == total and numbers == total * (total - 1) // 2
    return 0 if all_there or (cluster.tally[ENDED] == 1 and users < total) else 14


@called
def check_limits(cluster: Cluster) -> int:
    if not cluster.set.by_policy:
        return 0
    view = cluster.board.state
    if not sound(view, cluster.clock[NOW]):
        return 13
    if np.isnan(view.pace[SLOT_SECONDS]):
        return 0
    busy, mixed, decodes, tokens = 0, 0, 0, 0.0
    for g in range(cluster.gpus):
        here = cluster.gpu[g]
        if here.busy == 1:
            busy += 1
            mixed += 1 if here.chunk > 0 else 0
            decodes += here.batch
            tokens += here.batch / here.first
    right = view.pace[BUSY] == busy and view.pace[MIXED_BUSY] == mixed and view.pace[DECODES] == decodes
    return 0 if right and abs(view.pace[TOKENS] - tokens) <= 1e-6 * (1.0 + tokens) else 13


@called
def check_balances(cluster: Cluster) -> int:
    counts = cluster.counts
    alive = 0
    for i in range(counts.shape[1]):
        happened = cluster.events[:, i]
        dropped = 0 if keeps_slot(cluster) else happened[events.DECODE_PREEMPTION]
        lost = happened[events.PREFILL_LOSS] + happened[events.DECODE_LOSS]
        started, read = happened[events.PREFILL_START], happened[events.PREFILL_END]
        seated, rejoined = happened[events.DECODE_START], happened[events.REJOIN]
        given_up = happened[events.PREFILL_PREEMPTION]
        left = happened[events.REJECTION] + happened[events.PREFILL_ABANDONMENT] + started + rejoined
        buffered = counts[stages.MIXED_QUEUE, i] + counts[stages.SOLO_QUEUE, i]
        decoding = counts[stages.MIXED_DECODE, i] + counts[stages.SOLO_DECODE, i]
        for stage in range(stages.STAGES):
            alive += counts[stage, i]
            if counts[stage, i] < 0:
                return 1
        if (
            counts[stages.PREFILL_QUEUE, i] != happened[events.ARRIVAL] + given_up + dropped + lost - left
            or counts[stages.PREFILL, i] != started - read - given_up - happened[events.PREFILL_LOSS]
            or buffered != read - seated - happened[events.DECODE_ABANDONMENT]
            or decoding != seated + rejoined - happened[events.DECODE_END] - dropped - happened[events.DECODE_LOSS]
        ):
            return 1
    return 0 if alive == cluster.tally[ALIVE] else 1


@called
def keeps_slot(cluster: Cluster) -> bool:
    """Whether a preempted decode keeps its slot."""
    return cluster.set.keys.preemption == SWAP and cluster.set.by_policy


@called
def check_slots(cluster: Cluster, g: int) -> int:
    here = cluster.gpu[g]
    if here.decodes < 0 or here.decodes > cluster.batch_size or here.finished != 0:
        return 2
    if not cluster.set.by_policy:
        reading = cluster.lines[gpu_line(cluster, g, READING)].members
        return 2 if here.decodes + reading > cluster.batch_size else 0
    prefills = 1 if here.prefill_seat != NOWHERE else 0
    seated = 0
    for i in range(cluster.batch.shape[2]):
        seated += cluster.batch[g, SEATED, i]
    slots = cluster.batch_size
    if prefills == 1 or (cluster.board.reserve and here.group == MIXED and here.crowded == 0):
        slots -= 1
    closed = cluster.batch_size if here.group == OUT else 0
    if seated > slots or seated + prefills + closed != here.occupied or (prefills == 1 and here.group == SOLO):
        return 2
    return 0 if here.mixed == prefills else 2


@called
def check_ready(cluster: Cluster, g: int) -> int:
    """Whether `g` stands where it says in the lists that it belongs to, and in no other."""
    here = cluster.gpu[g]
    if cluster.set.gated:
        return check_room(cluster, g)
    if not cluster.set.by_policy:
        return 0
    idle = here.prefill_seat == NOWHERE
    room = here.occupied < cluster.batch_size
    reserved = cluster.board.reserve and here.group == MIXED and idle
    decode = room and not (reserved and here.occupied + 1 == cluster.batch_size)
    if decode != (here.decode_position != NOWHERE):
        return 10
    if (room and idle and here.barred == 0 and here.group == MIXED) != (here.prefill_position != NOWHERE):
        return 10
    if (room and not idle) != (here.beside_position != NOWHERE):
        return 10
    if decode:
        at = here.decode_position
        if at >= cluster.board.state.free[here.group] or cluster.board.decode_ready[here.group, at] != g:
            return 10
    if here.prefill_position != NOWHERE:
        at = here.prefill_position
        if at >= cluster.board.state.startable[0] or cluster.board.prefill_ready[at] != g:
            return 10
        if not at_its_level(cluster.board, g):
            return 10
    if here.beside_position != NOWHERE:
        at = here.beside_position
        if at >= cluster.board.state.beside[0] or cluster.board.beside_ready[at] != g:
            return 10
    return 0


@called
def check_room(cluster: Cluster, g: int) -> int:
    """Of a GPU under a gate: its slots are those of its requests, and it is listed where it has room, at its level."""
    here = cluster.gpu[g]
    waiting, reading = gpu_line(cluster, g, WAITING), gpu_line(cluster, g, READING)
    held = here.decodes + cluster.lines[waiting].members + cluster.lines[reading].members
    closed = cluster.batch_size if here.group == OUT else 0
    if here.occupied != held + closed or held > cluster.batch_size:
        return 2
    if (here.barred == 0 and here.occupied < cluster.batch_size) != (here.prefill_position != NOWHERE):
        return 10
    if here.prefill_position != NOWHERE and not at_its_level(cluster.board, g):
        return 10
    return 10 if here.booked != NOWHERE and (here.barred == 0 or cluster.booked[here.booked] < 1) else 0


@called
def check_groups(cluster: Cluster) -> int:
    if not cluster.set.by_policy:
        return 0
    mixed = 0
    mixed_free = solo_free = startable = beside = 0
    for g in range(cluster.gpus):
        here = cluster.gpu[g]
        if here.leaving == 1 and (here.group == SOLO or here.prefill_seat == NOWHERE):
            return 11
        if here.group == MIXED and here.leaving == 0:
            mixed += 1
        if here.decode_position != NOWHERE and here.group == MIXED:
            mixed_free += 1
        if here.decode_position != NOWHERE and here.group == SOLO:
            solo_free += 1
        startable += 1 if here.prefill_position != NOWHERE else 0
        beside += 1 if here.beside_position != NOWHERE else 0
    if mixed_free != cluster.board.state.free[MIXED] or solo_free != cluster.board.state.free[SOLO]:
        return 10
    if startable != cluster.board.state.startable[0] or beside != cluster.board.state.beside[0]:
        return 10
    return 0 if mixed == cluster.tally[MIXED_GROUP] else 11


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
        request = cluster.live[slot]
        if k > 0 and cluster.heaps[g, (k - 1) // 2] > entry:
            return 3
        ends = request.joined + request.output - request.produced
        if request.gpu != g or entry >> SLOT_BITS != ends or ends <= here.iteration:
            return 3
        context += request.prompt + request.produced + here.iteration - request.joined
    return 0 if context == here.context else 4


@called
def check_memory(cluster: Cluster, g: int) -> int:
    if cluster.set.kv_blocks == 0:
        return 0
    here = cluster.gpu[g]
    held = 0
    for k in range(here.decodes):
        request = cluster.live[cluster.heaps[g, k] & SLOT_MASK]
        held += own_blocks(cluster, request.held + here.iteration - request.joined, request.piece)
    slot = cluster.lines[gpu_line(cluster, g, READING)].head
    while slot != NOWHERE:
        request = cluster.live[slot]
        held += own_blocks(cluster, request.prompt + request.produced, request.piece)
        slot = request.next
    if here.reading == 1:
        request = cluster.live[here.prefill_seat]
        held += own_blocks(cluster, request.prompt + request.produced, request.piece)
    moving = 0
    for slot in range(len(cluster.live)):
        request = cluster.live[slot]
        if request.stage == NOWHERE:
            continue
        if request.kept == g:
            held += own_blocks(cluster, read_tokens(cluster, slot), request.piece)
            moving += request.reserved
        if request.reserved == 1 and request.gpu == g and request.stage == stages.PREFILL:
            held += own_blocks(cluster, request.prompt + request.produced, request.piece)
        elif request.reserved == 1 and request.gpu == g:
            coming = request.kept != NOWHERE
            held += own_blocks(cluster, read_tokens(cluster, slot) + 1, request.there if coming else request.piece)
            moving += 1 if request.kept != NOWHERE else 0
    if here.blocks < 0 or moving != here.moving:
        return 5
    held += text_blocks(cluster, g)
    if held + here.blocks != cluster.set.kv_blocks:
        return 5
    if here.busy == 1 and here.batch == here.decodes and blocks_taken(cluster, g, here.length) > here.blocks:
        return 5
    return check_free_blocks(cluster, g) if cluster.set.caching else 0


@inlined
def own_blocks(cluster: Cluster, tokens: int, record: int) -> int:
    """Blocks of `tokens` tokens that are not those of the text up to the piece of a record."""
    shared = 0 if record == NOWHERE else blocks_until(cluster, cluster.cached[record].piece)
    return blocks_of(cluster, tokens) - shared


@called
def text_blocks(cluster: Cluster, g: int) -> int:
    """Blocks of texts that somebody holds on `g`."""
    blocks = 0
    for record in range(len(cluster.cached)):
        here = cluster.cached[record]
        if here.gpu == g and here.refs > 0:
            blocks += here.present
    return blocks


@called
def check_free_blocks(cluster: Cluster, g: int) -> int:
    """The free blocks are all there once, and what they hold is nobody's."""
    free, last = 0, NOWHERE
    record = cluster.gpu[g].first_free
    while record != NOWHERE:
        here = cluster.cached[record]
        if here.gpu != g or here.refs > 0 or here.present < 1 or here.before != last:
            return 5
        if here.piece < HOLE and cluster.live[-1 - here.piece].own != record:
            return 5
        free += here.present
        last = record
        record = here.after
    return 0 if free == cluster.gpu[g].blocks - cluster.gpu[g].prepaid and last == cluster.gpu[g].last_free else 5


@called
def check_loads(cluster: Cluster, g: int) -> int:
    """The load of `g`, or of its group of ranks in step."""
    if cluster.set.by_policy:
        return 0
    load, unread = 0, 0
    first = first_rank(cluster, g)
    for r in range(first, first + cluster.set.keys.data_parallel):
        load += cluster.gpu[r].decodes
        for kind in (WAITING, READING):
            slot = cluster.lines[gpu_line(cluster, r, kind)].head
            while slot != NOWHERE:
                load += 1
                if kind == READING or cluster.live[slot].unread > 0:
                    unread += cluster.live[slot].loaded
                slot = cluster.live[slot].next
        for i in range(cluster.counts.shape[1] if cluster.set.accumulate else 0):
            slot = cluster.lines[accumulating_line(cluster, r, i)].head
            if cluster.lines[accumulating_line(cluster, r, i)].members >= cluster.thresholds[i]:
                return 9
            while slot != NOWHERE:
                load += 1
                unread += cluster.live[slot].loaded
                slot = cluster.live[slot].next
    group = g // cluster.set.keys.data_parallel
    return 0 if load == cluster.loads.load[group] and unread == cluster.loads.unread[group] else 9


@called
def check_pool(cluster: Cluster, g: int) -> int:
    if cluster.set.placement != PLACED_IN_POOLS:
        return 0
    here = cluster.gpu[g]
    bound = 0
    for slot in range(len(cluster.live)):
        if cluster.live[slot].stage != NOWHERE and cluster.live[slot].decode_gpu == g:
            bound += 1
    for pool in range(POOLS):
        for measure in range(2):
            keys, winner = cluster.pool_keys[pool, measure], cluster.pool_trees[pool, measure, 1]
            value = cluster.loads.unread[g] if measure == UNREAD else here.bound
            if keys[g] != (value if pool == here.pool else float("inf")) or keys[g] < keys[winner]:
                return 9
    if here.pool == MIXED_POOL and (here.bound if g < cluster.set.prompt_gpus else cluster.loads.unread[g]) == 0:
        return 9
    return 0 if bound == here.bound else 9


@called
def check_line(cluster: Cluster, number: int) -> int:
    line = cluster.lines[number]
    size, last, slot = 0, NOWHERE, line.head
    while slot != NOWHERE:
        if cluster.live[slot].previous != last or size > line.members:
            return 6
        size += 1
        last = slot
        slot = cluster.live[slot].next
    if size != line.members or line.tail != last:
        return 6
    if number < policy_line(cluster, stages.QUEUES, 0):
        classes = cluster.counts.shape[1]
        queue, cls = number // classes, number % classes
        if cluster.set.by_policy and size != cluster.counts[queue, cls]:
            return 6
        if size > 0 and cluster.since[queue, cls] != cluster.live[line.head].since:
            return 6
    elif not cluster.set.ordered and decoding_line(cluster, number) and size > 0:
        return 6
    return 0


@called
def decoding_line(cluster: Cluster, number: int) -> bool:
    number -= policy_line(cluster, stages.QUEUES, 0)
    return number < LINES * cluster.gpus and number % LINES == DECODING


@called
def check_timers(cluster: Cluster) -> int:
    for k in range(cluster.tally[TIMERS]):
        slot = cluster.timers[k]
        if cluster.live[slot].timer_position != k or cluster.live[slot].stage == NOWHERE:
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


@called
def check_step(cluster: Cluster) -> int:
    """Whether all ranks of a group step, at one pace, or none does; some may have formed their next batch already."""
    for g in range(cluster.gpus):
        lead = first_rank(cluster, g)
        one, other = cluster.gpu[lead], cluster.gpu[g]
        steps = other.busy == 1 or other.along > 0
        if other.along > 0 and (other.busy == 1 or cluster.set.keys.data_parallel == 1):
            return 12
        if cluster.tally[DUE] > 0 or at_boundary(cluster, lead):
            continue
        if steps != (one.busy == 1 or one.along > 0) or cluster.epochs[lead] != cluster.epochs[g]:
            return 12
        if steps and (one.first != other.first or one.step != other.step or one.length != other.length):
            return 12
    return 0


@called
def at_boundary(cluster: Cluster, lead: int) -> bool:
    """Whether some rank of a group has something to do at this epoch."""
    earliest = np.inf
    for r in range(lead, lead + cluster.set.keys.data_parallel):
        earliest = min(earliest, cluster.epochs[r])
    return earliest <= cluster.clock[NOW]
