"""Further turns of the sessions in traces, as rows of a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array
from fluidgate.workloads.sessions import NONE, Rows, Sessions
from fluidgate.workloads.streams.requests import NOTHING
from fluidgate.workloads.traces import Trace

ScriptRows = NDArray[np.int32]


@dataclass(frozen=True)
class Turns:
    """How the requests of traces follow each other; arrays over all their requests, one trace after the other.

    Attributes:
        row: of the script, for a request that another one brings; NOTHING: it comes by itself.
        then, spawns, beside: rows, as in REQUEST.
        think: s from its answer to the request that follows it; 0 where none does.
        delay: s from when it is set off.
        by_agent: whether it is a sub-agent's.
        size: of one that comes by itself, the requests that are sent with it and because of it; else 0.
    """

    row: ScriptRows
    then: ScriptRows
    spawns: ScriptRows
    beside: ScriptRows
    think: Array
    delay: Array
    by_agent: NDArray[np.bool_]
    size: Rows

    @property
    def brought(self) -> NDArray[np.intp]:
        """The requests of the rows, in their order."""
        return np.flatnonzero(self.row != NOTHING)

    @property
    def frees_user(self) -> NDArray[np.bool_]:
        """Which requests are the last of a session that comes by itself."""
        last: NDArray[np.bool_] = (self.then == NOTHING) & ~self.by_agent
        return last

    def without(self, left_out: NDArray[np.bool_]) -> Turns:
        """Of a session that is cut short: without its last requests, as they stand in the trace."""
        goes = np.append(False, left_out[self.brought])

        def cut(rows: ScriptRows) -> ScriptRows:
            return np.where(goes[rows], NOTHING, rows).astype(np.int32)

        then = cut(self.then)
        think = np.where(then == NOTHING, 0.0, self.think)
        return replace(self, then=then, spawns=cut(self.spawns), beside=cut(self.beside), think=think)


def turns_of(traces: Sequence[Trace]) -> Turns:
    """How the requests of traces follow each other; where each has a time of its own, none does."""
    every = Sessions.joined([_links(trace) for trace in traces])
    count, after, spawner = len(every), every.after, every.spawner
    brought = np.flatnonzero((after != NONE) | (spawner != NONE))
    row = np.zeros(count, np.int32)
    row[brought] = np.arange(1, len(brought) + 1)
    then, spawns, beside = (np.zeros(count, np.int32) for _ in range(3))
    think = np.zeros(count)
    follows = np.flatnonzero(after != NONE)
    then[after[follows]] = row[follows]
    think[after[follows]] = 0.0 if every.think is None else every.think[follows]
    for agent in np.flatnonzero(spawner != NONE)[::-1].tolist():  # so that the first of them is the first in `spawns`
        beside[agent] = spawns[spawner[agent]]
        spawns[spawner[agent]] = row[agent]
    agents = spawner[(after == NONE)] != NONE
    size = np.zeros(count, np.int64)
    size[every.own_first] = np.bincount(every.tree, minlength=every.count)
    return Turns(row, then, spawns, beside, think, every.delay, agents[every.session], size)


def _links(trace: Trace) -> Sessions:
    """The sessions of a trace whose requests wait for answers; of any other, a session a request."""
    if trace.sessions is not None and trace.by_answers:
        return trace.sessions
    none = np.full(len(trace), NONE, np.int64)
    return Sessions(none, none, np.zeros(len(trace)), np.zeros(len(trace)))
