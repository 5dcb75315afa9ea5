"""What the blocks of a GPU's KV memory hold, where it is kept for whoever can use it (prefix caching).

Texts are pieces (`fluidgate.workloads.streams.script`), and a piece has the full blocks whose last token lies in it.
What is there of a piece on a GPU is a record: its first `present` blocks. Whoever holds a piece holds all before it, so
a record counts as held once for each request whose text ends with it, and once for each further piece that is held.
Blocks that nobody holds are free, and stand in the order in which they are taken: least recently freed first, the last
block of a text first; among them stand those that hold nothing, and those that are the own of preempted requests.

So what is there of a text is always its beginning, and memory goes by what is there, not by what there is.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.cluster import (
    FREE_RECORD,
    RECORDS,
    Cluster,
)
from fluidgate.workloads.streams.requests import NOTHING

HOLE = 0
"""`piece` of a record of blocks that hold nothing. That of what is a request's own is less: -1 - its row of `live`."""


@inlined
def blocks_before(cluster: Cluster, piece: int) -> int:
    """Full blocks of a text that end before one of its pieces."""
    return cluster.pieces[cluster.pieces[piece].parent].end // cluster.set.keys.kv_block


@inlined
def blocks_until(cluster: Cluster, piece: int) -> int:
    """Full blocks of a text that end with one of its pieces at the latest."""
    return cluster.pieces[piece].end // cluster.set.keys.kv_block


# The table from piece and GPU to record: open addressing, linear.


@inlined
def cell_of(cluster, piece, g):
    mixed = np.int64(piece) * 0x9E3779B1 + np.int64(g) * 0x85EBCA6B
    return int((mixed ^ (mixed >> 17)) & (len(cluster.table) - 1))


@inlined
def find(cluster: Cluster, piece: int, g: int) -> int:
    """The record of a piece on a GPU; NOWHERE if there is none."""
    mask = len(cluster.table) - 1
    cell = cell_of(cluster, piece, g)
    while cluster.table[cell] != NOWHERE:
        record = cluster.table[cell]
        if cluster.cached[record].piece == piece and cluster.cached[record].gpu == g:
            return record
        cell = (cell + 1) & mask
    return NOWHERE


@called
def enter_table(cluster: Cluster, record: int) -> None:
    mask = len(cluster.table) - 1
    cell = cell_of(cluster, cluster.cached[record].piece, cluster.cached[record].gpu)
    while cluster.table[cell] != NOWHERE:
        cell = (cell + 1) & mask
    cluster.table[cell] = record


@called
def leave_table(cluster: Cluster, record: int) -> None:
    """Those that stand behind it move up, unless they would stand before their own cell."""
    mask = len(cluster.table) - 1
    cell = cell_of(cluster, cluster.cached[record].piece, cluster.cached[record].gpu)
    while cluster.table[cell] != record:
        cell = (cell + 1) & mask
    after = (cell + 1) & mask
    while cluster.table[after] != NOWHERE:
        other = cluster.table[after]
        own = cell_of(cluster, cluster.cached[other].piece, cluster.cached[other].gpu)
        if (after - own) & mask >= (after - cell) & mask:
            cluster.table[cell] = other
            cell = after
        after = (after + 1) & mask
    cluster.table[cell] = NOWHERE


# Records.


@inlined
def new_record(cluster: Cluster, piece: int, g: int) -> int:
    record = cluster.tally[FREE_RECORD]
    here = cluster.cached[record]
    cluster.tally[FREE_RECORD] = here.after
    cluster.tally[RECORDS] += 1
    here.piece = piece
    here.gpu = g
    here.up = NOWHERE
    here.present = 0
    here.refs = 0
    here.ties = 0
    return record


@called
def new_piece(cluster: Cluster, piece: int, g: int) -> int:
    """A record of a piece, of which nothing is on the GPU yet."""
    record = new_record(cluster, piece, g)
    enter_table(cluster, record)
    first = cluster.holders[piece]
    cluster.cached[record].next_holder = first
    cluster.cached[record].previous_holder = NOWHERE
    if first != NOWHERE:
        cluster.cached[first].previous_holder = record
    cluster.holders[piece] = record
    return record


