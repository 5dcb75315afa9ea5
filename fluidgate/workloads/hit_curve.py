"""How much of the prompts a memory of KV holds: the hit rate against the memory, of requests in their order.

The model: the blocks of one GPU's memory are kept until room is needed, and the least recently used goes first. A
request uses those of its prompt and of its answer, as it is sent; the last block of a text counts as the one used
longest ago, as engines free them. So the first blocks of a text stay the longest, what is found is a beginning, and a
block is there in a memory of `m` blocks where fewer than `m` others were used since: its stack distance. All memories
are thus measured in one pass.

What this leaves out: what running requests hold cannot be taken from them (see `fluidgate.planning.cached`), and they
use their blocks until their answers end; the order of requests is given, whatever the memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fluidgate.compiled import inlined, kept
from fluidgate.model import Array
from fluidgate.shown import Brief
from fluidgate.workloads.streams.requests import NOTHING, Requests
from fluidgate.workloads.streams.script import Pieces

Numbers = NDArray[np.int64]

BLOCK = 16
"""Tokens of a block, as of vLLM."""

_COMMON = 10
"""Of the requests of a GPU, more than one in so many share what is no session's own text."""
_WAYS = 2
"""Ways for each GPU, more than which such a text goes on in."""


@dataclass(frozen=True, eq=False, repr=False)
class HitCurve(Brief):
    """What is found of the prompts of each class in any memory.

    Attributes:
        block: tokens of a block.
        prompt: tokens of all prompts of each class, shape (classes,).
        start, end: of each stretch of blocks that some request asked for again: found are those whose place is before
            the memory's end, blocks, shape (stretches,).
        cls: class of that request, shape (stretches,).
    """

    block: int
    prompt: Numbers
    start: Numbers
    end: Numbers
    cls: NDArray[np.int32]

    def found(self, memory: float) -> Array:
        """Prompt tokens of each class found in a memory of so many tokens, inf for one without end; (classes,)."""
        blocks = memory // self.block if math.isfinite(memory) else math.inf
        return np.array([float(np.interp(blocks, *line)) * self.block for line in self._lines])

    def rates(self, memory: float) -> Array:
        """Hit rate of each class, shape (classes,); 0 for one without requests."""
        found = self.found(memory)
        return np.divide(found, self.prompt, out=np.zeros(len(found)), where=self.prompt > 0)

    def rate(self, memory: float) -> float:
        """Hit rate of all prompt tokens together."""
        return float(self.found(memory).sum() / max(self.prompt.sum(), 1))

    @property
    def endless(self) -> float:
        """Hit rate of a memory without end."""
        return self.rate(math.inf)

    @property
    def largest(self) -> int:
        """Tokens of memory beyond which no more is found."""
        return int(self.end.max(initial=0)) * self.block

    def memory_for(self, rate: float) -> int | None:
        """Least tokens of memory that find so much; None if none does."""
        low, high = -1, self.largest // self.block
        if self.rate(high * self.block) < rate:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.rate(middle * self.block) < rate else (low, middle)
        return high * self.block

    @cached_property
    def _lines(self) -> list[tuple[Array, Array]]:
        """Memory and what is found in it, blocks, at the ends of the stretches, class by class."""
        return [self._line(self.cls == k) for k in range(len(self.prompt))]

    def _line(self, mine: NDArray[np.bool_]) -> tuple[Array, Array]:
        ends = np.concatenate([self.start[mine], self.end[mine]])
        steps = np.concatenate([np.ones(mine.sum(), np.int64), -np.ones(mine.sum(), np.int64)])
        memory, place = np.unique(ends, return_inverse=True)
        slope = np.cumsum(np.bincount(place, steps, len(memory)))[:-1] if len(memory) else np.empty(0)
        found = np.concatenate([[0.0], np.cumsum(slope * np.diff(memory))]) if len(memory) else np.zeros(1)
        return memory.astype(float) if len(memory) else np.zeros(1), found


def hit_curve(
    pieces: Pieces,
    requests: Requests,
    *,
    block: int = BLOCK,
    answers: bool = True,
    gpus: int = 1,
    together: bool = True,
    sessions: Numbers | None = None,
    classes: int | None = None,
) -> HitCurve:
    """The hit rate of requests against the memory of a GPU.

    Args:
        pieces: of text.
        requests: all of them, in the order in which they are sent.
        block: tokens of a block.
        answers: whether answers take memory too, and those that later prompts begin with are found.
        gpus: that share the requests, each with a memory of its own.
        together: whether each session's requests go to one GPU (see `by_session`), else to one after the other.
        sessions: the session of each request, where that is known, shape (requests,).
        classes: how many there are; None for those that have requests.
    """
    weight = pieces["end"].astype(np.int64) // block
    weight -= weight[pieces["parent"]]
    group = by_session(pieces, requests, gpus, sessions) if together else np.arange(len(requests)) % gpus
    depth = _depth(pieces)
    parts = [_of_gpu(pieces, weight, depth, requests, np.flatnonzero(group == k), block, answers) for k in range(gpus)]
    start, end, asked = (np.concatenate([part[k] for part in parts]) for k in range(3))
    classes = classes or int(requests["cls"].max(initial=0)) + 1
    prompt = np.bincount(requests["cls"], requests["prompt"], classes).astype(np.int64)
    return HitCurve(block, prompt, start, end, requests["cls"][asked].astype(np.int32))


