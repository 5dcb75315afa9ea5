"""Pools of GPUs, for prompts and for tokens, and the KV that goes from one to the other."""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.compiled.tournament import replay
from fluidgate.policies.decisions import placement, stages
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.policies.decisions.edpp import DECODER, comes
from fluidgate.policies.decisions.tables import Placement
from fluidgate.simulation import events
from fluidgate.simulation.iteration.kernel.batch import join, seat
from fluidgate.simulation.iteration.kernel.cluster import (
    BOUND,
    FETCHING,
    FRESH,
    LATE,
    MIXED_POOL,
    NOW,
    POOLS,
    PROMPT_POOL,
    TOKEN_POOL,
    UNREAD,
    WAITING,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.drift import begin_work, choose_ways, leave_decoder, leave_reader
from fluidgate.simulation.iteration.kernel.handover import (
    blocks_to_fetch,
    blocks_to_join,
    carry,
    claim,
    fetch,
    held_up,
    let_go,
    read_tokens,
    spare_blocks,
)
from fluidgate.simulation.iteration.kernel.keys import SWAP
from fluidgate.simulation.iteration.kernel.lines import gpu_line, push_back, push_front, unlink
from fluidgate.simulation.iteration.kernel.memory import blocks_next, blocks_of, overwrite
from fluidgate.simulation.iteration.kernel.prefixes import expect
from fluidgate.simulation.iteration.kernel.record import count, observe
from fluidgate.simulation.iteration.kernel.segment import cut_segment
from fluidgate.simulation.iteration.kernel.timers import set_timer
from fluidgate.simulation.iteration.kernel.transfer import transfer_seconds
from fluidgate.simulation.iteration.times import DECODE_WAIT

POOLED = int(Placement.POOLS)


@inlined
def change_load(cluster: Cluster, g: int, requests: int, tokens: int) -> None:
    """`requests` more requests and `tokens` more unread prompt tokens are on `g`."""
    size = cluster.set.keys.data_parallel
    placement.change_load(cluster.loads, g if size == 1 else g // size, requests, tokens)
    if cluster.set.placement == POOLED and tokens != 0:
        rekey(cluster, g)
        if tokens < 0:
            come_home(cluster, g)


@called
def load(cluster: Cluster, g: int, slot: int, unread: int) -> None:
    """Of a request on `g`, `unread` tokens are to be read."""
    change_load(cluster, g, 0, unread - cluster.live[slot].loaded)
    cluster.live[slot].loaded = unread


@called
def rekey(cluster: Cluster, g: int) -> None:
    """Bring the keys of `g` in its pool up to date."""
    pool = cluster.gpu[g].pool
    cluster.pool_keys[pool, UNREAD, g] = cluster.loads.unread[g]
    cluster.pool_keys[pool, BOUND, g] = cluster.gpu[g].bound
    replay(cluster.pool_trees[pool, UNREAD], cluster.pool_keys[pool, UNREAD], g)
    replay(cluster.pool_trees[pool, BOUND], cluster.pool_keys[pool, BOUND], g)


@called
def move(cluster: Cluster, g: int, pool: int) -> None:
    """`g` leaves its pool for another."""
    old = cluster.gpu[g].pool
    for measure in (UNREAD, BOUND):
        cluster.pool_keys[old, measure, g] = float("inf")
        replay(cluster.pool_trees[old, measure], cluster.pool_keys[old, measure], g)
    cluster.gpu[g].pool = pool
    rekey(cluster, g)


@inlined
def come_home(cluster: Cluster, g: int) -> None:
    """A GPU of the mixed pool goes back to its own once it has no work of the other kind.

    So at the end of an iteration, before the next batch is formed: who is preempted then does not keep it.
    """
    here = cluster.gpu[g]
    if here.pool == MIXED_POOL:
        if g < cluster.set.prompt_gpus and here.bound == 0:
            move(cluster, g, PROMPT_POOL)
        elif g >= cluster.set.prompt_gpus and cluster.loads.unread[g] == 0:
            move(cluster, g, TOKEN_POOL)


@inlined
def least(cluster: Cluster, pool: int, measure: int) -> int:
    """The GPU of a pool with the least unread tokens or decodes, ties to the lowest number; NOWHERE if it is empty."""
    g = cluster.pool_trees[pool, measure, 1]
    return g if cluster.pool_keys[pool, measure, g] < float("inf") else NOWHERE


@inlined
def bind(cluster: Cluster, slot: int, g: int) -> None:
    """The request will decode on `g`."""
    cluster.live[slot].decode_gpu = g
    cluster.gpu[g].bound += 1
    rekey(cluster, g)


@inlined
def unbind(cluster: Cluster, slot: int) -> None:
    """The request leaves the cluster."""
    if cluster.set.drift and cluster.live[slot].decode_gpu != NOWHERE:
        if cluster.live[slot].gpu != cluster.live[slot].decode_gpu:
            leave_reader(cluster, slot)
        leave_decoder(cluster, slot)
    if cluster.live[slot].decode_gpu != NOWHERE:
        lose_decode(cluster, cluster.live[slot].decode_gpu)


@called
def lose_decode(cluster: Cluster, g: int) -> None:
    cluster.gpu[g].bound -= 1
    rekey(cluster, g)
    come_home(cluster, g)


@called
def pair(cluster: Cluster, slot: int) -> int:
    """The GPU that reads the prompt of a new request; where the pools lend GPUs, that of its tokens is chosen too."""
    if cluster.set.drift:
        reader = choose_ways(cluster, slot)
        bind(cluster, slot, cluster.edpp.chosen[DECODER])
        return reader
    if cluster.set.queue_tokens == 0:
        return least(cluster, PROMPT_POOL, UNREAD)
    reader = reader_of(cluster, PROMPT_POOL, cluster.live[slot].prompt)
    if reader == NOWHERE:
        reader = reader_of(cluster, MIXED_POOL, cluster.live[slot].prompt)
    decoder = decoder_of(cluster, TOKEN_POOL)
    if decoder == NOWHERE:
        decoder = decoder_of(cluster, MIXED_POOL)
    if reader == NOWHERE:
        reader = least(cluster, TOKEN_POOL, UNREAD)
        if reader != NOWHERE:
            move(cluster, reader, MIXED_POOL)
    if decoder == NOWHERE:
        decoder = least(cluster, PROMPT_POOL, BOUND)
        if decoder != NOWHERE:
            move(cluster, decoder, MIXED_POOL)
    if reader == NOWHERE or decoder == NOWHERE:
        both = least_of_all(cluster)
        if reader != NOWHERE and reader != both:  # it may have been moved in vain
            come_home(cluster, reader)
        if decoder != NOWHERE and decoder != both:
            come_home(cluster, decoder)
        reader = decoder = both
    bind(cluster, slot, decoder)
    return reader


@inlined
def reader_of(cluster: Cluster, pool: int, prompt: int) -> int:
    """The GPU of a pool with the least unread tokens; NOWHERE if its queue is long with this prompt."""
    g = least(cluster, pool, UNREAD)
    if g == NOWHERE:
        return NOWHERE
    unread = cluster.loads.unread[g]
    return NOWHERE if unread > 0 and unread + prompt > cluster.set.queue_tokens else g


@inlined
def decoder_of(cluster: Cluster, pool: int) -> int:
    """The GPU of a pool with the fewest decodes; NOWHERE if these fill its batch."""
    g = least(cluster, pool, BOUND)
    if g == NOWHERE:
        return NOWHERE
    return NOWHERE if cluster.gpu[g].bound >= cluster.batch_size else g


@inlined
def least_of_all(cluster: Cluster) -> int:
    """The GPU with the least unread tokens, whatever its pool; ties to the lowest number."""
    best = NOWHERE
    for pool in range(POOLS):
        g = least(cluster, pool, UNREAD)
        if g == NOWHERE:
            continue
        if best == NOWHERE or cluster.loads.unread[g] < cluster.loads.unread[best]:
            best = g
        elif cluster.loads.unread[g] == cluster.loads.unread[best]:
            best = min(best, g)
    return best


@inlined
def leaves(cluster: Cluster, g: int, slot: int) -> bool:
    """Whether a request whose prefill ends on `g` decodes elsewhere; its GPU is chosen now if that was open."""
    if cluster.live[slot].decode_gpu == NOWHERE:
        bind(cluster, slot, least(cluster, TOKEN_POOL, BOUND))
    return cluster.live[slot].decode_gpu != g


@inlined
def ship(cluster: Cluster, slot: int) -> None:
    """The KV of a request leaves for the GPU where it decodes; it stands in the buffer until it joins a batch there."""
    request = cluster.live[slot]
    home, g = request.gpu, request.decode_gpu
    if cluster.set.drift:
        leave_reader(cluster, slot)
    request.gpu = g
    request.since = cluster.clock[NOW]
    count(cluster, stages.SOLO_QUEUE, request.cls, 1)
    if cluster.set.kv_blocks == 0:
        send(cluster, slot, transfer_seconds(cluster, read_tokens(cluster, slot) - carry(cluster, g, home, slot)))
        return
    request.kept = home
    cluster.tally[LATE] = 1 if g < home else 0  # whether its boundary of this epoch is over
    line = gpu_line(cluster, g, FETCHING)
    if (
        cluster.lines[line].members == 0
        and not preempted_first(cluster, g)
        and blocks_to_fetch(cluster, g, slot) <= spare_blocks(cluster, g)
    ):
        send(cluster, slot, fetch(cluster, g, slot))
    else:
        request.stage = stages.MIXED_QUEUE
        push_back(cluster, line, slot)
        if cluster.gpu[g].busy == 0:
            cut_segment(cluster, g)


@inlined
def send(cluster: Cluster, slot: int, seconds: float) -> None:
    cluster.live[slot].stage = stages.MIXED_DECODE
    set_timer(cluster, slot, cluster.clock[NOW] + seconds)


@inlined
def preempted_first(cluster: Cluster, g: int) -> bool:
    """Whether one that has been preempted waits at `g`, before whom no KV comes there."""
    slot = cluster.lines[gpu_line(cluster, g, WAITING)].head
    return slot != NOWHERE and cluster.live[slot].preemptions > 0 and cluster.live[slot].stage != stages.SOLO_QUEUE


@called
def fetch_all(cluster: Cluster, g: int) -> None:
    """As many as `g` has memory for of those whose KV waits to come there are sent it."""
    line = gpu_line(cluster, g, FETCHING)
    while cluster.lines[line].head != NOWHERE and not preempted_first(cluster, g):
        slot = cluster.lines[line].head
        if blocks_to_fetch(cluster, g, slot) > cluster.gpu[g].blocks - blocks_next(cluster, g):
            return
        unlink(cluster, line, slot)
        send(cluster, slot, fetch(cluster, g, slot))


@called
def keeps_one(cluster: Cluster, g: int) -> bool:
    """`g` stands still: whether it must decode a request itself that it has read for another, lest it do so for good.

    It keeps the KV of some for a GPU that stands still as well, and each waits for the other's memory. The one read
    first stays; where there is no memory for its next token it is one that has been preempted.
    """
    here = cluster.gpu[g]
    if cluster.lines[gpu_line(cluster, g, FETCHING)].members == 0 or here.moving > 0:
        return False
    slot = held_up(cluster, g, False)
    if slot == NOWHERE:
        return False
    request = cluster.live[slot]
    unlink(cluster, gpu_line(cluster, request.gpu, FETCHING), slot)
    if cluster.set.drift:
        leave_decoder(cluster, slot)
        comes(cluster.edpp, g, 1, request.prompt)
    lose_decode(cluster, request.decode_gpu)
    if cluster.gpu[request.gpu].busy == 0:
        cut_segment(cluster, request.gpu)
    request.gpu = g
    bind(cluster, slot, g)
    held = read_tokens(cluster, slot)
    more = blocks_to_join(cluster, slot) - blocks_of(cluster, held)
    if more <= here.blocks:
        here.blocks -= more
        overwrite(cluster, g, more)
        request.kept = NOWHERE
        request.reserved = 1
        request.stage = stages.SOLO_QUEUE
        request.unread = 0
        change_load(cluster, g, 1, 0)
    else:
        let_go(cluster, slot)
        request.piece = NOWHERE
        request.unread = 0 if cluster.set.keys.preemption == SWAP else request.prompt + request.produced
        request.stage = stages.PREFILL_QUEUE
        request.preemptions += 1
        cluster.events[events.DECODE_START, request.cls] += 1
        cluster.events[events.DECODE_PREEMPTION, request.cls] += 1
        count(cluster, stages.SOLO_QUEUE, request.cls, -1)
        count(cluster, stages.PREFILL_QUEUE, request.cls, 1)
        change_load(cluster, g, 1, 0)
        load(cluster, g, slot, request.unread)
        if cluster.set.prefixes:
            expect(cluster, g, slot)
    push_front(cluster, gpu_line(cluster, g, WAITING), slot)
    return True


@inlined
def join_landed(cluster: Cluster, g: int, slot: int) -> None:
    """A request that came from another GPU and waits at `g` begins to decode."""
    request = cluster.live[slot]
    held = request.prompt + request.produced - 1
    if cluster.set.drift:
        begin_work(cluster, slot, g)
    unlink(cluster, gpu_line(cluster, g, WAITING), slot)
    if cluster.set.kv_blocks > 0:
        claim(cluster, g, slot)
    join(cluster, g, slot, held)
    cluster.batch[g, FRESH, request.cls] += 1
    count(cluster, stages.SOLO_QUEUE, request.cls, -1)
    seat(cluster, g, request.cls)
    cluster.events[events.DECODE_START, request.cls] += 1
    observe(cluster, DECODE_WAIT, request.cls, cluster.clock[NOW] - request.since, cluster.clock[NOW])
    request.stage = stages.PREFILL_QUEUE
