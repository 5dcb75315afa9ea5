"""When the sessions of traces start that do not say it: a rate for all of them, over the whole cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from fluidgate.errors import FluidgateError
from fluidgate.model import Array
from fluidgate.workloads.sessions import NONE
from fluidgate.workloads.traces import Trace


def check_starts(traces: Sequence[Trace], sessions_rate: float | None, closed: bool) -> None:
    """Refuse traces whose sessions have no starts, and a rate that there is no use for.

    Args:
        sessions_rate: starts of sessions a second, over all traces and the whole cluster.
        closed: whether users start the sessions.

    Raises:
        FluidgateError: naming the option and the mend.
    """
    waiting = [trace for trace in traces if trace.by_answers]
    if sessions_rate is not None and not 0 < sessions_rate < math.inf:
        raise FluidgateError(
            f"--sessions-rate: must be above 0 and finite, but is {sessions_rate:g}; give sessions a second"
        )
    if sessions_rate is not None and closed:
        raise FluidgateError("--sessions-rate: not in a closed loop, whose users start sessions; leave it out")
    if sessions_rate is not None and not waiting:
        raise FluidgateError("--sessions-rate: no trace has sessions without times of their own; leave it out")
    if waiting and sessions_rate is None and not closed:
        raise FluidgateError(
            f"{waiting[0].source}: it does not say when its sessions start; give --sessions-rate R, their starts a "
            "second over the whole cluster, or --users N, so many at a time"
        )


def starts_of(trace: Trace, traces: Sequence[Trace], sessions_rate: float | None) -> float:
    """Starts of the sessions of one of several traces a second: each has its share, so that all last as long."""
    return (sessions_rate or 1.0) * sessions_in(trace) / max(1, sum(map(sessions_in, traces)))


def sessions_in(trace: Trace) -> int:
    """The sessions that come by themselves, of a trace whose requests wait for answers; of any other, none."""
    return trace.sessions.count if trace.sessions is not None and trace.by_answers else 0


def starting_span(trace: Trace, traces: Sequence[Trace], sessions_rate: float | None) -> float:
    """Seconds over which the requests of a trace come by themselves, about."""
    return sessions_in(trace) / starts_of(trace, traces, sessions_rate) if trace.by_answers else trace.span


def start_times(trace: Trace, starts: float, random: Generator) -> Array:
    """A Poisson process of `starts` a second, one for each session that comes by itself, s."""
    return np.asarray(np.cumsum(random.standard_exponential(sessions_in(trace))) / starts)


def sent_times(trace: Trace, starts: float, random: Generator, service: float | Array = 0.0) -> Array:
    """When the requests of a trace would be sent, s, if each took a given time from its sending to its answer's end.

    Their order is that in which an engine meets them, about, which is not that of the trace where it holds session
    after session. Requests with times of their own keep these.

    Args:
        starts: starts of sessions a second, where these have no times.
        random: draws them.
        service: s, of every request or of each.
    """
    sessions = trace.sessions
    if sessions is None or sessions.think is None:
        return trace.arrival_time
    sent = np.zeros(len(trace))
    sent[sessions.own_first] = start_times(trace, starts, random)
    took = np.broadcast_to(service, sent.shape)
    for k in np.flatnonzero(
        (sessions.after != NONE) | (sessions.spawner != NONE)
    ).tolist():  # what sets it off is before
        before = sessions.after[k]
        if before != NONE:
            sent[k] = sent[before] + took[before] + sessions.think[k]
        else:
            sent[k] = sent[sessions.spawner[k]] + sessions.delay[k]
    return sent
