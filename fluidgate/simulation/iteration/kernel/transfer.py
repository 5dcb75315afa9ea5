"""KV on its way from one GPU to another."""

from __future__ import annotations

from fluidgate.compiled import inlined
from fluidgate.simulation.iteration.kernel.cluster import Cluster


@inlined
def transfer_seconds(cluster: Cluster, tokens: int) -> float:
    """How long so many tokens of KV take."""
    keys = cluster.set.keys
    return keys.transfer_latency + (1.0 / keys.transfer_bandwidth) * tokens
