"""A GPU's KV memory: the blocks that prompts and growing decodes hold.

A decode takes a block every `block_tokens` iterations; `growth` counts the decodes by the iterations in which they do,
so that what a batch takes in many iterations is a sum of few terms.
"""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.cluster import Cluster
from fluidgate.simulation.iteration.kernel.prefixes import OWN, give_up, held_by_others, take_free, take_over
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
def admits(cluster: Cluster, g: int, slot: int, tokens: int) -> bool:
    """Whether `tokens` of a request fit beside the decodes of `g` and what these take in the next iteration.

    No request is asked for more than the whole memory, so that an empty GPU admits it.
    """
    if cluster.set.kv_blocks == 0:
        return True
    return blocks_needed(cluster, g, slot, tokens) <= cluster.gpu[g].blocks - blocks_next(cluster, g)


@inlined
def blocks_needed(cluster: Cluster, g: int, slot: int, tokens: int) -> int:
    """Blocks that must be free on `g` for `tokens` of a request that holds nothing there: those that nobody holds."""
    blocks = min(blocks_of(cluster, tokens), cluster.set.kv_blocks)
    return blocks - held_by_others(cluster, g, slot) if cluster.set.caching else blocks


@inlined
def hold_prompt(cluster: Cluster, g: int, slot: int, tokens: int) -> int:
    """Give a request that is to be read the memory of `tokens` tokens; how many of them it finds there."""
    if cluster.set.caching:
        return find_prompt(cluster, g, slot, tokens)
    if cluster.set.kv_blocks > 0:
        cluster.gpu[g].blocks -= blocks_of(cluster, tokens)
    return 0


@called
def find_prompt(cluster: Cluster, g: int, slot: int, tokens: int) -> int:
    """The same with what lies in memory: one token at least is read.

    Where all full blocks are there it has them all, and reads the last one again.
    """
    size = cluster.set.keys.kv_block
    request = cluster.live[slot]
    request.cached = take_over(cluster, g, slot, blocks_of(cluster, tokens))
    return min(request.cached, (tokens - 1) // size) * size


@called
def hold_kv(cluster: Cluster, g: int, slot: int, tokens: int, blocks: int) -> int:
    """Give `blocks` blocks of `g` to a request whose KV of `tokens` tokens comes there; how many it finds there."""
    if cluster.set.caching:
        cluster.live[slot].cached = take_over(cluster, g, slot, blocks)
        return min(cluster.live[slot].cached * cluster.set.keys.kv_block, tokens)
    if cluster.set.kv_blocks > 0:
        cluster.gpu[g].blocks -= blocks
    return 0


@inlined
def give_back(cluster: Cluster, g: int, slot: int, tokens: int, read: int, keep: int) -> None:
    """A request of `tokens` tokens, `read` of them read, gives its memory back; `keep` says what of its own stays."""
    if cluster.set.caching:
        leave_there(cluster, g, slot, tokens, read, keep)
    elif cluster.set.kv_blocks > 0:
        cluster.gpu[g].blocks += blocks_of(cluster, tokens)


@called
def leave_there(cluster: Cluster, g: int, slot: int, tokens: int, read: int, keep: int) -> None:
    record = cluster.live[slot].piece
    cluster.live[slot].piece = NOWHERE
    give_up(cluster, g, slot, record, blocks_of(cluster, tokens), read // cluster.set.keys.kv_block, keep)


@called
def give_prompt_back(cluster: Cluster, g: int, slot: int) -> None:
    """As `give_back`, of a request that is preempted while it is read."""
    request = cluster.live[slot]
    tokens = request.prompt + request.produced
    read = max(tokens - request.unread, request.cached * cluster.set.keys.kv_block)
    give_back(cluster, g, slot, tokens, read, OWN)


@inlined
def prepay(cluster: Cluster, g: int) -> None:
    """The decodes of `g` take the blocks of their next iteration before anybody else."""
    if cluster.set.caching:
        cluster.gpu[g].prepaid = blocks_next(cluster, g)
        take_free(cluster, g, cluster.gpu[g].prepaid)


@inlined
def overwrite(cluster: Cluster, g: int, blocks: int) -> None:
    """`blocks` free blocks are taken: what they held is lost."""
    if cluster.set.caching:
        take_free(cluster, g, blocks)
