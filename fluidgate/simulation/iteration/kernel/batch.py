"""A GPU's batch: its decodes, and the heap of their last iterations."""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions import stages
from fluidgate.simulation.iteration.kernel.cluster import (
    DECODING,
    RUNNING,
    SEATED,
    SLOT_BITS,
    SLOT_MASK,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.lines import gpu_line, push_back, unlink
from fluidgate.simulation.iteration.kernel.memory import give_back
from fluidgate.simulation.iteration.kernel.record import count, observe
from fluidgate.simulation.iteration.law import ENDLESS
from fluidgate.simulation.iteration.times import GAP, STALL


@inlined
def join(cluster: Cluster, g: int, slot: int, held: int) -> None:
    """A decode joins the batch of `g`: it holds `held` tokens of KV, whose blocks are taken already."""
    here = cluster.gpu[g]
    request = cluster.live[slot]
    request.joined = here.iteration
    request.held = held
    here.context += request.prompt + request.produced
    here.decodes += 1
    cluster.batch[g, RUNNING, request.cls] += 1
    if cluster.set.kv_blocks > 0:
        cluster.growth[g, (here.iteration - held) % cluster.set.keys.kv_block] += 1
    if cluster.set.ordered:
        push_back(cluster, gpu_line(cluster, g, DECODING), slot)
    heap = cluster.heaps[g]
    entry = ((here.iteration + request.output - request.produced) << SLOT_BITS) | slot
    k = here.decodes - 1
    while k > 0 and heap[(k - 1) // 2] > entry:
        heap[k] = heap[(k - 1) // 2]
        k = (k - 1) // 2
    heap[k] = entry


@inlined
def leave(cluster: Cluster, g: int, slot: int, keep: int) -> None:
    """A decode leaves the batch of `g` with its memory; its entry in the heap is taken off apart."""
    stand_still(cluster, g, slot)
    make_way(cluster, g, slot, keep)


@inlined
def stand_still(cluster: Cluster, g: int, slot: int) -> None:
    """A decode of `g` gains no more tokens; it still holds its memory and its place in the order of admission."""
    request = cluster.live[slot]
    cluster.gpu[g].context -= request.prompt + request.produced + cluster.gpu[g].iteration - request.joined
    cluster.batch[g, RUNNING, request.cls] -= 1
    if cluster.set.kv_blocks > 0:
        cluster.growth[g, (request.joined - request.held) % cluster.set.keys.kv_block] -= 1


@inlined
def make_way(cluster: Cluster, g: int, slot: int, keep: int) -> None:
    """A decode of `g` that stands still gives up its memory and its place."""
    request = cluster.live[slot]
    held = request.held + cluster.gpu[g].iteration - request.joined
    give_back(cluster, g, slot, held, held, keep)
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


@inlined
def end_decodes(cluster: Cluster, g: int) -> None:
    """Those decodes of `g` that have ended stand still, at the end of its heap: the last is the first that arrived."""
    here = cluster.gpu[g]
    ended = cluster.heaps[g]
    while next_end(cluster, g) == 0:
        slot = pop_end(cluster, g)
        stand_still(cluster, g, slot)
        here.finished += 1
        k = cluster.batch_size - here.finished
        while k + 1 < cluster.batch_size and cluster.live[ended[k + 1]].number > cluster.live[slot].number:
            ended[k] = ended[k + 1]
            k += 1
        ended[k] = slot


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
    request = cluster.live[slot]
    observe(cluster, GAP, request.cls, token - request.last, token)
    if stalled:
        observe(cluster, STALL, request.cls, token - request.last, token)


@inlined
def set_mode(cluster: Cluster, g: int, mixed: int) -> None:
    """Count the decodes of `g` as mixed or as solo, [LDHZ] (10)."""
    if cluster.gpu[g].mixed == mixed:
        return
    cluster.gpu[g].mixed = mixed
    old, new = (stages.SOLO_DECODE, stages.MIXED_DECODE) if mixed == 1 else (stages.MIXED_DECODE, stages.SOLO_DECODE)
    for i in range(cluster.batch.shape[2]):
        decodes = cluster.batch[g, SEATED, i]
        if decodes > 0:
            count(cluster, old, i, -decodes)
            count(cluster, new, i, decodes)


@inlined
def seat(cluster: Cluster, g: int, cls: int) -> None:
    cluster.batch[g, SEATED, cls] += 1
    count(cluster, stages.MIXED_DECODE if cluster.gpu[g].mixed == 1 else stages.SOLO_DECODE, cls, 1)


@inlined
def unseat(cluster: Cluster, g: int, cls: int) -> None:
    cluster.batch[g, SEATED, cls] -= 1
    count(cluster, stages.MIXED_DECODE if cluster.gpu[g].mixed == 1 else stages.SOLO_DECODE, cls, -1)