@called
def remove(cluster: Cluster, record: int) -> None:
    here = cluster.cached[record]
    if here.piece > HOLE:
        leave_table(cluster, record)
        if here.previous_holder == NOWHERE:
            cluster.holders[here.piece] = here.next_holder
        else:
            cluster.cached[here.previous_holder].next_holder = here.next_holder
        if here.next_holder != NOWHERE:
            cluster.cached[here.next_holder].previous_holder = here.previous_holder
    here.gpu = NOWHERE
    here.after = cluster.tally[FREE_RECORD]
    cluster.tally[FREE_RECORD] = record
    cluster.tally[RECORDS] -= 1


@called
def untie(cluster: Cluster, record: int) -> None:
    """One less of those for whom a record is there although nothing of it may be."""
    while record != NOWHERE:
        here = cluster.cached[record]
        here.ties -= 1
        if here.ties > 0 or here.refs > 0 or here.present > 0:
            return
        up = here.up
        remove(cluster, record)
        record = up


# Free blocks, in the order in which they are taken.


@inlined
def push_free(cluster: Cluster, g: int, record: int) -> None:
    here = cluster.gpu[g]
    last = here.last_free
    cluster.cached[record].before = last
    cluster.cached[record].after = NOWHERE
    if last == NOWHERE:
        here.first_free = record
    else:
        cluster.cached[last].after = record
    here.last_free = record


@inlined
def unlink_free(cluster: Cluster, g: int, record: int) -> None:
    here = cluster.gpu[g]
    before, after = cluster.cached[record].before, cluster.cached[record].after
    if before == NOWHERE:
        here.first_free = after
    else:
        cluster.cached[before].after = after
    if after == NOWHERE:
        here.last_free = before
    else:
        cluster.cached[after].before = before


@called
def pull_free(cluster: Cluster, g: int, record: int) -> None:
    """A record leaves the free blocks; those that hold nothing on its both sides become one."""
    before, after = cluster.cached[record].before, cluster.cached[record].after
    unlink_free(cluster, g, record)
    if before == NOWHERE or after == NOWHERE:
        return
    if cluster.cached[before].piece == HOLE and cluster.cached[after].piece == HOLE:
        cluster.cached[before].present += cluster.cached[after].present
        unlink_free(cluster, g, after)
        remove(cluster, after)


@called
def push_hole(cluster: Cluster, g: int, blocks: int) -> None:
    """So many blocks that hold nothing are the last of the free ones."""
    last = cluster.gpu[g].last_free
    if last == NOWHERE or cluster.cached[last].piece != HOLE:
        last = new_record(cluster, HOLE, g)
        push_free(cluster, g, last)
    cluster.cached[last].present += blocks


@called
def take_free(cluster: Cluster, g: int, blocks: int) -> None:
    """The first `blocks` of the free ones are taken: what they held is lost."""
    while blocks > 0:
        record = cluster.gpu[g].first_free
        here = cluster.cached[record]
        taken = min(blocks, here.present)
        here.present -= taken
        blocks -= taken
        if here.present == 0:
            pull_free(cluster, g, record)
            lose(cluster, record)


@inlined
def lose(cluster: Cluster, record: int) -> None:
    """Nothing is there any more of what a record is of, and nobody holds it."""
    here = cluster.cached[record]
    if here.piece < HOLE:
        cluster.live[-1 - here.piece].own = NOWHERE
    if here.ties == 0:
        up = here.up
        remove(cluster, record)
        untie(cluster, up)


# What is there of a text.


@called
def deepest(cluster: Cluster, piece: int, g: int) -> int:
    """The record of the last piece of a text of which there is one on the GPU, NOWHERE if there is none."""
    while piece != NOTHING:
        record = find(cluster, piece, g)
        if record != NOWHERE:
            return record
        piece = cluster.pieces[piece].parent
    return NOWHERE


@called
def blocks_there(cluster: Cluster, record: int) -> int:
    """Blocks of a text that are there, up to the piece of a record."""
    while record != NOWHERE:
        here = cluster.cached[record]
        if here.refs > 0:
            return blocks_until(cluster, here.piece)
        if here.present > 0:
            return blocks_before(cluster, here.piece) + here.present
        record = here.up
    return 0


@called
def blocks_held(cluster: Cluster, record: int) -> int:
    """Blocks of a text that somebody holds, up to the piece of a record."""
    while record != NOWHERE:
        if cluster.cached[record].refs > 0:
            return blocks_until(cluster, cluster.cached[record].piece)
        record = cluster.cached[record].up
    return 0


