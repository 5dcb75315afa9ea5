"""Prompts that have been read, with a limited memory: who holds their KV until their decode has it.

It stays where it was read, as an engine pins it for another that is to fetch it. A decode elsewhere gets memory first,
as soon as there is enough; then its KV comes, and both GPUs hold it as long as that takes. A decode that stays has it.
"""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.cluster import Cluster
from fluidgate.simulation.iteration.kernel.memory import (
    blocks_needed,
    blocks_next,
    blocks_of,
    blocks_taken,
    give_back,
    hold_kv,
    overwrite,
)
from fluidgate.simulation.iteration.kernel.prefixes import DROP, LEAN, give_up, let_text_go
from fluidgate.simulation.iteration.kernel.segment import end_after, under_way
from fluidgate.simulation.iteration.kernel.transfer import transfer_seconds


@inlined
def read_tokens(cluster: Cluster, slot: int) -> int:
    """KV tokens of a request that has been read and waits to decode."""
    request = cluster.live[slot]
    return request.prompt + request.produced - (0 if cluster.set.by_policy else 1)


@inlined
def blocks_to_join(cluster: Cluster, slot: int) -> int:
    """Blocks that it takes a GPU to let it decode: its KV and its next token's."""
    return blocks_of(cluster, read_tokens(cluster, slot) + 1)


@called
def blocks_to_fetch(cluster: Cluster, g: int, slot: int) -> int:
    """Of those the ones that must be free on `g`, where it holds nothing yet."""
    return blocks_needed(cluster, g, slot, read_tokens(cluster, slot) + 1)


@called
def spare_blocks(cluster: Cluster, g: int) -> int:
    """Blocks of `g` that are free now, beside those that its decodes take in their next iteration."""
    here = cluster.gpu[g]
    if here.busy == 0 or here.batch != here.decodes:
        return here.blocks - blocks_next(cluster, g)
    return here.blocks - blocks_taken(cluster, g, min(under_way(cluster, g), here.length) + 1)


@called
def fetch(cluster: Cluster, g: int, slot: int) -> float:
    """Memory of `g` is set aside for a request, and its KV is sent there; how long that takes."""
    request = cluster.live[slot]
    blocks = blocks_to_join(cluster, slot)
    tokens = read_tokens(cluster, slot)
    make_room(cluster, g, blocks_to_fetch(cluster, g, slot))
    at_home = request.piece
    tokens -= hold_kv(cluster, g, slot, tokens, blocks)
    request.there = request.piece
    request.piece = at_home
    request.reserved = 1
    cluster.gpu[g].moving += 1
    cluster.gpu[request.kept].moving += 1
    return transfer_seconds(cluster, tokens)


