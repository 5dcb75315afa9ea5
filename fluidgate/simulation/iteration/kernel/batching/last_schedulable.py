"""Last schedulable (SLAI): a token budget, but prompts first while the decodes are far from their deadline."""

from __future__ import annotations

from fluidgate.compiled import inlined
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation.iteration.kernel.admission import fresh, start_prefill
from fluidgate.simulation.iteration.kernel.batch import (
    set_mode,
)
from fluidgate.simulation.iteration.kernel.batching.token_budget import within_budget
from fluidgate.simulation.iteration.kernel.cluster import (
    FETCHING,
    NOW,
    READING,
    WAITING,
)
from fluidgate.simulation.iteration.kernel.lines import gpu_line
from fluidgate.simulation.iteration.kernel.live import read_before
from fluidgate.simulation.iteration.kernel.memory import (
    admits,
    blocks_next,
    prepay,
)
from fluidgate.simulation.iteration.kernel.pools import fetch_all
from fluidgate.simulation.iteration.kernel.segment import (
    begin_segment,
)
from fluidgate.simulation.iteration.law import seconds


@inlined
def compose(cluster, law, g, latest):
    """The next batch of `g`."""
    if not prompts_first(cluster, law, g):
        within_budget(cluster, law, g, latest, False)


@inlined
def prompts_first(cluster, law, g):
    """Prompts fill the budget before the decodes of `g`, which stand still unless all of them fit into the rest.

    False, and nothing done, if the decodes are critical, a swapped one comes first, or no prompt can be read.
    """
    here = cluster.gpu[g]
    waiting = gpu_line(cluster, g, WAITING)
    reading = gpu_line(cluster, g, READING)
    first = cluster.lines[waiting].head
    whole = seconds(law, cluster.set.tokens, 0, 0, 0)
    if (
        here.decodes == 0
        or cluster.clock[NOW] + cluster.set.token_offset * whole > here.last_token + cluster.set.token_deadline
        or (cluster.set.kv_blocks > 0 and blocks_next(cluster, g) > here.blocks)
        or (first != NOWHERE and cluster.live[first].unread == 0)
    ):
        return False
    left = cluster.set.tokens
    read = 0
    if cluster.lines[reading].head != NOWHERE:
        request = cluster.live[cluster.lines[reading].head]
        part = min(request.unread, left)
        read = part * read_before(request)
        request.unread -= part
        left -= part
    while (
        left > 0
        and cluster.lines[waiting].head != NOWHERE
        and here.decodes + cluster.lines[reading].members < cluster.batch_size
    ):
        slot = cluster.lines[waiting].head
        request = cluster.live[slot]
        if request.unread == 0 or not admits(cluster, g, slot, request.unread + cluster.set.keys.kv_reservation):
            break
        start_prefill(cluster, g, slot)
        part = min(request.unread, left)
        read += part * read_before(request)
        request.unread -= part
        left -= part
    chunk = cluster.set.tokens - left
    if chunk == 0:
        return False
    if cluster.lines[gpu_line(cluster, g, FETCHING)].head != NOWHERE:
        fetch_all(cluster, g)
    set_mode(cluster, g, 1)
    if left < here.decodes:
        begin_segment(cluster, law, g, chunk, read, 0, 1, 0.0)
        return True
    if cluster.set.kv_blocks > 0:
        prepay(cluster, g)
    begin_segment(cluster, law, g, chunk, read, here.decodes, 1, 0.0)
    here.joining = fresh(cluster, g)
    return True