@called
def blocks_expected(cluster: Cluster, g: int, piece: int) -> int:
    """Blocks of a text that are on a GPU, or that those will bring who wait there."""
    record = deepest(cluster, piece, g)
    if record == NOWHERE:
        return 0
    here = cluster.cached[record]
    if here.refs > 0 or here.ties > 0:
        return blocks_until(cluster, here.piece)
    return blocks_before(cluster, here.piece) + here.present


@called
def record_of(cluster: Cluster, g: int, text: int) -> int:
    """The record of the last piece of a text on a GPU; it and those before it are made if they are not there."""
    last = below = NOWHERE
    piece = text
    while piece != NOTHING:
        record = find(cluster, piece, g)
        known = record != NOWHERE
        if not known:
            record = new_piece(cluster, piece, g)
        if below == NOWHERE:
            last = record
        else:
            cluster.cached[below].up = record
            cluster.cached[record].ties += 1
        if known:
            return last
        below = record
        piece = cluster.pieces[piece].parent
    return last


# Who waits for it, who holds it.


@called
def expect(cluster: Cluster, g: int, slot: int) -> None:
    """A request waits at `g`, and will bring its text."""
    request = cluster.live[slot]
    if request.text == NOTHING:
        return
    request.piece = record_of(cluster, g, request.text)
    cluster.cached[request.piece].ties += 1
    request.awaited = 1


@inlined
def expect_no_more(cluster: Cluster, slot: int) -> None:
    request = cluster.live[slot]
    if request.awaited == 1:
        request.awaited = 0
        untie(cluster, request.piece)
        request.piece = NOWHERE


@called
def held_by_others(cluster: Cluster, g: int, slot: int) -> int:
    """Blocks of the text of a request that waits, or comes, which somebody holds on `g`."""
    request = cluster.live[slot]
    if request.text == NOTHING:
        return 0
    if request.awaited == 1:
        return blocks_held(cluster, request.piece)
    return blocks_held(cluster, deepest(cluster, request.text, g))


@called
def take_over(cluster: Cluster, g: int, slot: int, blocks: int) -> int:
    """A request is given `blocks` blocks of `g`; how many of these hold the beginning of what it is about.

    Its record is in `piece` of its row: where it held one on another GPU, that is in the caller's hands.
    """
    request = cluster.live[slot]
    record = NOWHERE
    shared = 0
    if request.text != NOTHING:
        record = request.piece if request.awaited == 1 else record_of(cluster, g, request.text)
        shared = blocks_until(cluster, request.text)
    found = blocks_there(cluster, record)
    if request.own != NOWHERE:
        if cluster.cached[request.own].gpu == g and found == shared:
            found += cluster.cached[request.own].present
            pull_own(cluster, g, slot)
        else:
            disown(cluster, slot)
    held = hold(cluster, g, record)
    if cluster.set.kv_blocks > 0:
        cluster.gpu[g].blocks -= blocks - held
        take_free(cluster, g, blocks - found)
    fill(cluster, record)
    if request.awaited == 1:
        request.awaited = 0
        cluster.cached[record].ties -= 1
    request.piece = record
    return found


@inlined
def pull_own(cluster: Cluster, g: int, slot: int) -> None:
    """The blocks that are a request's own are no longer free."""
    own = cluster.live[slot].own
    if cluster.set.kv_blocks > 0:
        pull_free(cluster, g, own)
    remove(cluster, own)
    cluster.live[slot].own = NOWHERE


@called
def disown(cluster: Cluster, slot: int) -> None:
    """What was a request's own is nothing to anybody."""
    own = cluster.live[slot].own
    if own == NOWHERE:
        return
    cluster.live[slot].own = NOWHERE
    cluster.cached[own].piece = HOLE
    if cluster.set.kv_blocks == 0:
        remove(cluster, own)


@inlined
def hold(cluster: Cluster, g: int, record: int) -> int:
    """One more holds the text that ends with the piece of a record; the blocks of it that somebody held before."""
    while record != NOWHERE:
        here = cluster.cached[record]
        here.refs += 1
        if here.refs > 1:
            return blocks_until(cluster, here.piece)
        if here.present > 0 and cluster.set.kv_blocks > 0:
            pull_free(cluster, g, record)
        record = here.up
    return 0


