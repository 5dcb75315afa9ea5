"""A GPU's batch: its decodes, their last iterations, its KV memory, and the segment of iterations under way.

A segment is a run of iterations of one unchanged batch. It ends where the batch may change; what happens on the way
follows in closed form.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.simulation.iteration.cluster import (
    DECODING,
    FRESH,
    GAP,
    ITERATIONS,
    LATE,
    NOW,
    RUNNING,
    SEATED,
    SLOT_BITS,
    SLOT_MASK,
    STALL,
    Cluster,
)
from fluidgate.simulation.iteration.law import base_time, boundary_from, context_slope, span
from fluidgate.simulation.iteration.lines import gpu_line, push_back, unlink
from fluidgate.simulation.iteration.record import count, observe, record_segment
from fluidgate.simulation.iteration.tournament import replay
from fluidgate.simulation.markov.network import MIXED_DECODE, NONE, SOLO_DECODE

ENDLESS = 1 << 30
"""Iterations of a segment that nothing ends."""


# --- segments


@inlined
def set_epoch(cluster: Cluster, g: int, epoch: float) -> None:
    cluster.epochs[g] = epoch
    replay(cluster.tree, cluster.epochs, g)


@inlined
def begin_segment(cluster, law, g, chunk, decodes, length, delay):
    """`length` iterations of the batch as it stands start on `g` in `delay` seconds."""
    here = cluster.gpu[g]
    now = cluster.clock[NOW]
    slope = context_slope(law, chunk)
    here.start = now
    here.origin = now + delay
    here.first = base_time(law, chunk, decodes) + (slope * here.context if decodes > 0 else 0.0)
    here.step = slope * decodes
    here.length = length
    here.chunk = chunk
    here.batch = decodes
    here.busy = 1
    set_epoch(cluster, g, here.origin + span(here.first, here.step, length))


@inlined
def first_end(cluster: Cluster, g: int) -> float:
    """End of the segment's first iteration."""
    return cluster.gpu[g].origin + cluster.gpu[g].first


@inlined
def cut_segment(cluster: Cluster, g: int) -> None:
    """Let the segment of `g` end at its next iteration boundary, one that is now included; wake `g` if it is idle.

    Abandonments come after the boundaries of their epoch: what they make way for joins at a later one.
    """
    here = cluster.gpu[g]
    now = cluster.clock[NOW]
    if here.busy == 0:
        if cluster.epochs[g] > now:
            set_epoch(cluster, g, now)
        return
    if here.length == 1:
        return
    k = boundary_from(here.origin, here.first, here.step, now)
    if cluster.tally[LATE] == 1 and here.origin + span(here.first, here.step, k) <= now:
        k += 1
    if k < here.length:
        here.length = k
        set_epoch(cluster, g, here.origin + span(here.first, here.step, k))


@inlined
def end_segment(cluster: Cluster, g: int) -> None:
    """The segment of `g` is over: its decodes have gained their tokens."""
    here = cluster.gpu[g]
    k = here.length
    record_segment(cluster, g, k)
    cluster.tally[ITERATIONS] += k
    if here.batch == here.decodes:  # else prompts ran alone and the decodes stood still
        if cluster.set.kv_blocks > 0:
            taken = blocks_taken(cluster, g, k)
            here.blocks -= taken
            overwrite(cluster, g, taken - here.prepaid)
            here.prepaid = 0
        here.iteration += k
        here.context += here.batch * k
        here.last_token = cluster.clock[NOW]
        for i in range(cluster.batch.shape[2]):
            cluster.batch[g, FRESH, i] = 0
    here.busy = 0


@inlined
def idle(cluster: Cluster, g: int) -> None:
    set_epoch(cluster, g, np.inf)


# --- KV memory


@inlined
def blocks_of(cluster: Cluster, tokens: int) -> int:
    return (tokens + cluster.set.block_tokens - 1) // cluster.set.block_tokens


@inlined
def blocks_next(cluster: Cluster, g: int) -> int:
    """Blocks that the decodes of `g` take in its next iteration."""
    return cluster.growth[g, cluster.gpu[g].iteration % cluster.set.block_tokens]


