"""A GPU's KV memory: blocks that prompts and growing decodes hold, and what freed blocks still hold.

A decode takes a block every `block_tokens` iterations; `growth` counts the decodes by the iterations in which they do,
so that what a batch takes in many iterations is a sum of few terms.
"""

from __future__ import annotations

from fluidgate.compiled import inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.cluster import Cluster
from fluidgate.simulation.iteration.law import ENDLESS


@inlined
def blocks_of(cluster: Cluster, tokens: int) -> int:
    return (tokens + cluster.set.keys.kv_block - 1) // cluster.set.keys.kv_block


@inlined
def blocks_next(cluster: Cluster, g: int) -> int:
    """Blocks that the decodes of `g` take in its next iteration."""
    return cluster.growth[g, cluster.gpu[g].iteration % cluster.set.keys.kv_block]


@inlined
def blocks_taken(cluster: Cluster, g: int, iterations: int) -> int:
    """Blocks that the decodes of `g` take in its next `iterations` iterations: each one every `block_tokens`."""
    size = cluster.set.keys.kv_block
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
    size = cluster.set.keys.kv_block
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
        if cluster.set.keys.kv_caching:
            cluster.gpu[g].behind += blocks_of(cluster, tokens)


@inlined
def prepay(cluster: Cluster, g: int) -> None:
    """The decodes of `g` take the blocks of their next iteration before anybody else."""
    if cluster.set.keys.kv_caching:
        cluster.gpu[g].prepaid = blocks_next(cluster, g)
        overwrite(cluster, g, cluster.gpu[g].prepaid)


# Free blocks are taken in the order in which they were freed, the last of a request first. Preempted requests stand at
# the front of the line, the latest first, so that the line backwards is the order of their cached blocks; between those
# lie blocks that hold nothing.


@inlined
def overwrite(cluster: Cluster, g: int, blocks: int) -> None:
    """`blocks` free blocks are taken: whose they were has to read them again."""
    if not cluster.set.keys.kv_caching:
        return
    here = cluster.gpu[g]
    while blocks > 0 and here.oldest != NOWHERE:
        request = cluster.live[here.oldest]
        empty = min(blocks, request.ahead)
        request.ahead -= empty
        blocks -= empty
        lost = min(blocks, request.cached)
        request.cached -= lost
        blocks -= lost
        if request.cached == 0:
            here.oldest = request.previous
    here.behind -= blocks


@inlined
def leave_cached(cluster: Cluster, g: int, slot: int, tokens: int) -> None:
    """The KV of the first `tokens` tokens of a request stays in the blocks it has just given back, the full ones."""
    if not cluster.set.keys.kv_caching:
        return
    here = cluster.gpu[g]
    request = cluster.live[slot]
    request.cached = tokens // cluster.set.keys.kv_block
    if request.cached > 0:
        request.ahead = here.behind - request.cached
        here.behind = 0
        if here.oldest == NOWHERE:
            here.oldest = slot


@inlined
def find_cached(cluster: Cluster, g: int, slot: int) -> int:
    """Take the cached blocks of the request admitted next, the latest of the preempted; how many."""
    request = cluster.live[slot]
    if not cluster.set.keys.kv_caching or request.cached == 0:
        return 0
    here = cluster.gpu[g]
    found = request.cached
    request.cached = 0
    here.behind += request.ahead
    request.ahead = 0
    if here.oldest == slot:
        here.oldest = NOWHERE
    return found
