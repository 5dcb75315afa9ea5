"""The pace of the iterations under way, from which the limits on time per output token are held."""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.view import BUSY, DECODES, LATE_TOKENS, MIXED_BUSY, SLOT_SECONDS, TOKENS
from fluidgate.simulation.iteration.kernel.cluster import NOW, Cluster


@inlined
def segment_begins(cluster: Cluster, g: int) -> None:
    """The segment of `g` that begins counts, as if its iterations were all like the first."""
    if not np.isnan(cluster.board.state.pace[SLOT_SECONDS]):
        count_segment(cluster, g, 1.0)


@inlined
def segment_ends(cluster: Cluster, g: int) -> None:
    """The segment of `g` counts no more; what its decodes have gained otherwise than thought is made good."""
    pace = cluster.board.state.pace
    if not np.isnan(pace[SLOT_SECONDS]):
        count_segment(cluster, g, -1.0)
        here = cluster.gpu[g]
        pace[LATE_TOKENS] += here.batch * (here.length - (cluster.clock[NOW] - here.start) / here.first)


@inlined
def segment_is_taken_back(cluster: Cluster, g: int) -> None:
    """The segment of `g` that has just begun counts no more."""
    if not np.isnan(cluster.board.state.pace[SLOT_SECONDS]):
        count_segment(cluster, g, -1.0)


@called
def count_segment(cluster: Cluster, g: int, sign: float) -> None:
    here, pace = cluster.gpu[g], cluster.board.state.pace
    mixed = 1.0 if here.chunk > 0 else 0.0
    pace[SLOT_SECONDS] += sign * (cluster.batch_size - mixed) * here.first
    pace[BUSY] += sign
    pace[MIXED_BUSY] += sign * mixed
    pace[DECODES] += sign * here.batch
    pace[TOKENS] += sign * here.batch / here.first
