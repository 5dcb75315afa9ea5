"""Live requests: one arrives, if there is room, and gets its row, is refused, or gives up its place in a batch."""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import inlined
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation import events, pauses
from fluidgate.simulation.iteration.kernel.batch import (
    leave,
    strike_out,
)
from fluidgate.simulation.iteration.kernel.cluster import (
    ALIVE,
    CURSOR,
    ENDED,
    FREE_SLOT,
    FRESH,
    LOGGED,
    MOST_ALIVE,
    NOW,
    NUMBER,
    RECORDS,
    REJECTED,
    SEGMENTS,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.keys import SWAP
from fluidgate.simulation.iteration.kernel.memory import blocks_of
from fluidgate.simulation.iteration.kernel.prefixes import OWN
from fluidgate.simulation.iteration.kernel.record import retire
from fluidgate.simulation.iteration.kernel.users import set_off, sign
from fluidgate.workloads.streams.requests import NOTHING


@inlined
def what_is_missing(cluster, block):
    """A word of `pauses` for what the next event could need and is not there; NOWHERE if it may come."""
    tally = cluster.tally
    if tally[CURSOR] == len(block) and tally[ENDED] == 0:
        return pauses.BLOCK_READ
    if tally[FREE_SLOT] == NOWHERE:
        return pauses.FULL
    if cluster.record_margin > 0 and tally[RECORDS] + cluster.record_margin > len(cluster.cached):
        return pauses.RECORDS_FULL
    if len(cluster.log) > 0 and tally[LOGGED] + cluster.batch_size + 1 >= len(cluster.log):
        return pauses.LOG_FULL
    if len(cluster.segments) > 0 and tally[SEGMENTS] + cluster.gpus + 1 >= len(cluster.segments):
        return pauses.LOG_FULL
    return NOWHERE


@inlined
def enter(cluster, arriving):
    """The row of a request that arrives now."""
    slot = cluster.tally[FREE_SLOT]
    request = cluster.live[slot]
    cluster.tally[FREE_SLOT] = request.next
    request.arrival = cluster.clock[NOW]
    request.since = cluster.clock[NOW]
    request.scheduled = np.nan
    request.first = np.nan
    request.last = np.nan
    request.patience = arriving.patience
    request.number = cluster.tally[NUMBER]
    request.cls = arriving.cls
    request.prompt = arriving.prompt
    request.output = arriving.output
    request.unread = arriving.prompt
    request.produced = 0
    request.gpu = NOWHERE
    request.prefill_gpu = NOWHERE
    request.timer_position = NOWHERE
    request.preemptions = 0
    request.text = arriving.text if cluster.set.prefixes else NOTHING
    request.answer = arriving.answer if cluster.set.prefixes else NOTHING
    request.then = arriving.then
    request.piece = NOWHERE
    request.own = NOWHERE
    request.awaited = 0
    request.cached = NOWHERE
    request.loaded = 0
    request.decode_gpu = NOWHERE
    request.accumulating = 0
    request.shelf = NOWHERE
    request.kept = NOWHERE
    request.reserved = 0
    request.stage = stages.PREFILL_QUEUE
    sign(cluster, slot, arriving.think)
    set_off(cluster, arriving.spawns)
    cluster.tally[NUMBER] += 1
    cluster.tally[ALIVE] += 1
    cluster.tally[MOST_ALIVE] = max(cluster.tally[ALIVE], cluster.tally[MOST_ALIVE])
    cluster.events[events.ARRIVAL, arriving.cls] += 1
    return slot


@inlined
def read_before(request):
    """Tokens of what a prefill reads that have been read, or were found in memory."""
    return request.prompt + request.produced - request.unread


@inlined
def refused(cluster: Cluster, slot: int) -> bool:
    """Whether the request could never be served to its end by a GPU's memory: then it is rejected."""
    request = cluster.live[slot]
    if cluster.set.kv_blocks == 0 or blocks_of(cluster, request.prompt + request.output) <= cluster.set.kv_blocks:
        return False
    cluster.events[events.REJECTION, request.cls] += 1
    retire(cluster, slot, REJECTED)
    return True


@inlined
def preempt_decode(cluster: Cluster, g: int, slot: int) -> float:
    """A decode leaves the batch: swapped out, or its KV dropped and all its tokens to be read again."""
    here = cluster.gpu[g]
    request = cluster.live[slot]
    grown = here.iteration - request.joined
    strike_out(cluster, g, slot)
    leave(cluster, g, slot, OWN)
    if grown > 0:
        request.last = here.last_token
    elif cluster.batch[g, FRESH, request.cls] > 0:
        cluster.batch[g, FRESH, request.cls] -= 1
    request.produced += grown
    cluster.events[events.DECODE_PREEMPTION, request.cls] += 1
    if cluster.set.keys.preemption == SWAP:
        request.unread = 0
        return (request.held + grown) * cluster.set.keys.swap_seconds
    request.unread = request.prompt + request.produced
    return 0.0