def by_session(pieces: Pieces, requests: Requests, gpus: int, sessions: Numbers | None = None) -> Numbers:
    """The GPU of each request, 0 to `gpus` - 1, sessions kept together: one after the other goes to the next GPU.

    Where sessions are not known, one is what hangs on a piece of text: the first of a prompt that is no common
    beginning. That is one which more than a tenth of a GPU's requests have, and which goes on in more than two ways for
    each GPU. Prompts like no other are sessions of their own.
    """
    if gpus == 1:
        return np.zeros(len(requests), np.int64)
    key = _sessions_by_text(pieces, requests, gpus) if sessions is None else sessions
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    turn = np.empty(len(first), np.int64)
    turn[np.argsort(first)] = np.arange(len(first))
    return np.asarray(turn[place] % gpus)


def _sessions_by_text(pieces: Pieces, requests: Requests, gpus: int) -> Numbers:
    parents = pieces["parent"].tolist()
    count = np.bincount(requests["text"], minlength=len(pieces)).tolist()
    for p in range(len(pieces) - 1, 0, -1):
        count[parents[p]] += count[p]
    ways = np.bincount(pieces["parent"][1:], minlength=len(pieces)).tolist()
    few, session = max(1, len(requests) // (_COMMON * gpus)), [0] * len(pieces)
    for p in range(1, len(pieces)):
        common = count[p] > few and ways[p] > _WAYS * gpus
        session[p] = session[parents[p]] or (0 if common else p)
    own = np.array(session)
    key = np.where(own[requests["text"]] > 0, own[requests["text"]], requests["text"]).astype(np.int64)
    alone = requests["text"] == NOTHING
    key[alone] = len(pieces) + np.flatnonzero(alone)
    return key


def _depth(pieces: Pieces) -> Numbers:
    parents, depth = pieces["parent"].tolist(), [0] * len(pieces)
    for p in range(1, len(pieces)):
        depth[p] = depth[parents[p]] + 1
    return np.array(depth, np.int64)


def _of_gpu(
    pieces: Pieces,
    weight: Numbers,
    depth: Numbers,
    requests: Requests,
    mine: Numbers,
    block: int,
    answers: bool,
) -> tuple[Numbers, Numbers, Numbers]:
    """Start and end of the stretches that the requests of a GPU ask for again, and which request it is."""
    here = requests[mine]
    text = here["text"].astype(np.int64)
    used = np.where(answers & (here["answer"] != NOTHING), here["answer"], here["text"]).astype(np.int64)
    held = -(-(here["prompt"].astype(np.int64) + (here["output"] if answers else 0)) // block)
    lost = np.maximum(held - pieces["end"][used].astype(np.int64) // block, 0)
    read_again = (here["prompt"] % block == 0).astype(np.int64)
    stamps = int(depth[used].sum()) + len(here) + 1
    found = np.zeros((3, int(depth[text].sum()) + 1), np.int64)
    parent = pieces["parent"].astype(np.int64)
    last, tree = np.zeros(len(pieces), np.int64), np.zeros(stamps + 1, np.int64)
    count = stretches(parent, weight, text, used, lost, read_again, last, tree, found)
    return found[0, :count], found[1, :count], mine[found[2, :count]]


@inlined
def _up_to(tree: Numbers, stamp: int) -> int:
    """Blocks whose last use was at a time stamp or before it."""
    total = 0
    while stamp > 0:
        total += tree[stamp]
        stamp -= stamp & -stamp
    return total


@inlined
def _add(tree: Numbers, stamp: int, blocks: int) -> None:
    while stamp < len(tree):
        tree[stamp] += blocks
        stamp += stamp & -stamp


def _stretches(
    parent: Numbers,
    weight: Numbers,
    text: Numbers,
    used: Numbers,
    lost: Numbers,
    read_again: Numbers,
    last: Numbers,
    tree: Numbers,
    found: Numbers,
) -> int:
    """The stretches of blocks that requests find used before, and how many.

    Args:
        parent, weight: of the pieces, the blocks that are each one's own.
        text, used: of the requests, the piece with which a prompt ends, and that with which what it uses ends.
        lost: blocks that a request uses besides, and nobody finds.
        read_again: blocks of a prompt that are read though they are there, 1 or 0.
        last: when each piece was used, in time stamps from 1; 0 for never. All 0.
        tree: Fenwick's, of the blocks by the time stamp of their last use. All 0.
        found: start, end and request of each stretch, shape (3, enough).
    """
    count, now, blocks = 0, 0, 0
    for k in range(len(text)):
        again, piece, below = read_again[k], text[k], 0
        while piece > 0:
            own = weight[piece]
            if own > 0 and again > 0:
                own, again = own - 1, 0
            if last[piece] > 0 and own > 0:
                if below > 0 and last[piece] == last[below] + 1:
                    start = found[0, count - 1] - weight[piece]
                    found[0, count - 1] = start
                else:
                    start = blocks - _up_to(tree, last[piece])
                    found[0, count], found[1, count], found[2, count] = start, start + own, k
                    count += 1
                below = piece
            else:
                below = 0
            piece = parent[piece]
        if lost[k] > 0:
            now += 1
            blocks += lost[k]
            _add(tree, now, lost[k])
        piece = used[k]
        while piece > 0:
            now += 1
            if last[piece] > 0:
                _add(tree, last[piece], -weight[piece])
            else:
                blocks += weight[piece]
            last[piece] = now
            _add(tree, now, weight[piece])
            piece = parent[piece]
    return count


stretches = kept(_stretches, "the hit curve", seconds=2)
