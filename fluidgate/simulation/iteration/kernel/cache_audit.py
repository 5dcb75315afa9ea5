"""Of the audit: what the blocks of KV memory hold, where it is kept (prefix caching), recounted from who holds it."""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.cluster import FREE_RECORD, RECORDS, Cluster
from fluidgate.simulation.iteration.kernel.prefixes import HOLE, blocks_before, blocks_until, find
from fluidgate.workloads.streams.requests import NOTHING

RECOUNTED = 1 << 16
"""What is recounted stands above the low bits of a count for as long as that takes: nothing may be allocated."""
LOW = RECOUNTED - 1


@called
def check_cache(cluster: Cluster) -> bool:
    """Whether records, who holds them, the table, the lists of holders and the lines of free blocks agree."""
    if not cluster.set.caching:
        return True
    if not (records_sound(cluster) and counts_sound(cluster)):
        return False
    return table_sound(cluster) and holders_sound(cluster) and all_free_in_line(cluster)


@called
def records_sound(cluster: Cluster) -> bool:
    """Whether each record has the one before it, whole if anything of its own is there, and a reason to be there."""
    used = 0
    for record in range(len(cluster.cached)):
        here = cluster.cached[record]
        if here.gpu == NOWHERE:
            continue
        used += 1
        if here.piece < HOLE and cluster.live[-1 - here.piece].own != record:
            return False
        if here.piece > HOLE and not piece_sound(cluster, record):
            return False
    for slot in range(len(cluster.live)):
        request = cluster.live[slot]
        if request.stage == NOWHERE or request.own == NOWHERE:
            continue
        if cluster.cached[request.own].gpu == NOWHERE or cluster.cached[request.own].piece != -1 - slot:
            return False
    spare, record = 0, cluster.tally[FREE_RECORD]
    while record != NOWHERE and record < len(cluster.cached) and spare <= len(cluster.cached):
        if cluster.cached[record].gpu != NOWHERE:
            return False
        spare += 1
        record = cluster.cached[record].after
    return used == cluster.tally[RECORDS] and used + spare == len(cluster.cached)


@inlined
def piece_sound(cluster: Cluster, record: int) -> bool:
    here = cluster.cached[record]
    there = here.refs > 0 or here.present > 0
    size = blocks_until(cluster, here.piece) - blocks_before(cluster, here.piece)
    if here.present < 0 or here.present > size or (here.refs > 0 and here.present < size):
        return False
    if not there and here.ties < 1:
        return False
    parent = cluster.pieces[here.piece].parent
    if parent == NOTHING:
        return bool(here.up == NOWHERE)
    if here.up == NOWHERE:
        return False
    before = cluster.cached[here.up]
    if before.piece != parent or before.gpu != here.gpu:
        return False
    whole = blocks_until(cluster, parent) - blocks_before(cluster, parent)
    return bool(not there or before.present == whole)


@called
def counts_sound(cluster: Cluster) -> bool:
    """Whether as many hold each record, and wait for it, as it says."""
    for slot in range(len(cluster.live)):
        request = cluster.live[slot]
        if request.stage == NOWHERE:
            continue
        if request.piece != NOWHERE and request.awaited == 1:
            cluster.cached[request.piece].ties += RECOUNTED
        elif request.piece != NOWHERE:
            cluster.cached[request.piece].refs += RECOUNTED
        if request.reserved == 1 and request.kept != NOWHERE and request.there != NOWHERE:
            cluster.cached[request.there].refs += RECOUNTED
    for record in range(len(cluster.cached)):
        here = cluster.cached[record]
        if here.gpu != NOWHERE and here.piece > HOLE and here.up != NOWHERE:
            cluster.cached[here.up].ties += RECOUNTED
            if here.refs & LOW > 0:
                cluster.cached[here.up].refs += RECOUNTED
    sound = True
    for record in range(len(cluster.cached)):
        here = cluster.cached[record]
        if here.gpu != NOWHERE and here.piece > HOLE:
            sound = sound and here.refs >> 16 == here.refs & LOW and here.ties >> 16 == here.ties & LOW
            here.refs = here.refs & LOW
            here.ties = here.ties & LOW
    return sound


@called
def table_sound(cluster: Cluster) -> bool:
    """Whether each record of a piece is found, and nothing else is in the table."""
    pieces = entries = 0
    for record in range(len(cluster.cached)):
        here = cluster.cached[record]
        if here.gpu != NOWHERE and here.piece > HOLE:
            pieces += 1
            if find(cluster, here.piece, here.gpu) != record:
                return False
    for cell in range(len(cluster.table)):
        entries += 1 if cluster.table[cell] != NOWHERE else 0
    return entries == pieces


@called
def holders_sound(cluster: Cluster) -> bool:
    """Whether the lists of GPUs that have something of a piece name each of them once."""
    listed = pieces = 0
    for record in range(len(cluster.cached)):
        pieces += 1 if cluster.cached[record].gpu != NOWHERE and cluster.cached[record].piece > HOLE else 0
    for piece in range(len(cluster.holders)):
        last, record = NOWHERE, cluster.holders[piece]
        while record != NOWHERE:
            here = cluster.cached[record]
            if here.gpu == NOWHERE or here.piece != piece or here.previous_holder != last or listed == pieces:
                return False
            listed += 1
            last = record
            record = here.next_holder
    return listed == pieces


@called
def all_free_in_line(cluster: Cluster) -> bool:
    """Whether the lines of free blocks have every record that is there and that nobody holds, and no other."""
    if cluster.set.kv_blocks == 0:
        return True
    free = in_line = 0
    for record in range(len(cluster.cached)):
        here = cluster.cached[record]
        unheld = here.piece <= HOLE or here.refs == 0
        free += 1 if here.gpu != NOWHERE and here.present > 0 and unheld else 0
    for g in range(cluster.gpus):
        last, record = NOWHERE, cluster.gpu[g].first_free
        while record != NOWHERE:
            here = cluster.cached[record]
            if here.gpu != g or here.before != last or in_line == free:
                return False
            in_line += 1
            last = record
            record = here.after
        if last != cluster.gpu[g].last_free:
            return False
    return in_line == free
