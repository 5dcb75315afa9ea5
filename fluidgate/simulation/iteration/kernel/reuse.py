"""Where the beginning of a prompt is, for who decides where it is read."""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.cluster import Cluster
from fluidgate.simulation.iteration.kernel.handover import catch_up
from fluidgate.simulation.iteration.kernel.prefixes import blocks_expected
from fluidgate.workloads.streams.requests import NOTHING


@inlined
def to_read_on(cluster: Cluster, g: int, slot: int) -> int:
    """Tokens of a request that waits which are to be read if it is read on `g`."""
    unread = cluster.live[slot].unread
    return unread - tokens_on(cluster, g, slot) if cluster.set.prefixes else unread


@called
def tokens_on(cluster: Cluster, g: int, slot: int) -> int:
    """Tokens of a prompt that need not be read on `g`: they are there, or those who wait there will bring them."""
    request = cluster.live[slot]
    if request.text == NOTHING:
        return 0
    catch_up(cluster, g)
    size = cluster.set.keys.kv_block
    return min(blocks_expected(cluster, g, request.text), (request.prompt - 1) // size) * size


@called
def look_for(cluster: Cluster, slot: int, ranks: int) -> None:
    """Fill `loads.reuse` with groups of `ranks` GPUs that have something of the prompt of a request, most first."""
    reuse = cluster.loads.reuse
    reuse.count[0] = 0
    piece = cluster.live[slot].text
    while piece != NOTHING:
        record = cluster.holders[piece]
        while record != NOWHERE:
            g = cluster.cached[record].gpu
            record = cluster.cached[record].next_holder
            tokens = tokens_on(cluster, g, slot)
            if tokens > 0:
                note(reuse, g // ranks, tokens)
            if reuse.count[0] == len(reuse.gpu):
                return
        piece = cluster.pieces[piece].parent


@called
def ready_home(cluster: Cluster, slot: int, g: int) -> int:
    """Of the GPUs that could start a prefill the one that has most of a prompt; `g` where none has anything."""
    look_for(cluster, slot, 1)
    reuse = cluster.loads.reuse
    for k in range(reuse.count[0]):
        if cluster.gpu[reuse.gpu[k]].prefill_position != NOWHERE:
            return reuse.gpu[k]
    return g


@inlined
def note(reuse, group, tokens):
    """A GPU, or a group of ranks, has so much: it comes before those that have less, and before itself with less."""
    at = reuse.count[0]
    for k in range(reuse.count[0]):
        if reuse.gpu[k] == group:
            if reuse.tokens[k] >= tokens:
                return
            at = k
            break
    if at == reuse.count[0]:
        reuse.count[0] += 1
    while at > 0 and (reuse.tokens[at - 1] < tokens or (reuse.tokens[at - 1] == tokens and reuse.gpu[at - 1] > group)):
        reuse.gpu[at] = reuse.gpu[at - 1]
        reuse.tokens[at] = reuse.tokens[at - 1]
        at -= 1
    reuse.gpu[at] = group
    reuse.tokens[at] = tokens