@inlined
def blocks_taken(cluster: Cluster, g: int, iterations: int) -> int:
    """Blocks that the decodes of `g` take in its next `iterations` iterations: each one every `block_tokens`."""
    size = cluster.set.block_tokens
    taken = (iterations // size) * cluster.gpu[g].decodes
    at = cluster.gpu[g].iteration % size
    for _ in range(iterations % size):
        taken += cluster.growth[g, at]
        at = at + 1 if at + 1 < size else 0
    return taken


@inlined
def iterations_that_fit(cluster: Cluster, g: int) -> int:
    """Iterations of the decodes of `g` before its memory runs out."""
    if cluster.set.kv_blocks == 0 or cluster.gpu[g].decodes == 0:
        return ENDLESS
    size = cluster.set.block_tokens
    free = cluster.gpu[g].blocks
    turns = free // cluster.gpu[g].decodes
    free -= turns * cluster.gpu[g].decodes
    fit = turns * size
    at = cluster.gpu[g].iteration % size
    for _ in range(size):
        free -= cluster.growth[g, at]
        if free < 0:
            break
        fit += 1
        at = at + 1 if at + 1 < size else 0
    return min(fit, ENDLESS)


@inlined
def admits(cluster: Cluster, g: int, tokens: int) -> bool:
    """Whether `tokens` fit beside the decodes of `g` and what these take in the next iteration.

    No request is asked for more than the whole memory, so that an empty GPU admits it.
    """
    if cluster.set.kv_blocks == 0:
        return True
    return min(blocks_of(cluster, tokens), cluster.set.kv_blocks) <= cluster.gpu[g].blocks - blocks_next(cluster, g)


@inlined
def hold(cluster: Cluster, g: int, tokens: int, found: int) -> None:
    """A prompt of `tokens` is given its memory, `found` blocks of which hold its KV already."""
    cluster.gpu[g].held += tokens
    if cluster.set.kv_blocks > 0:
        cluster.gpu[g].blocks -= blocks_of(cluster, tokens)
        overwrite(cluster, g, blocks_of(cluster, tokens) - found)


@inlined
def release(cluster: Cluster, g: int, tokens: int) -> None:
    """A prompt of `tokens` gives its memory back."""
    cluster.gpu[g].held -= tokens
    give_back(cluster, g, tokens)


@inlined
def give_back(cluster: Cluster, g: int, tokens: int) -> None:
    if cluster.set.kv_blocks > 0:
        cluster.gpu[g].blocks += blocks_of(cluster, tokens)
        if cluster.set.caching:
            cluster.gpu[g].behind += blocks_of(cluster, tokens)


@inlined
def prepay(cluster: Cluster, g: int) -> None:
    """The decodes of `g` take the blocks of their next iteration before anybody else."""
    if cluster.set.caching:
        cluster.gpu[g].prepaid = blocks_next(cluster, g)
        overwrite(cluster, g, cluster.gpu[g].prepaid)


# Free blocks are taken in the order in which they were freed, the last of a request first. Preempted requests stand at
# the front of the line, the latest first, so that the line backwards is the order of their cached blocks; between those
# lie blocks that hold nothing.


@inlined
def overwrite(cluster: Cluster, g: int, blocks: int) -> None:
    """`blocks` free blocks are taken: whose they were has to read them again."""
    if not cluster.set.caching:
        return
    here = cluster.gpu[g]
    while blocks > 0 and here.oldest != NONE:
        who = cluster.live[here.oldest]
        empty = min(blocks, who.ahead)
        who.ahead -= empty
        blocks -= empty
        lost = min(blocks, who.cached)
        who.cached -= lost
        blocks -= lost
        if who.cached == 0:
            here.oldest = who.previous
    here.behind -= blocks


@inlined
def leave_cached(cluster: Cluster, g: int, slot: int, tokens: int) -> None:
    """The KV of the first `tokens` tokens of a request stays in the blocks it has just given back, the full ones."""
    if not cluster.set.caching:
        return
    here = cluster.gpu[g]
    who = cluster.live[slot]
    who.cached = tokens // cluster.set.block_tokens
    if who.cached > 0:
        who.ahead = here.behind - who.cached
        here.behind = 0
        if here.oldest == NONE:
            here.oldest = slot


@inlined
def find_cached(cluster: Cluster, g: int, slot: int) -> int:
    """Take the cached blocks of the request admitted next, the latest of the preempted; how many."""
    who = cluster.live[slot]
    if not cluster.set.caching or who.cached == 0:
        return 0
    here = cluster.gpu[g]
    found = who.cached
    who.cached = 0
    here.behind += who.ahead
    if here.oldest == slot:
        here.oldest = NONE
    return found


# --- decodes


@inlined
def join(cluster: Cluster, g: int, slot: int, held: int) -> None:
    """A decode joins the batch of `g`: it holds `held` tokens of KV, whose blocks are taken already."""
    here = cluster.gpu[g]
    who = cluster.live[slot]
    who.joined = here.iteration
    who.held = held
    here.context += who.prompt + who.produced
    here.decodes += 1
    cluster.batch[g, RUNNING, who.cls] += 1
    if cluster.set.kv_blocks > 0:
        cluster.growth[g, (here.iteration - held) % cluster.set.block_tokens] += 1
    if cluster.set.ordered:
        push_back(cluster, gpu_line(cluster, g, DECODING), slot)
    heap = cluster.heaps[g]
    entry = ((here.iteration + who.output - who.produced) << SLOT_BITS) | slot
    k = here.decodes - 1
    while k > 0 and heap[(k - 1) // 2] > entry:
        heap[k] = heap[(k - 1) // 2]
        k = (k - 1) // 2
    heap[k] = entry


@inlined
def leave(cluster: Cluster, g: int, slot: int) -> None:
    """A decode leaves the batch of `g` with its memory; its entry in the heap is taken off apart."""
    here = cluster.gpu[g]
    who = cluster.live[slot]
    grown = here.iteration - who.joined
    here.context -= who.prompt + who.produced + grown
    cluster.batch[g, RUNNING, who.cls] -= 1
    if cluster.set.kv_blocks > 0:
        cluster.growth[g, (who.joined - who.held) % cluster.set.block_tokens] -= 1
        give_back(cluster, g, who.held + grown)
    if cluster.set.ordered:
        unlink(cluster, gpu_line(cluster, g, DECODING), slot)


@inlined
def next_end(cluster: Cluster, g: int) -> int:
    """Iterations until the next decode of `g` ends."""
    if cluster.gpu[g].decodes == 0:
        return ENDLESS
    return (cluster.heaps[g, 0] >> SLOT_BITS) - cluster.gpu[g].iteration


@inlined
def pop_end(cluster: Cluster, g: int) -> int:
    """Take the decode that ends first out of the heap of `g`."""
    slot = cluster.heaps[g, 0] & SLOT_MASK
    sink_entry(cluster, g, 0)
    return slot


@inlined
def sink_entry(cluster: Cluster, g: int, k: int) -> None:
    """Fill the place `k` of the heap of `g` with its last entry, which is not smaller than what it replaces there."""
    heap = cluster.heaps[g]
    size = cluster.gpu[g].decodes - 1
    cluster.gpu[g].decodes = size
    entry = heap[size]
    while 2 * k + 1 < size:
        child = 2 * k + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[k] = heap[child]
        k = child
    heap[k] = entry


@called
def strike_out(cluster: Cluster, g: int, slot: int) -> None:
    """Take a preempted decode out of the heap of `g`, O(batch)."""
    heap = cluster.heaps[g]
    last = cluster.gpu[g].decodes - 1
    k = 0
    while heap[k] & SLOT_MASK != slot:
        k += 1
    while k > 0 and heap[(k - 1) // 2] > heap[last]:
        heap[k] = heap[(k - 1) // 2]
        k = (k - 1) // 2
    sink_entry(cluster, g, k)


@inlined
def record_own_gap(cluster: Cluster, slot: int, token: float, stalled: bool) -> None:
    """The gap of one request before its token at `token`, counted apart from those of its batch."""
    who = cluster.live[slot]
    observe(cluster, GAP, who.cls, token - who.last, token)
    if stalled:
        observe(cluster, STALL, who.cls, token - who.last, token)


@inlined
def set_mode(cluster: Cluster, g: int, mixed: int) -> None:
    """Count the decodes of `g` as mixed or as solo, [LDHZ] (10)."""
    if cluster.gpu[g].mixed == mixed:
        return
    cluster.gpu[g].mixed = mixed
    old, new = (SOLO_DECODE, MIXED_DECODE) if mixed == 1 else (MIXED_DECODE, SOLO_DECODE)
    for i in range(cluster.batch.shape[2]):
        decodes = cluster.batch[g, SEATED, i]
        if decodes > 0:
            count(cluster, old, i, -decodes)
            count(cluster, new, i, decodes)


@inlined
def seat(cluster: Cluster, g: int, cls: int) -> None:
    cluster.batch[g, SEATED, cls] += 1
    count(cluster, MIXED_DECODE if cluster.gpu[g].mixed == 1 else SOLO_DECODE, cls, 1)


@inlined
def unseat(cluster: Cluster, g: int, cls: int) -> None:
    cluster.batch[g, SEATED, cls] -= 1
    count(cluster, MIXED_DECODE if cluster.gpu[g].mixed == 1 else SOLO_DECODE, cls, -1)