@inlined
def fill(cluster: Cluster, record: int) -> None:
    """All blocks of a text are there, up to the piece of a record."""
    while record != NOWHERE:
        here = cluster.cached[record]
        size = blocks_until(cluster, here.piece) - blocks_before(cluster, here.piece)
        if size > 0 and here.present == size:
            return
        here.present = size
        record = here.up


@called
def clear(cluster: Cluster, g: int) -> None:
    """All that is on a GPU is lost, who waits there waits no more, and its blocks are free and hold nothing."""
    for slot in range(len(cluster.live)):
        request = cluster.live[slot]
        if request.stage == NOWHERE:
            continue
        if request.reserved == 1 and request.there != NOWHERE and cluster.cached[request.there].gpu == g:
            request.there = NOWHERE
        if request.piece != NOWHERE and cluster.cached[request.piece].gpu == g:
            request.piece = NOWHERE
            request.awaited = 0
        if request.own != NOWHERE and cluster.cached[request.own].gpu == g:
            request.own = NOWHERE
    for record in range(len(cluster.cached)):
        if cluster.cached[record].gpu == g:
            remove(cluster, record)
    cluster.gpu[g].first_free = cluster.gpu[g].last_free = NOWHERE
    if cluster.set.kv_blocks > 0:
        push_hole(cluster, g, cluster.set.kv_blocks)


# What becomes of it. Values of `keep`:
DROP = 0  # what is the request's own holds nothing
OWN = 1  # the request will want it again
LEAN = 3  # the same of a text that never came, but for what others have brought behind it
ANSWER = 2  # others will, if its answer is a piece of text


@called
def give_up(cluster: Cluster, g: int, slot: int, record: int, blocks: int, read: int, keep: int) -> None:
    """A request gives up `blocks` blocks of `g`; the first `read` of them hold what they are to hold.

    Args:
        record: of the last piece of its text there.
    """
    request = cluster.live[slot]
    limited = cluster.set.kv_blocks > 0
    shared = 0 if record == NOWHERE else blocks_until(cluster, cluster.cached[record].piece)
    own = max(read - shared, 0)
    if keep == DROP or (keep == ANSWER and request.answer == NOTHING):
        own = 0
    if limited:
        cluster.gpu[g].blocks += blocks - shared
        if blocks - shared - own > 0:
            push_hole(cluster, g, blocks - shared - own)
    if own > 0 and keep != ANSWER:
        request.own = new_record(cluster, -1 - slot, g)
        cluster.cached[request.own].present = own
        if limited:
            push_free(cluster, g, request.own)
    elif own > 0:
        leave_answer(cluster, g, request.answer, record, own)
    let_text_go(cluster, g, record, read, keep == LEAN)


@called
def leave_answer(cluster: Cluster, g: int, answer: int, text: int, blocks: int) -> None:
    """The first `blocks` blocks of an answer stay, free, behind its text, the piece of record `text`."""
    record = find(cluster, answer, g)
    if record == NOWHERE:
        record = new_piece(cluster, answer, g)
        cluster.cached[record].up = text
        if text != NOWHERE:
            cluster.cached[text].ties += 1
    limited = cluster.set.kv_blocks > 0
    if cluster.cached[record].present == 0 and cluster.cached[record].refs == 0:
        cluster.cached[record].present = blocks
        if limited:
            push_free(cluster, g, record)
    elif limited:
        push_hole(cluster, g, blocks)


@called
def let_text_go(cluster: Cluster, g: int, record: int, read: int, has_more: bool) -> None:
    """One less holds the text that ends with the piece of a record, of which `read` blocks are read.

    Args:
        has_more: whether pieces are whole that others have brought something behind.
    """
    limited = cluster.set.kv_blocks > 0
    while record != NOWHERE:
        here = cluster.cached[record]
        here.refs -= 1
        if here.refs > 0:
            return
        up = here.up
        there = min(max(read - blocks_before(cluster, here.piece), 0), here.present)
        if has_more and here.ties > 0:
            there = here.present
        if limited:
            cluster.gpu[g].blocks += here.present
            if there < here.present:
                push_hole(cluster, g, here.present - there)
            if there > 0:
                push_free(cluster, g, record)
        here.present = there
        if here.present == 0 and here.ties == 0:
            remove(cluster, record)
            if up != NOWHERE:
                cluster.cached[up].ties -= 1
        record = up
