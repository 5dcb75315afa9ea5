"""Sessions: which request of a trace follows which, and how long after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array
from fluidgate.shown import Brief

Rows = NDArray[np.int64]
NONE = -1
"""Of a request: no other one."""


@dataclass(frozen=True, repr=False)
class Sessions(Brief):
    """How the requests of a trace hang together; arrays of shape (requests,).

    A session is a request that follows on none and those that follow on it. A sub-agent's session is set off by a
    request of another session; all those that begin with one request are one session tree.

    Attributes:
        after: the request before it in its session; NONE: it is the first.
        spawner: of the first request of a sub-agent, the one that sets it off; else NONE.
        delay: s from when that one is sent to this one; else 0.
        think: s from the end of the last answer of its session to this request; 0 for a first one. None where the file
            says when each request arrived in its place.
        found: leading prompt tokens that are those of the last prompt of its session; None where the file does not say.
    """

    after: Rows
    spawner: Rows
    delay: Array
    think: Array | None = None
    found: Rows | None = None

    def __len__(self) -> int:
        return len(self.after)

    @property
    def by_answers(self) -> bool:
        """Whether a request waits for the last answer; else each has a time of its own."""
        return self.think is not None

    @cached_property
    def session(self) -> Rows:
        """The number of each request's session, sub-agents' being sessions of their own, in order of their first."""
        return _numbered(self.after)

    @cached_property
    def tree(self) -> Rows:
        """The number of the session that each request belongs to, sub-agents included in what sets them off."""
        return _numbered(np.where(self.after == NONE, self.spawner, self.after))

    @cached_property
    def own_first(self) -> Rows:
        """The first request of each session that no other sets off."""
        return np.flatnonzero((self.after == NONE) & (self.spawner == NONE))

    @property
    def count(self) -> int:
        return len(self.own_first)

    @property
    def subagents(self) -> int:
        return int((self.spawner != NONE).sum())

    @cached_property
    def turns(self) -> Rows:
        """Requests of each session, sub-agents' left out, shape (count,)."""
        each = np.bincount(self.session)
        found: Rows = each[self.session[self.own_first]]
        return found

    @cached_property
    def thinks(self) -> Array | None:
        """Think times of the requests that follow on another, s."""
        return None if self.think is None else self.think[self.after != NONE]

    def select(self, order: NDArray[np.intp]) -> Sessions:
        """The same requests in another order."""
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        moved = np.append(place, NONE)
        return Sessions(
            moved[self.after[order]],
            moved[self.spawner[order]],
            self.delay[order],
            None if self.think is None else self.think[order],
            None if self.found is None else self.found[order],
        )

    @staticmethod
    def joined(parts: Sequence[Sessions]) -> Sessions:
        """Those of several traces, one after the other."""
        begins = np.cumsum([0, *(len(part) for part in parts)])

        def moved(columns: Sequence[Rows]) -> Rows:
            return np.concatenate([np.where(c == NONE, NONE, c + b) for c, b in zip(columns, begins, strict=False)])

        thinks = [part.think for part in parts if part.think is not None]
        founds = [part.found for part in parts if part.found is not None]
        return Sessions(
            moved([part.after for part in parts]),
            moved([part.spawner for part in parts]),
            np.concatenate([part.delay for part in parts]),
            np.concatenate(thinks) if len(thinks) == len(parts) else None,
            np.concatenate(founds) if len(founds) == len(parts) else None,
        )


def _numbered(before: Rows) -> Rows:
    """The number of the root of each, by those that have none before them."""
    roots = before == NONE
    root = np.where(roots, np.arange(len(before)), before)
    while not np.array_equal(root, further := root[root]):
        root = further
    numbers: Rows = (np.cumsum(roots) - 1)[root]
    return numbers
