"""The pace of the iterations under way, from which the limits on time per output token are held."""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import inlined
from fluidgate.policies.decisions.view import BUSY, DECODES, LATE_TOKENS, MIXED_BUSY, SLOT_SECONDS, TOKENS
from fluidgate.simulation.iteration.kernel.cluster import NOW, Cluster


@inlined
def segment_begins(cluster: Cluster, g: int) -> None:
    """The segment of `g` that begins counts, as if its iterations were all like the first."""
    pace = cluster.board.state.pace
    if np.isnan(pace[SLOT_SECONDS]):
        return
    here = cluster.gpu[g]
    here.slots = cluster.batch_size - (1 if here.chunk > 0 else 0)
    here.token_rate = here.batch / here.first
    pace[SLOT_SECONDS] += here.slots * here.first
    pace[BUSY] += 1.0
    pace[MIXED_BUSY] += 1.0 if here.chunk > 0 else 0.0
    pace[DECODES] += here.batch
    pace[TOKENS] += here.token_rate


@inlined
def segment_ends(cluster: Cluster, g: int) -> None:
    """The segment of `g` counts no more; what its decodes have gained otherwise than thought is made good."""
    pace = cluster.board.state.pace
    if np.isnan(pace[SLOT_SECONDS]):
        return
    here = cluster.gpu[g]
    pace[SLOT_SECONDS] -= here.slots * here.first
    pace[BUSY] -= 1.0
    pace[MIXED_BUSY] -= 1.0 if here.chunk > 0 else 0.0
    pace[DECODES] -= here.batch
    pace[TOKENS] -= here.token_rate
    pace[LATE_TOKENS] += here.batch * here.length - here.token_rate * (cluster.clock[NOW] - here.start)