@called
def carry(cluster: Cluster, g: int, home: int, slot: int) -> int:
    """Without a limit to memory: the KV of a request goes from `home` to `g`; how many tokens are there already."""
    tokens = read_tokens(cluster, slot)
    at_home = cluster.live[slot].piece
    found = hold_kv(cluster, g, slot, tokens, 0)
    if cluster.set.caching:
        let_text_go(cluster, home, at_home, tokens // cluster.set.keys.kv_block, False)
    return found


@called
def make_room(cluster: Cluster, g: int, blocks: int) -> None:
    """Free blocks of `g` are about to be set aside. A segment under way ends where the memory that is left does."""
    here = cluster.gpu[g]
    catch_up(cluster, g)
    if here.busy == 1 and here.batch == here.decodes and blocks > here.blocks - blocks_taken(cluster, g, here.length):
        shorten(cluster, g)


@called
def catch_up(cluster: Cluster, g: int) -> None:
    """What the decodes of `g` have taken since its segment began, up to the iteration under way, holds theirs."""
    here = cluster.gpu[g]
    if cluster.set.kv_blocks > 0 and cluster.set.caching and here.busy == 1 and here.batch == here.decodes:
        taken = blocks_taken(cluster, g, min(under_way(cluster, g), here.length))
        overwrite(cluster, g, taken - here.prepaid)
        here.prepaid = taken


@called
def shorten(cluster: Cluster, g: int) -> None:
    """The segment of `g` ends with the iteration under way, whatever is in it."""
    k = under_way(cluster, g)
    if k < cluster.gpu[g].length:
        end_after(cluster, g, k)


@called
def let_go(cluster: Cluster, slot: int) -> None:
    """The KV of a request leaves the GPU that has read it."""
    tokens = read_tokens(cluster, slot)
    give_back(cluster, cluster.live[slot].kept, slot, tokens, tokens, DROP)
    cluster.live[slot].kept = NOWHERE


@called
def turn_back(cluster: Cluster, slot: int) -> None:
    """The KV of a request never comes to the GPU that has memory for it: what was there before stays there."""
    request = cluster.live[slot]
    g = request.gpu
    blocks = blocks_to_join(cluster, slot)
    if cluster.set.caching:
        record = request.there if request.reserved == 1 else request.piece
        request.there = request.piece = NOWHERE
        give_up(cluster, g, slot, record, blocks, request.cached, LEAN)
    elif cluster.set.kv_blocks > 0:
        cluster.gpu[g].blocks += blocks
    if request.reserved == 1:
        cluster.gpu[g].moving -= 1


@called
def arrived(cluster: Cluster, slot: int) -> None:
    """The KV of a request is on the GPU where it decodes."""
    request = cluster.live[slot]
    cluster.gpu[request.gpu].moving -= 1
    cluster.gpu[request.kept].moving -= 1
    let_go(cluster, slot)
    request.piece = request.there


@inlined
def claim(cluster: Cluster, g: int, slot: int) -> None:
    """The request joins the batch of `g`, whose decodes hold their own KV and take the next token's as they go."""
    request = cluster.live[slot]
    if request.reserved == 1:
        spared = blocks_to_join(cluster, slot) - blocks_of(cluster, read_tokens(cluster, slot))
        cluster.gpu[g].blocks += spared
        if cluster.set.caching:
            cluster.gpu[g].prepaid += spared
    request.reserved = 0
    request.kept = NOWHERE


@inlined
def is_stuck(cluster: Cluster, g: int) -> bool:
    """Whether `g` stands still, and no KV on its way changes that."""
    here = cluster.gpu[g]
    return here.busy == 0 and here.due == 0 and here.moving == 0 and cluster.epochs[g] == float("inf")


@called
def held_up(cluster: Cluster, g: int, last: bool) -> int:
    """Of those whose KV `g` keeps for a GPU that has no memory for it and stands still, the one read first, or last.

    Both wait for each other, or in a longer ring, where `g` has no memory for others of those GPUs. NOWHERE if there is
    none.
    """
    found = NOWHERE
    for slot in range(len(cluster.live)):
        request = cluster.live[slot]
        if request.stage == NOWHERE or request.kept != g or request.gpu == g or not is_stuck(cluster, request.gpu):
            continue
        if found == NOWHERE or (read_before(cluster, found, slot) == last):
            found = slot
    return found


@called
def all_stuck(cluster: Cluster) -> bool:
    stuck = 0
    for g in range(cluster.gpus):
        stuck += 1 if is_stuck(cluster, g) else 0
    return stuck == cluster.gpus


@called
def last_buffered(cluster: Cluster, g: int) -> int:
    """Of those whose KV `g` keeps and that wait for a slot the one read last; NOWHERE if there is none."""
    found = NOWHERE
    for slot in range(len(cluster.live)):
        request = cluster.live[slot]
        buffered = request.stage == stages.MIXED_QUEUE or request.stage == stages.SOLO_QUEUE
        if buffered and request.kept == g and (found == NOWHERE or read_before(cluster, found, slot)):
            found = slot
    return found


@inlined
def read_before(cluster: Cluster, a: int, b: int) -> bool:
    one, other = cluster.live[a], cluster.live[b]
    return one.since < other.since or (one.since == other.since and one.number < other.number)
