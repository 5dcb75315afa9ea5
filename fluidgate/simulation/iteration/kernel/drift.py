"""Pools whose requests are read where they decode or on a GPU of the prompt pool, as EDPP decides for each."""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called
from fluidgate.policies.decisions import edpp
from fluidgate.policies.decisions.edpp import DECODER, NO_WORK, READER
from fluidgate.simulation.iteration.kernel.cluster import NOW, Cluster
from fluidgate.simulation.iteration.kernel.record import time_to_first


@called
def choose_ways(cluster: Cluster, slot: int) -> int:
    """The GPU that reads a new request; `cluster.edpp.chosen` has the one where it decodes too."""
    request = cluster.live[slot]
    reader = edpp.choose(cluster.edpp, request.cls, request.prompt, cluster.loads.reuse)
    request.read_work = cluster.edpp.work[READER]
    request.decode_work = cluster.edpp.work[DECODER]
    return reader


@called
def begin_work(cluster: Cluster, slot: int, g: int) -> None:
    """The request is in the batch of `g`."""
    request = cluster.live[slot]
    if g != request.decode_gpu:
        request.read_work = let_go_of(cluster, g, request.read_work)
    else:
        request.decode_work = let_go_of(cluster, g, request.decode_work)


@called
def let_go_of(cluster: Cluster, g: int, work: float) -> float:
    """Work that is in the backlog of `g` no longer is; what to know of it from then on."""
    if work != NO_WORK:
        edpp.begun(cluster.edpp, g, work)
    return NO_WORK


@called
def leave_reader(cluster: Cluster, slot: int) -> None:
    """A request that was to be read for another GPU is read, or never will be."""
    request = cluster.live[slot]
    request.read_work = let_go_of(cluster, request.gpu, request.read_work)
    edpp.comes(cluster.edpp, request.gpu, -1, 0)


@called
def leave_decoder(cluster: Cluster, slot: int) -> None:
    """A request that decodes, or was to decode, does so no more where it was to."""
    request = cluster.live[slot]
    request.decode_work = let_go_of(cluster, request.decode_gpu, request.decode_work)
    edpp.comes(cluster.edpp, request.decode_gpu, -1, -request.prompt)


@called
def count_served(cluster: Cluster, slot: int) -> None:
    """A request has been served to its end."""
    request = cluster.live[slot]
    now = cluster.clock[NOW]
    gap = (now - request.first) / (request.output - 1) if request.output > 1 else np.nan
    edpp.completed(cluster.edpp, now, request.cls, time_to_first(cluster, slot), gap, request.output)
